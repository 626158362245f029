"""What comes while a question is being put, told of or withdrawn: a switch before it is listed stops its clock and its
answers; from the moment a run has heard that it is cancelled, every answer is told just that."""

import asyncio
from collections.abc import Awaitable
from datetime import timedelta
from typing import cast

import httpx
import pytest
from temporalio.api.enums.v1 import EventType
from temporalio.client import WorkflowFailureError, WorkflowUpdateFailedError
from temporalio.exceptions import ApplicationError
from temporalio.service import RPCError, RPCStatusCode

from policies.decision import Principal
from policies.switches import Hold
from policies.terms import Terms
from tests.api.running import running
from tests.workflows.house import OLGA, RUTH, House, Started, automation, one_call, until
from worker.store.approvals import ApprovalRow
from worker.store.ids import new_id
from workflows.contracts import SIGNAL_FREEZE, SIGNAL_THAW, ApprovalRequest, ApprovalState, Phase

RAY = Principal(id="ray", roles=("approver",))
COMMIT, GATE, LEAVE = "run.commit", "call.open", "workspace.close"


async def refused(sending: Awaitable[object]) -> str:
    with pytest.raises(WorkflowUpdateFailedError) as error:
        await sending
    assert isinstance(error.value.cause, ApplicationError)
    return str(error.value.cause.type)


async def stands(house: House, run: Started, phase: Phase) -> bool:
    row = await house.runs.get(None, run.id)
    return row is not None and row.phase is phase


async def listed(house: House, question: ApprovalRequest, state: ApprovalState) -> list[ApprovalRow]:
    row = await house.approvals.get(None, question.id)
    return [row] if row and row.state is state else []


async def put(run: Started) -> tuple[ApprovalRequest, ...]:
    """The run's questions, whether people see them or not."""
    return (await run.state()).waiting


# ---------------------------------------------------------------- a switch


@pytest.mark.parametrize("door", [COMMIT, GATE], ids=["listed", "put"])
async def test_a_switch_that_comes_before_a_question_is_there_holds_it(house: House, door: str) -> None:
    """While it waits to be listed, and while the gate is still deciding that there will be one."""
    house.gate.terms["held early"] = Terms()
    run_id = new_id("run")
    house.doors.shut(run_id, door)
    # The signal reaches a run that is at its gate when its workflow task is renewed.
    run = await house.start(automation(rules=one_call("held early")), run_id=run_id, task_timeout=timedelta(seconds=2))
    await until(lambda: put(run) if door == COMMIT else house.doors.waiting(run_id, door))
    await run.handle.signal(SIGNAL_FREEZE, Hold(switch_id="sw_1", revision=1))
    await until(lambda: stands(house, run, Phase.FROZEN))
    assert (await house.approvals.page(None, run_id=run_id)).items == ()
    house.doors.open(run_id, door)
    question = await run.question()
    [frozen] = await until(lambda: listed(house, question, ApprovalState.FROZEN))
    assert await stands(house, run, Phase.FROZEN)
    assert await refused(house.say(run, question, "approve")) == "frozen"
    await run.handle.signal(SIGNAL_THAW, Hold(switch_id="sw_1", revision=2))
    [again] = await until(lambda: listed(house, question, ApprovalState.PENDING))
    assert again.request.deadline > frozen.request.deadline
    await house.say(run, again.request, "approve")
    assert await house.effects(await run.result()) == ["held early"]


# ---------------------------------------------------------------- a cancellation


async def heard(run: Started) -> bool:
    """Whether the run has handled its cancellation."""
    types = [event.event_type for event in (await run.handle.fetch_history()).events]
    if EventType.EVENT_TYPE_WORKFLOW_EXECUTION_CANCEL_REQUESTED not in types:
        return False
    since = types[types.index(EventType.EVENT_TYPE_WORKFLOW_EXECUTION_CANCEL_REQUESTED) :]
    return EventType.EVENT_TYPE_WORKFLOW_TASK_COMPLETED in since


async def test_a_run_that_is_being_cancelled_tells_every_answer_so(house: House) -> None:
    house.gate.terms["going"] = Terms(needed=2)
    async with running(house.settings.data, house.settings.temporal_address, temporal_namespace="default") as api:
        ruth, ray = await api.client("ruth", "approver"), await api.client("ray", "approver")
        run = await house.start(automation(rules=one_call("going")))
        question = await run.question()
        await house.say(run, question, "approve")
        # The requester's word is on its way to the record when the cancellation comes: the question is still open.
        house.doors.shut(run.id, COMMIT)
        house.doors.shut(run.id, LEAVE)
        sending = asyncio.create_task(house.act(run, question, "reply", OLGA, text="it is full"))
        await until(lambda: house.doors.waiting(run.id, COMMIT))
        await run.handle.cancel()
        await until(lambda: heard(run))
        assert (await put(run)) != (), "the question is not withdrawn yet"
        await told_cancelled(house, run, question, (ray,))
        house.doors.open(run.id, COMMIT)
        await sending
        await until(lambda: listed(house, question, ApprovalState.CANCELLED))
        await told_cancelled(house, run, question, (ruth, ray))
        house.doors.open(run.id, LEAVE)
        with pytest.raises(WorkflowFailureError):
            await run.result()
        for person in (ruth, ray):
            assert await over_http(person, question) == (409, "cancelled")
        with pytest.raises(RPCError) as over:
            await house.say(run, question, "approve", RAY)
    assert over.value.status is RPCStatusCode.NOT_FOUND
    assert await house.outcomes(run) == {"no-model-needed-only": "cancelled"}
    [closed] = await house.records(run, "approval.cancelled")
    assert [a["principal"] for a in cast("list[dict[str, str]]", closed.body["answers"])] == ["ruth"]


async def told_cancelled(
    house: House, run: Started, question: ApprovalRequest, people: tuple[httpx.AsyncClient, ...]
) -> None:
    """Whoever answers, whatever they say, whichever way. `people` do it over HTTP."""
    for person, verdict in ((RUTH, "approve"), (RAY, "approve"), (RAY, "deny")):
        assert await refused(house.say(run, question, verdict, person)) == "cancelled"
    assert await refused(house.act(run, question, "ask", RAY, text="still there?")) == "cancelled"
    for person in people:
        assert await over_http(person, question) == (409, "cancelled")


async def over_http(person: httpx.AsyncClient, question: ApprovalRequest) -> tuple[int, str]:
    said = await person.post(f"/approvals/{question.id}/approve", json={"digest": question.digest})
    return said.status_code, said.json()["kind"]
