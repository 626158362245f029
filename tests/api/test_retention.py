"""Promises: an administrator sees what is due to go, and keeps it with holds of their own tenant; each is on record."""

import dataclasses
from collections.abc import AsyncIterator
from contextlib import aclosing
from datetime import timedelta

import pytest

from tests.api.running import Api, running
from tests.console.test_sessions import browser_of
from tests.worker.store.facts import calls, closing, loose
from worker.keeper.retaining import Retaining
from worker.store import times
from worker.store.checkpoints import Publisher
from workflows.contracts import ApprovalState, Phase


@pytest.fixture(scope="module")
async def api(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Api]:
    """An API with a store of its own, whose policy is a year; nothing else of it works."""
    folder = tmp_path_factory.mktemp("retention")
    async with running(folder, "127.0.0.1:1", retention_days=365, retention_tenants={"elsewhere": 30}) as found:
        yield found


async def test_what_is_due_shows_and_is_held(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    admin = await api.client("admin")
    long_ago = times.now() - timedelta(days=400)
    run = await api.put_run("default", Phase.SUCCEEDED)
    with monkeypatch.context() as then:
        then.setattr(times, "now", lambda: long_ago)
        await api.services.audit.append(*calls(run.id, 2), closing(run.id, 5), loose())
    Publisher(api.services.database, api.settings.keys, api.settings.anchor).publish()

    async def due(who: str = "admin", *roles: str) -> tuple[int, int, int]:
        found = (await (await api.client(who, *roles)).get("/retention")).json()
        return found["days"], found["records"], found["held"]

    assert await due() == (365, 5, 0)
    assert await due("admin@elsewhere", "admin") == (30, 0, 0)
    placed = await admin.post("/retention/holds", json={"reason": "case 17", "run_id": run.id})
    assert (placed.status_code, placed.json()["placed_by"]) == (201, "admin")
    assert await due() == (365, 1, 4)
    hold = f"/retention/holds/{placed.json()['id']}"
    other = await api.client("admin@elsewhere", "admin")
    assert (await other.post(f"{hold}/release", json={"reason": "x"})).status_code == 404
    assert (await other.get("/retention/holds")).json()["items"] == []
    released = await admin.post(f"{hold}/release", json={"reason": "settled"})
    assert (released.status_code, released.json()["lifted_by"]) == (200, "admin")
    again = await admin.post(f"{hold}/release", json={"reason": "settled"})
    assert (again.status_code, again.json()["kind"]) == (409, "hold_released")
    assert await due() == (365, 5, 0)
    [on_record] = await api.records("hold.placed")
    assert (on_record["actor"], on_record["reason"], on_record["tenant"]) == ("admin", "case 17", "default")
    assert [r["actor"] for r in await api.records("hold.lifted")] == ["admin"]


async def test_a_run_without_contents_is_shown_as_what_is_left_of_it(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the duty itself, and on every page and route that shows something of the run."""
    auditor, admin = await api.client("auditor@kept", "auditor"), await api.client("admin@kept", "admin")
    run = await api.put_artifact("report.html", b"<p>report</p>", "kept")
    question = await api.put_question(run)
    await api.services.approvals.close(question.id, ApprovalState.DENIED)
    going = await api.put_run("kept", Phase.WORKING)
    events = (*calls(run.id, 2), closing(run.id, 5))
    await api.services.audit.append(*(dataclasses.replace(event, tenant="kept") for event in events))
    Publisher(api.services.database, api.settings.keys, api.settings.anchor).publish()
    later = times.now() + timedelta(days=400)
    with monkeypatch.context() as then:
        then.setattr(times, "now", lambda: later)
        await Retaining(api.services.audit, api.settings).look()
    shown = (await auditor.get(f"/runs/{run.id}")).json()
    assert (shown["inputs"], shown["result"]["artifacts"], shown["phase"]) == ({}, [], "succeeded")
    assert shown["contents_removed_at"] == later.isoformat().replace("+00:00", "Z")
    kept = (await auditor.get(f"/runs/{going.id}")).json()
    assert (kept["contents_removed_at"], kept["inputs"]) == (None, {"path": "in/a"})
    gone = await auditor.get(f"/runs/{run.id}/artifacts/report.html")
    assert gone.status_code == 404
    for path in ("/runs", f"/runs/{run.id}/artifacts", "/approvals", f"/approvals/{question.id}", "/audit"):
        assert (await auditor.get(path)).status_code == 200, path
    late = await admin.post(f"/approvals/{question.id}/approve", json={"digest": question.digest})
    assert (late.status_code, late.json()["kind"]) == (409, "already_decided")
    [told] = await api.services.audit.page(tenant="kept", type="retention.contents_removed")
    assert told.body["runs"] == [run.id]
    async with aclosing(await browser_of(api, api.keys["auditor@kept"])) as browser:
        page = await browser.get(f"/console/runs/{run.id}")
        assert (page.status_code, "Contents removed by retention" in page.text) == (200, True)
        for path in ("runs", "audit", f"questions/{question.id}", f"runs/{going.id}"):
            assert (await browser.get(f"/console/{path}")).status_code == 200, path


async def test_lists_page_and_tell_those_in_force(api: Api) -> None:
    admin = await api.client("admin@listing", "admin")
    made = [await admin.post("/retention/holds", json={"reason": f"case {number}"}) for number in range(3)]
    ids = [one.json()["id"] for one in made]
    assert (await admin.post(f"/retention/holds/{ids[0]}/release", json={"reason": "x"})).status_code == 200
    first = (await admin.get("/retention/holds", params={"limit": 2})).json()
    rest = (await admin.get("/retention/holds", params={"limit": 2, "cursor": first["next_cursor"]})).json()
    assert [hold["id"] for hold in first["items"] + rest["items"]] == ids[::-1]
    active = (await admin.get("/retention/holds", params={"active": True})).json()["items"]
    assert {hold["id"] for hold in active} == set(ids[1:])


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"reason": " "}, 422),
        ({"reason": "x", "run_id": "run_none"}, 404),
        ({"reason": "x", "since": "2026-01-01T00:00:00"}, 422),
        ({"reason": "x", "since": "2026-02-01T00:00:00Z", "until": "2026-01-01T00:00:00Z"}, 422),
    ],
)
async def test_a_hold_that_names_nothing_is_refused(api: Api, body: dict[str, str], status: int) -> None:
    admin = await api.client("admin")
    refused = await admin.post("/retention/holds", json=body)
    assert (refused.status_code, "remedy" in refused.json()) == (status, True), refused.text
