"""Promises: whatever a crash left between store and Temporal is repaired, on record, and what is well is left alone."""

from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa
from temporalio.client import Client

from tests.fixtures.provider import answer, calls
from tests.workflows.house import OLGA, House, Started, automation
from worker.activities.records import RecordActivities
from worker.keeper.sweeping import Sweeping
from worker.sandbox.workspace import Workspaces
from worker.store.ids import new_id
from worker.store.ledger import Ledger
from worker.store.runs import Run
from worker.store.tables import approval
from workflows.contracts import ApprovalRequest, ApprovalState, Phase


def sweeping(house: House, **changes: Any) -> Sweeping:
    async def connect() -> Client:
        return house.client

    records = RecordActivities(house.audit, house.runs, house.approvals, Ledger(house.db, house.audit), {})
    ages = {"settled": timedelta(0), "never_started": timedelta(0), "lost": timedelta(days=1), **changes}
    return Sweeping(house.runs, house.approvals, house.audit, records, connect, **ages)


async def asking(house: House, name: str) -> tuple[Started, ApprovalRequest]:
    house.provider.script(name, calls(("erase", {"text": "x"})), answer(said="done"))
    run = await house.start(automation(f"practice:{name}"))
    return run, await run.question()


async def repairs(house: House, run_id: str) -> list[str]:
    found = await house.audit.page(tenant=None, type="sweep.repaired", limit=1000)
    return [str(record.body["what"]) for record in found if record.body["run_id"] == run_id]


async def phase(house: House, run_id: str) -> Phase:
    row = await house.runs.get(None, run_id)
    assert row is not None
    return row.phase


async def test_a_run_whose_workflow_was_terminated_is_closed_with_its_question(house: House) -> None:
    run, question = await asking(house, "sweep-terminated")
    await run.handle.terminate("a test")
    await Workspaces(house.sandbox, house.blobs).remove(run.id)  # the reaper's work
    await sweeping(house).look()
    row = await house.runs.get(None, run.id)
    assert row is not None
    assert row.result is not None
    assert row.phase is Phase.FAILED
    assert "terminated" in str(row.result.failure)
    closed = await house.approvals.get(None, question.id)
    assert closed is not None
    assert closed.state is ApprovalState.CANCELLED
    assert await house.outcomes(run) == {"c1-1": "unknown"}
    [last] = await house.records(run, "run.closed")
    assert last.body["records"] == last.run_seq
    await sweeping(house).look()
    assert await repairs(house, run.id) == ["closed"]
    assert (await house.audit.verify()).ok


async def test_a_question_that_is_missing_in_the_list_is_written_again(house: House) -> None:
    run, question = await asking(house, "sweep-question")
    async with house.db.begin() as conn:
        await conn.execute(sa.delete(approval).where(approval.c.id == question.id))
    await sweeping(house).look()
    row = await house.approvals.get(None, question.id)
    assert row is not None
    assert row.request == question
    assert await repairs(house, run.id) == ["question"]
    await house.say(run, question, "approve")
    assert await house.effects(await run.result()) == ["x"]


async def test_what_is_well_is_left_alone(house: House) -> None:
    run, question = await asking(house, "sweep-well")
    await sweeping(house).look()
    assert await repairs(house, run.id) == []
    assert await phase(house, run.id) is Phase.AWAITING_APPROVAL
    await house.say(run, question, "deny")
    await run.result()


async def put(house: House, phase_: Phase) -> str:
    """A run's row without a workflow, as a killed API leaves it."""
    spec, now, run_id = automation("practice:none"), datetime.now(UTC), new_id("run")
    await house.runs.insert(
        Run(
            id=run_id, tenant=OLGA.tenant, automation=spec.name, automation_version="1.0", digest=spec.digest,
            requester=OLGA.id, principal=OLGA, inputs={}, phase=phase_, created_at=now, updated_at=now,
        )
    )  # fmt: skip
    return run_id


async def test_a_run_that_never_started_is_given_up_after_a_while(house: House) -> None:
    run_id = await put(house, Phase.QUEUED)
    await sweeping(house, never_started=timedelta(hours=1)).look()
    assert await phase(house, run_id) is Phase.QUEUED
    await sweeping(house).look()
    assert await phase(house, run_id) is Phase.FAILED
    assert await repairs(house, run_id) == ["closed"]


async def test_a_missing_workflow_is_no_reason_to_give_up_at_once(house: House) -> None:
    """The keeper may look into the wrong Temporal."""
    run_id = await put(house, Phase.WORKING)
    await sweeping(house).look()
    assert await phase(house, run_id) is Phase.WORKING
    await sweeping(house, lost=timedelta(0)).look()
    assert await phase(house, run_id) is Phase.FAILED
