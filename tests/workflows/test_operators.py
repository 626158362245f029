"""What an operator reads of a run in Temporal itself, without decoding a payload."""

import pytest
from temporalio.api.sdk.v1 import WorkflowMetadata
from temporalio.client import WorkflowFailureError
from temporalio.common import SearchAttributeKey, TypedSearchAttributes

from tests.fixtures.provider import answer, calls
from tests.workflows.house import House, Started, automation, until
from workflows import contracts
from workflows.contracts import Phase

PHASE = SearchAttributeKey.for_keyword(contracts.SA_PHASE)
APPROVERS = SearchAttributeKey.for_keyword_list(contracts.SA_APPROVERS)
DEADLINE = SearchAttributeKey.for_datetime(contracts.SA_DEADLINE)
CONSTANT = {contracts.SA_AUTOMATION: "practice-run", contracts.SA_TENANT: "default", contracts.SA_RUNG: "model"}


async def attributes(run: Started) -> TypedSearchAttributes:
    return (await run.handle.describe()).typed_search_attributes


async def test_a_waiting_run_shows_who_is_waited_for_and_until_when(house: House) -> None:
    house.provider.script("shown", calls(("erase", {"text": "top secret"})), answer(said="gone"))
    run = await house.start(automation("practice:shown"))
    question = await run.question()
    shown = await attributes(run)
    assert {name: shown[SearchAttributeKey.for_keyword(name)] for name in CONSTANT} == CONSTANT
    assert (shown[PHASE], shown[APPROVERS]) == ("awaiting_approval", ["approver"])
    assert abs((shown[DEADLINE] - question.deadline).total_seconds()) < 1
    metadata = await run.handle.query("__temporal_workflow_metadata", result_type=WorkflowMetadata)
    assert "waiting for **approver**: erase (c1-1)" in metadata.current_details
    assert "top secret" not in metadata.current_details, "details are stored in plain text"
    await house.say(run, question, "approve")
    await run.result()
    after = await attributes(run)
    assert after[PHASE] == "succeeded"
    assert not after.get(APPROVERS)
    assert after.get(DEADLINE) is None


async def test_runs_can_be_found_by_what_they_wait_for(house: House) -> None:
    house.provider.script("found", calls(("erase", {"text": "x"})), answer(said="gone"))
    run = await house.start(automation("practice:found"))
    question = await run.question()
    query = f"{contracts.SA_PHASE} = 'awaiting_approval' AND {contracts.SA_APPROVERS} = 'approver'"

    async def listed() -> bool:
        return run.id in [w.id async for w in house.client.list_workflows(query)]

    assert await until(listed)
    await house.say(run, question, "deny")
    await run.result()


async def test_every_step_says_what_it_is_for(house: House) -> None:
    house.provider.script("summaries", calls(("note", {"text": "top secret"})), answer(said="gone"))
    run = await house.start(automation("practice:summaries"))
    await run.result()
    history = await run.handle.fetch_history()
    # As the Temporal UI gets them: people trace runs there without a key.
    summaries = [e.user_metadata.summary.data.decode() for e in history.events if e.user_metadata.summary.data]
    for expected in ("prepare the workspace", "gate note c1-1", "note@1 c1-1", "request model: practice:summaries"):
        assert any(expected in summary for summary in summaries), summaries
    assert "top secret" not in str(summaries)


async def test_a_workflow_with_unreadable_input_fails_instead_of_hanging(house: House) -> None:
    handle = await house.client.start_workflow(
        contracts.WORKFLOW, {"run_id": 7}, id="run_unreadable", task_queue=contracts.QUEUE_RUNS
    )
    with pytest.raises(WorkflowFailureError):
        await Started("run_unreadable", handle, house.approvals).result(20)


async def test_the_state_query_shows_calls_and_progress(house: House) -> None:
    house.provider.script("state", calls(("note", {"text": "a"}), ("erase", {"text": "b"})), answer(said="gone"))
    run = await house.start(automation("practice:state"))
    question = await run.question()

    async def noted() -> bool:
        return any(c.tool == "note" and c.outcome for c in (await run.state()).calls)

    await until(noted)
    state = await run.state()
    assert (state.phase, state.model, state.steps) == (Phase.AWAITING_APPROVAL, "practice:state", 1)
    assert [(c.id, c.tool, c.verdict) for c in state.calls] == [("c1-1", "note", "allow"), ("c1-2", "erase", "ask")]
    await house.say(run, question, "deny")
    await run.result()
    assert [c.outcome for c in (await run.state()).calls] == ["succeeded", "denied"]
