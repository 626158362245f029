"""Promises: an administrator sees what is due to go, and keeps it with holds of their own tenant; each is on record."""

from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from tests.api.running import Api, running
from tests.worker.store.facts import calls, closing, loose
from worker.store import times
from worker.store.checkpoints import Publisher
from workflows.contracts import Phase


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
    api.settings.anchor.unlink(missing_ok=True)
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


async def test_an_anchor_that_cannot_be_read_is_told(api: Api) -> None:
    content = api.settings.anchor.read_bytes()
    try:
        api.settings.anchor.write_text("{}\n")
        refused = await (await api.client("admin")).get("/retention")
        assert (refused.status_code, refused.json()["kind"]) == (503, "anchor_unavailable")
    finally:
        api.settings.anchor.write_bytes(content)
