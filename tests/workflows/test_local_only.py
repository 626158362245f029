"""Who may write to Temporal cannot have the runs worker record what no run of ours did."""

from datetime import timedelta

import pytest
from temporalio import workflow
from temporalio.client import WorkflowFailureError
from temporalio.exceptions import ActivityError, ApplicationError
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from policies.terms import Terms
from tests.workflows.house import House, automation, one_call
from workflows.contracts import QUEUE_RUNS, ApprovalClosed, ApprovalState, RunRef


@workflow.defn
class Stranger:
    """Calls from outside for what only runs call for."""

    @workflow.run
    async def run(self, closed: ApprovalClosed) -> None:
        """Say that a question was answered."""
        await workflow.execute_activity(
            "approval.close", closed, task_queue=QUEUE_RUNS, start_to_close_timeout=timedelta(seconds=30)
        )


async def test_a_strangers_record_is_refused(house: House) -> None:
    house.gate.terms["strange"] = Terms()
    run = await house.start(automation(rules=one_call("strange")))
    question = await run.question()
    forged = ApprovalClosed(
        run=RunRef(run_id=run.id, tenant="default", automation="practice-run"),
        approval_id=question.id, state=ApprovalState.DENIED, answer=None,
    )  # fmt: skip
    strange = Worker(
        house.client, task_queue="strange", workflows=[Stranger], workflow_runner=UnsandboxedWorkflowRunner()
    )
    async with strange:
        with pytest.raises(WorkflowFailureError) as failed:
            await house.client.execute_workflow(Stranger.run, forged, id=f"stranger-{run.id}", task_queue="strange")
    assert isinstance(failed.value.cause, ActivityError)
    assert isinstance(failed.value.cause.cause, ApplicationError)
    assert failed.value.cause.cause.type == "not_local"
    row = await house.approvals.get(None, question.id)
    assert row is not None
    assert row.state is ApprovalState.PENDING
    await house.say(run, question, "deny")
    await run.result()
