"""Promises: an answer that cannot count is refused before it travels, with a stable kind and a remedy, on record;
identity never comes from the body; a run that is gone refuses too."""

from datetime import UTC, datetime, timedelta

import httpx
import pytest

from tests.api.running import Api, Json
from workflows.contracts import ApprovalState, Phase, Question
from workflows.held import FrozenQuestion


async def refused(api: Api, run_id: str) -> list[tuple[str, str]]:
    return [(r["kind"], r["actor"]) for r in await api.records("answer.refused", run_id=run_id)]


async def test_list_and_read(api: Api) -> None:
    approver = await api.client("reader@listing", "approver")  # where nobody has answered a like call
    run = await api.put_run("listing", phase=Phase.AWAITING_APPROVAL)
    asked = await api.put_question(run)
    (listed,) = (await approver.get("/approvals", params={"run": run.id, "state": "pending"})).json()["items"]
    found = (await approver.get(f"/approvals/{asked.id}")).json()
    assert listed | {"like_calls": {"approved": 0, "denied": 0}} == found
    assert found["digest"] == asked.digest
    assert found["call"]["arguments"] == {"paths": ["in/a"]}
    assert found["links"]["run"] == f"/api/v1/runs/{run.id}"
    assert run.id in found["links"]["temporal"]
    assert (await approver.get("/approvals", params={"run": run.id, "state": "denied"})).json()["items"] == []
    assert (await approver.get("/approvals", params={"state": "maybe"})).json()["errors"][0]["field"] == "query.state"


async def test_self_approval(api: Api) -> None:
    both = await api.client("Both", "operator", "approver")
    run = await api.put_run(requester="both")  # the same person, however it is spelt
    asked = await api.put_question(run)
    for verb, body in ("approve", {"digest": asked.digest}), ("deny", {"digest": asked.digest, "reason": "no"}):
        response = await both.post(f"/approvals/{asked.id}/{verb}", json=body)
        assert (response.status_code, response.json()["kind"]) == (403, "self_approval")
        assert response.json()["remedy"]
    assert await refused(api, run.id) == [("self_approval", "Both")] * 2


async def test_identity_in_the_body_is_an_error(api: Api, approver: httpx.AsyncClient) -> None:
    asked = await api.put_question(await api.put_run())
    for field in "principal", "decided_by", "approver", "tenant", "tool", "call":
        response = await approver.post(f"/approvals/{asked.id}/approve", json={"digest": asked.digest, field: "ruth"})
        assert (response.status_code, response.json()["errors"][0]["field"]) == (422, f"body.{field}")


@pytest.mark.parametrize(
    ("changes", "status", "kind"),
    [
        ({"digest": "f" * 64}, 409, "args_changed"),
        ({"deadline": datetime.now(UTC) - timedelta(seconds=1)}, 409, "expired"),
        ({"approvers": "finance-lead"}, 403, "not_an_approver"),
    ],
)
async def test_refusals(api: Api, approver: httpx.AsyncClient, changes: Json, status: int, kind: str) -> None:
    run = await api.put_run()
    await api.put_question(run, **changes)
    body = {"digest": (await api.put_question(await api.put_run())).digest}
    response = await approver.post(f"/approvals/{run.id}.1/approve", json=body)
    assert (response.status_code, response.json()["kind"]) == (status, kind), response.text
    assert await refused(api, run.id) == [(kind, "approver")]
    if kind == "not_an_approver":
        assert "finance-lead" in response.json()["detail"]


@pytest.mark.parametrize(
    ("state", "kind"),
    [
        ("approved", "already_decided"),
        ("denied", "already_decided"),
        ("expired", "expired"),
        ("cancelled", "cancelled"),
    ],
)
async def test_closed_questions(api: Api, approver: httpx.AsyncClient, state: str, kind: str) -> None:
    run = await api.put_run()
    asked = await api.put_question(run)
    await api.services.approvals.close(asked.id, ApprovalState(state))
    response = await approver.post(f"/approvals/{asked.id}/deny", json={"digest": asked.digest, "reason": "no"})
    assert (response.status_code, response.json()["kind"]) == (409, kind)
    assert await refused(api, run.id) == [(kind, "approver")]


@pytest.mark.parametrize(
    ("question", "body", "field"),
    [
        ("call", {"edited_arguments": {"paths": []}}, "body.edited_arguments.paths"),
        ("call", {"edited_arguments": {}}, "body.edited_arguments.paths"),
        ("call", {"edited_arguments": {"paths": ["a"], "force": True}}, "body.edited_arguments"),
        ("call", {"output": {"done": True}}, "body.output"),
        ("handover", {}, "body.output"),
        ("handover", {"edited_arguments": {"paths": ["a"]}, "output": {}}, "body.edited_arguments"),
        ("unknown_outcome", {"edited_arguments": {"paths": ["a"]}}, "body.edited_arguments"),
    ],
)
async def test_what_people_write_is_checked(
    api: Api, approver: httpx.AsyncClient, question: str, body: Json, field: str
) -> None:
    run = await api.put_run()
    asked = await api.put_question(run, question=Question(question))
    response = await approver.post(f"/approvals/{asked.id}/approve", json={"digest": asked.digest} | body)
    problem = response.json()
    assert (response.status_code, problem["kind"]) == (422, "invalid_arguments"), problem
    assert field in [e["field"] for e in problem["errors"]]
    assert await refused(api, run.id) == [("invalid_arguments", "approver")]


async def test_what_is_open_is_listed_until_it_is_decided(api: Api) -> None:
    """Held by a switch too: nobody forgets what nobody sees."""
    reader = await api.client("reader@open", "approver")

    async def listed() -> tuple[bool, bool]:
        found = (await reader.get("/approvals", params={"run": run.id})).json()["items"]
        async with httpx.AsyncClient(base_url=api.url, timeout=60) as visitor:
            form = {"key": api.keys["reader@open"]}
            await visitor.post("/console/sign-in", data=form, headers={"Origin": api.url})
            page = (await visitor.get("/console/queue")).text
        return asked.id in [a["id"] for a in found if a["state"] in ("pending", "frozen")], asked.id in page

    for question in Question:
        run = await api.put_run("open", phase=Phase.AWAITING_APPROVAL)
        asked = await api.put_question(run, question=question)
        assert await listed() == (True, True), question
        held = FrozenQuestion(approval_id=asked.id, state=ApprovalState.FROZEN, deadline=asked.deadline)
        async with api.services.database.begin() as conn:
            await api.services.approvals.set_clock(held, conn=conn)
        assert await listed() == (True, True), question
        await api.services.approvals.close(asked.id, ApprovalState.EXPIRED)
        assert await listed() == (False, False), question


async def test_a_denial_needs_a_reason(api: Api, approver: httpx.AsyncClient) -> None:
    asked = await api.put_question(await api.put_run())
    for body in {"digest": asked.digest}, {"digest": asked.digest, "reason": ""}:
        response = await approver.post(f"/approvals/{asked.id}/deny", json=body)
        assert (response.status_code, response.json()["errors"][0]["field"]) == (422, "body.reason")


async def test_a_run_without_a_workflow_takes_no_answer(api: Api, approver: httpx.AsyncClient) -> None:
    run = await api.put_run()
    asked = await api.put_question(run)
    response = await approver.post(f"/approvals/{asked.id}/approve", json={"digest": asked.digest})
    assert (response.status_code, response.json()["kind"]) == (409, "cancelled"), response.text
    assert await refused(api, run.id) == [("cancelled", "approver")]


async def test_no_worker_takes_the_answer(
    api: Api, operator: httpx.AsyncClient, approver: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bounded, told from Temporal being away, and honest about what may still happen."""
    monkeypatch.setattr("api.gateway.ANSWER_S", 0.5)
    started = (await operator.post("/runs", json={"automation": "tidy", "inputs": {"path": "in/a"}})).json()
    asked = await api.put_question(await api.put_run(id=started["id"]))
    response = await approver.post(f"/approvals/{asked.id}/approve", json={"digest": asked.digest})
    assert (response.status_code, response.json()["kind"]) == (503, "no_worker"), response.text
    assert (await approver.get(f"/approvals/{asked.id}")).json()["state"] == "pending"
