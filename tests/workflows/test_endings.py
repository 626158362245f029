"""How runs end before their time: cancelled, without a sandbox, with calls of unknown outcome, with a broken store."""

import asyncio
from dataclasses import replace

import pytest
from temporalio.client import WorkflowFailureError, WorkflowUpdateFailedError
from temporalio.exceptions import ApplicationError, CancelledError

from policies.decision import Principal
from tests.fixtures.provider import Silence, answer, calls
from tests.fixtures.sandbox import leftovers
from tests.fixtures.volumes import in_workspace
from tests.workflows.house import RUTH, House, Started, automation, until, workers
from tools.contract import JsonObject
from worker.sandbox.container import Sandbox
from worker.sandbox.engine import LABEL_KIND, LABEL_OWNER, LABEL_RUN
from worker.store.audit import AuditEvent
from worker.store.ids import new_id
from worker.store.signing import public_keys
from workflows.automation import AutomationWorkflow
from workflows.contracts import QUEUE_RUNS, ApprovalState, Phase, Question, Rung, RunRequest


async def boxed(house: House, run: Started) -> str:
    """Wait until a call of the run has its container, and give the container's id."""
    labels = {LABEL_OWNER: house.sandbox.owner, LABEL_RUN: run.id, LABEL_KIND: "call"}
    found = await until(lambda: house.sandbox.engine.find_containers(labels))
    return str(found[0]["Id"])


async def written(run: Started) -> bytes | None:
    """What the program has written so far, as the engine packs it."""
    return await asyncio.to_thread(in_workspace, run.id, "out/effects.jsonl")


# ---------------------------------------------------------------- cancel


async def test_cancel_stops_the_running_call_withdraws_questions_and_leaves_nothing(house: House) -> None:
    wanted = (("note", {"text": "slow", "seconds": 25}), ("erase", {"text": "a"}), ("erase", {"text": "b"}))
    house.provider.script("cancelled", calls(*wanted))
    run = await house.start(automation("practice:cancelled"))
    await run.questions(f"{run.id}.1", f"{run.id}.2")
    await boxed(house, run)
    await run.handle.cancel()
    with pytest.raises(WorkflowFailureError) as ended:
        await run.result()
    assert isinstance(ended.value.cause, CancelledError)
    assert await house.outcomes(run) == {"c1-1": "cancelled", "c1-2": "cancelled", "c1-3": "cancelled"}
    assert len(await house.records(run, "approval.cancelled")) == 2
    [closed] = await house.records(run, "run.closed")
    assert closed.body["phase"] == "cancelled"
    row = await house.runs.get(None, run.id)
    assert row is not None
    assert row.phase is Phase.CANCELLED
    assert await leftovers(house.sandbox, run.id) == []


async def test_cancel_while_a_model_is_asked(house: House) -> None:
    house.provider.script("silent", Silence(20))
    run = await house.start(automation("practice:silent"))
    await until(lambda: house.provider.was_asked("silent"))
    await run.handle.cancel()
    with pytest.raises(WorkflowFailureError) as ended:
        await run.result(20)
    assert isinstance(ended.value.cause, CancelledError)
    assert [r.type for r in await house.records(run)] == ["run.opened", "run.closed"]


async def test_cancel_while_a_human_should_finish_the_job(house: House) -> None:
    run = await house.start(automation())
    question = await run.question()
    await run.handle.cancel()
    with pytest.raises(WorkflowFailureError):
        await run.result()
    row = await house.approvals.get(None, question.id)
    assert row is not None
    assert row.state is ApprovalState.CANCELLED


# ---------------------------------------------------------------- unknown outcome


FORBIDDEN_MEANWHILE = "forbidden while it ran"


async def lost_call(house: House, model: str, text: str = "once") -> Started:
    """A run whose at-most-once call lost its box in the middle."""
    house.provider.script(model, calls(("erase", {"text": text, "seconds": 25})), answer(said="seen"))
    run = await house.start(automation(f"practice:{model}"))
    await house.say(run, await run.question(), "approve")
    box = await boxed(house, run)
    await until(lambda: written(run))
    if text == FORBIDDEN_MEANWHILE:
        house.gate.forbidden.add(text)
    await house.sandbox.engine.call(lambda api: api.remove_container(box, force=True))
    return run


async def test_a_call_of_unknown_outcome_is_left_when_a_human_says_so(house: House) -> None:
    run = await lost_call(house, "lost-left")
    question = await run.question(2)
    assert question.question is Question.UNKNOWN_OUTCOME
    await house.say(run, question, "deny", reason="it looks done")
    result = await run.result()
    assert await house.effects(result) == ["once"]
    assert await house.outcomes(run) == {"c1-1": "unknown"}
    assert "it looks done" in house.provider.told("lost-left")[0]


async def test_nobody_is_asked_to_repeat_what_policy_forbids_by_now(house: House) -> None:
    run = await lost_call(house, "lost-forbidden", FORBIDDEN_MEANWHILE)
    result = await run.result()
    assert await house.effects(result) == [FORBIDDEN_MEANWHILE]
    assert await house.outcomes(run) == {"c1-1": "unknown"}
    assert len(await house.records(run, "approval.requested")) == 1, "only whether it may run at all"
    assert "Policy forbids to repeat it." in house.provider.told("lost-forbidden")[0]


async def test_a_call_of_unknown_outcome_runs_again_only_by_order(house: House) -> None:
    run = await lost_call(house, "lost-again")
    question = await run.question(2)
    with pytest.raises(WorkflowUpdateFailedError) as refused:
        await house.say(run, question, "approve", edited_arguments={"text": "other"})
    assert isinstance(refused.value.cause, ApplicationError)
    assert refused.value.cause.type == "invalid_arguments", "an order to repeat repeats the same call, unedited"
    await house.say(run, question, "approve")
    result = await run.result()
    assert await house.outcomes(run) == {"c1-1": "succeeded"}
    assert await house.effects(result) == ["once", "once"]


async def test_an_order_to_repeat_what_policy_forbids_by_then_repeats_nothing(house: House) -> None:
    run = await lost_call(house, "lost-late", "forbidden after it was lost")
    question = await run.question(2)
    house.gate.forbidden.add("forbidden after it was lost")
    await house.say(run, question, "approve")
    result = await run.result()
    assert await house.effects(result) == ["forbidden after it was lost"]
    assert await house.outcomes(run) == {"c1-1": "unknown"}, "the first time may have taken effect"
    assert "Denied by policy" in house.provider.told("lost-late")[0]


# ---------------------------------------------------------------- machinery


async def test_a_run_nobody_asked_for_does_nothing(house: House) -> None:
    """Whoever can reach Temporal could start a workflow as anybody; it must not even begin."""
    request = RunRequest(
        run_id="run_forged",
        principal=Principal(id="mallory", roles=("admin",)),
        automation=automation("practice:x"),
        inputs={},
        answer_keys=public_keys(house.settings.keys),
    )
    handle = await house.client.start_workflow(
        AutomationWorkflow.run, request, id=request.run_id, task_queue=QUEUE_RUNS
    )
    with pytest.raises(WorkflowFailureError) as ended:
        await handle.result()
    assert isinstance(ended.value.cause, ApplicationError), repr(ended.value.cause)
    assert ended.value.cause.type == "untrusted_request"
    assert await house.audit.page(tenant=None, run_id="run_forged") == []


async def test_every_step_replays(lone_house: House) -> None:
    """Without a cache each step replays the run from its start: nothing may depend on memory."""
    wanted = (("note", {"text": "a"}), ("erase", {"text": "b"}))
    lone_house.provider.script("uncached", calls(*wanted), calls(("note", {"text": "c"})), answer(said="done"))
    async with workers(lone_house, cached=0):
        run = await lone_house.start(automation("practice:uncached"))
        await lone_house.say(run, await run.question(), "approve", RUTH)
        result = await run.result()
    assert sorted(await lone_house.effects(result)) == ["a", "b", "c"]
    assert await lone_house.outcomes(run) == {"c1-1": "succeeded", "c1-2": "succeeded", "c2-1": "succeeded"}


async def test_a_fault_of_the_machinery_ends_the_run_in_a_recorded_failure(house: House) -> None:
    """Here the log holds another call under the same id: nothing may run, and nothing may hang."""
    run_id = new_id("run")
    body: JsonObject = {"call_id": "c1-1", "digest": "another"}
    intent = AuditEvent(f"{run_id}/call/c1-1/intent", "call.intent", "default", run_id, "x", body)
    house.provider.script("fault", calls(("note", {"text": "a"})))
    await house.audit.append(intent)
    run = await house.start(automation("practice:fault"), run_id=run_id)
    result = await run.result()
    assert result.phase is Phase.FAILED
    assert result.failure is not None
    assert result.failure.startswith("a fault of the machinery: bad_record: call c1-1 is on record")
    assert await house.effects(result) == []
    [closed] = await house.records(run, "run.closed")
    assert closed.body["phase"] == "failed"
    row = await house.runs.get(None, run.id)
    assert row is not None
    assert row.phase is Phase.FAILED


async def test_two_calls_without_a_sandbox_end_the_model_rung(lone_house: House) -> None:
    """No image for the calls: each fails cleanly, and the run degrades instead of trying for ever."""
    lone_house.provider.script("boxless", *[calls(("note", {"text": "a"}))] * 4)
    nowhere = Sandbox(lone_house.sandbox.engine, data=lone_house.settings.data / "nowhere", owner="gh-test-nowhere")
    async with workers(lone_house, boxes_of=nowhere):
        run = await lone_house.start(automation("practice:boxless"))
        question = await run.question()
        await lone_house.say(run, question, "deny")
        result = await run.result()
    assert question.question is Question.HANDOVER
    assert result.phase is Phase.FAILED
    assert result.degraded[0] == "no sandbox for 2 calls in a row"
    assert len(lone_house.provider.asked["boxless"]) == 2
    assert await lone_house.outcomes(run) == {"c1-1": "failed", "c2-1": "failed"}


async def test_without_a_workspace_the_run_goes_to_rules_and_humans_at_once(lone_house: House) -> None:
    nowhere = Sandbox(lone_house.sandbox.engine, data=lone_house.settings.data / "nowhere", owner="gh-test-nowhere")
    async with workers(replace(lone_house, sandbox=nowhere)):
        run = await lone_house.start(automation("practice:never"))
        await lone_house.say(run, await run.question(), "approve", output={"said": "by hand"})
        result = await run.result()
    assert result.rung is Rung.HUMAN
    assert result.degraded[0].startswith("no workspace: sandbox_unavailable")


async def test_a_repetition_that_cannot_run_does_not_pretend_to_know(house: House) -> None:
    """Ordered to repeat, but the run is cancelled before: what the first time did is still not known."""
    run = await lost_call(house, "lost-cancelled")
    await run.question(2)
    await run.handle.cancel()
    with pytest.raises(WorkflowFailureError):
        await run.result()
    assert await house.outcomes(run) == {"c1-1": "unknown"}
