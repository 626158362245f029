"""Promises: a switch counts from the answer on and needs no Temporal; nobody reaches beyond their tenant; a release
goes step by step and never twice by accident; every step is on record."""

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from tests.api.running import Api, Json, running
from worker.store.switches import SwitchMoved
from workflows.contracts import ApprovalState, Phase

RUN = {"automation": "tidy", "inputs": {"path": "in/a"}}


@pytest.fixture(scope="module")
async def api(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Api]:
    """An API whose Temporal does not answer, with a store of its own: switches would stop everybody's tests."""
    async with running(tmp_path_factory.mktemp("switches"), "127.0.0.1:1") as found:
        yield found


@pytest.fixture(autouse=True)
async def nothing_stopped(api: Api) -> AsyncIterator[None]:
    yield
    for switch in await api.services.switches.in_force():
        await api.services.switches.advance(switch, "released", by="test", reason="over")


async def put(client: httpx.AsyncClient, **body: object) -> Json:
    response = await client.post("/switches", json={"scope": "global", "reason": "a test", **body})
    assert response.status_code == 201, response.text
    return dict(response.json())


@pytest.mark.parametrize(
    ("body", "stops"),
    [
        ({"scope": "global"}, True),
        ({"scope": "tenant"}, True),
        ({"scope": "tenant", "target": "other"}, False),
        ({"scope": "automation", "target": "ti*"}, True),
        ({"scope": "automation", "target": "log-triage"}, False),
        ({"scope": "tool", "target": "*"}, False),
        ({"scope": "model", "target": "*"}, False),
        ({"scope": "global", "kind": "safe_mode"}, False),
    ],
)
async def test_a_stop_refuses_new_runs_and_says_which_switch(api: Api, body: Json, stops: bool) -> None:
    switch = await put(await api.client("admin"), **body)
    answer = await (await api.client("operator")).post("/runs", json=RUN)
    if not stops:
        assert answer.status_code == 503, "it got as far as Temporal"
        return
    assert (answer.status_code, answer.json()["kind"]) == (409, "stopped")
    assert switch["id"] in answer.text
    listed = (await (await api.client("viewer")).get("/switches", params={"active": True})).json()["items"]
    assert [s["id"] for s in listed] == [switch["id"]]


async def test_runs_and_questions_are_stopped_in_the_same_transaction(api: Api) -> None:
    run, other = await api.put_run(phase=Phase.AWAITING_APPROVAL), await api.put_run("other")
    done = await api.put_run(phase=Phase.SUCCEEDED)
    question = await api.put_question(run)
    switch = await put(await api.client("admin"), scope="tenant")
    found = (await (await api.client("viewer")).get(f"/switches/{switch['id']}")).json()
    stopped = {r["run_id"] for r in found["runs"]}
    assert run.id in stopped
    assert not stopped & {other.id, done.id}
    assert found["counts"]["requested"] == len(stopped)
    assert (found["counts"]["confirmed"], found["confirmed"]) == (0, False)
    body = {"digest": question.digest, "reason": "seen"}
    answer = await (await api.client("approver")).post(f"/approvals/{question.id}/approve", json=body)
    assert (answer.status_code, answer.json()["kind"]) == (409, "frozen")
    row = await api.services.approvals.get(None, question.id)
    assert row is not None
    assert row.state is ApprovalState.FROZEN


async def test_a_release_goes_step_by_step(api: Api) -> None:
    admin = await api.client("admin")
    path = f"/switches/{(await put(admin))['id']}/release"
    wrong = await admin.post(path, json={"state": "safe_mode", "reason": "all good"})
    assert (wrong.status_code, wrong.json()["kind"]) == (409, "switch_moved")
    first = await admin.post(path, json={"state": "stop", "reason": "all good"})
    assert (first.status_code, first.json()["state"]) == (200, "safe_mode")
    again = await admin.post(path, json={"state": "stop", "reason": "all good"})
    assert again.status_code == 409, "the same step twice"
    last = await admin.post(path, json={"state": "safe_mode", "reason": "all good"})
    assert last.json()["state"] == "released"
    assert await api.services.switches.in_force() == []
    switch = await api.services.switches.get(first.json()["id"])
    assert switch is not None
    with pytest.raises(SwitchMoved):
        await api.services.switches.advance(switch.model_copy(update={"revision": 1}), "stop", by="x", reason="y")
    kinds = [
        type_
        for type_ in ("switch.set", "switch.eased", "switch.released")
        for body in await api.records(type_)
        if body["switch_id"] == switch.id
    ]
    assert kinds == ["switch.set", "switch.eased", "switch.released"]


async def test_tools_and_models_have_one_step_and_no_safe_mode(api: Api) -> None:
    admin = await api.client("admin")
    switch = await put(admin, scope="model", target="openai:*")
    done = await admin.post(f"/switches/{switch['id']}/release", json={"state": "stop", "reason": "r"})
    assert done.json()["state"] == "released"
    refused = await admin.post(
        "/switches", json={"scope": "tool", "target": "x", "kind": "safe_mode", "reason": "r"}
    )  # fmt: skip
    assert refused.status_code == 422


@pytest.mark.parametrize(
    "body",
    [
        {"scope": "global"},
        {"scope": "tenant", "target": "default"},
        {"scope": "tool", "target": "x", "everywhere": True},
        {"scope": "automation", "target": "*", "everywhere": True, "kind": "safe_mode"},
    ],
)
async def test_nobody_reaches_beyond_their_tenant(api: Api, body: Json) -> None:
    stranger = await api.client("eve@other", "admin")
    refused = await stranger.post("/switches", json={**body, "reason": "r"})
    assert refused.status_code == 403
    assert await api.services.switches.in_force() == []


async def test_strangers_see_that_they_are_stopped_and_nothing_of_others(api: Api) -> None:
    await api.put_run()
    everything = await put(await api.client("admin"))
    ours = await put(await api.client("admin"), scope="tenant")
    stranger = await api.client("eve@other", "admin")
    seen = (await stranger.get(f"/switches/{everything['id']}")).json()
    assert (seen["state"], seen["runs"], seen["counts"]["requested"]) == ("stop", [], 0)
    assert (await stranger.get(f"/switches/{ours['id']}")).status_code == 404
    release = {"state": "stop", "reason": "r"}
    assert (await stranger.post(f"/switches/{everything['id']}/release", json=release)).status_code == 403
    assert (await stranger.post(f"/switches/{ours['id']}/release", json=release)).status_code == 404


async def test_a_repeat_under_its_key_is_refused_while_stopped_and_starts_afterwards(api: Api, tmp_path: Path) -> None:
    operator, key = await api.client("operator"), {"Idempotency-Key": "stopped-1"}
    switch = await put(await api.client("admin"), scope="automation", target="tidy")
    assert (await operator.post("/runs", json=RUN, headers=key)).status_code == 409
    found = await api.services.switches.get(switch["id"])
    assert found is not None
    await api.services.switches.advance(found, "released", by="test", reason="over")
    assert (await operator.post("/runs", json=RUN, headers=key)).status_code == 503, "it got as far as Temporal"
