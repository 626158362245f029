"""Promises: whatever a crash left between store and Temporal is repaired, on record, and what is well is left alone."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import pytest
import sqlalchemy as sa
from temporalio.client import (
    Client,
    DescribeWorkflowInput,
    Interceptor,
    OutboundInterceptor,
    WorkflowExecutionDescription,
)

from tests.fixtures.provider import answer, calls
from tests.workflows.house import OLGA, House, Started, automation
from worker.activities.records import RecordActivities
from worker.keeper.sweeping import Sweeping
from worker.sandbox.workspace import Workspaces
from worker.starting import Starting
from worker.store import times
from worker.store.ids import new_id
from worker.store.ledger import Ledger
from worker.store.runs import Run
from worker.store.signing import PublicKeys
from worker.store.switches import Switches
from worker.store.tables import approval
from workflows.contracts import SA_PHASE, ApprovalRequest, ApprovalState, Phase, RunResult
from workflows.spec import AutomationSpec

WAITS: Final = f"ExecutionStatus = 'Running' AND {SA_PHASE} = '{Phase.AWAITING_APPROVAL}'"


def sweeping(house: House, *known: AutomationSpec, client: Client | None = None, **changes: Any) -> Sweeping:
    async def connect() -> Client:
        return client or house.client

    starting = Starting(
        Switches(house.db, house.audit), PublicKeys(house.settings.keys), lambda: {spec.name: spec for spec in known},
        sandbox_wait_s=60,
    )  # fmt: skip
    records = RecordActivities(house.audit, house.runs, house.approvals, Ledger(house.db, house.audit), {})
    ages = {"settled": timedelta(0), "never_started": timedelta(0), "lost": timedelta(days=1), **changes}
    return Sweeping(house.runs, house.approvals, house.audit, records, connect, starting, **ages)


async def asking(house: House, name: str) -> tuple[Started, ApprovalRequest]:
    house.provider.script(name, calls(("erase", {"text": "x"})), answer(said="done"))
    run = await house.start(automation(f"practice:{name}"))
    return run, await run.question()


async def listed(house: House, run_id: str, how: str) -> None:
    """Until Temporal's list, which may be some moments behind, shows the run like that."""
    async with asyncio.timeout(30):
        while not [w.id async for w in house.client.list_workflows(f"WorkflowId = '{run_id}' AND {how}")]:  # noqa: ASYNC110
            await asyncio.sleep(0.1)


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
    await listed(house, run.id, "ExecutionStatus = 'Terminated'")
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
    await listed(house, run.id, WAITS)
    async with house.db.begin() as conn:
        await conn.execute(sa.delete(approval).where(approval.c.id == question.id))
    await sweeping(house).look()
    row = await house.approvals.get(None, question.id)
    assert row is not None
    assert row.request == question
    assert await repairs(house, run.id) == ["question"]
    await house.say(run, question, "approve")
    assert await house.effects(await run.result()) == ["x"]


def seeing(house: House) -> tuple[Client, list[str]]:
    """A client, and the names of the runs it is asked to describe."""
    described: list[str] = []

    class Seen(OutboundInterceptor):
        async def describe_workflow(self, input: DescribeWorkflowInput) -> WorkflowExecutionDescription:  # noqa: A002
            described.append(input.id)
            return await super().describe_workflow(input)

    class Seeing(Interceptor):
        def intercept_client(self, next: OutboundInterceptor) -> OutboundInterceptor:  # noqa: A002
            return Seen(next)

    config = house.client.config()
    config["interceptors"] = [Seeing()]
    return Client(**config), described


async def test_runs_that_wait_with_their_questions_are_not_asked_about_one_by_one(house: House) -> None:
    well, question = await asking(house, "sweep-lists")
    lost, missing = await asking(house, "sweep-lists-lost")
    gone = await put(house, Phase.WORKING)
    await listed(house, well.id, WAITS)
    await listed(house, lost.id, WAITS)
    async with house.db.begin() as conn:
        await conn.execute(sa.delete(approval).where(approval.c.id == missing.id))
    client, described = seeing(house)
    await sweeping(house, client=client).look()
    assert well.id not in described
    assert {lost.id, gone} <= set(described)
    assert await repairs(house, lost.id) == ["question"]
    for run, asked in ((well, question), (lost, missing)):
        await house.say(run, asked, "deny")
        await run.result()


async def test_what_is_well_is_left_alone(house: House) -> None:
    run, question = await asking(house, "sweep-well")
    await listed(house, run.id, WAITS)
    await sweeping(house).look()
    assert await repairs(house, run.id) == []
    assert await phase(house, run.id) is Phase.AWAITING_APPROVAL
    await house.say(run, question, "deny")
    await run.result()


async def put(house: House, phase_: Phase, spec: AutomationSpec | None = None) -> str:
    """A run's row without a workflow, as a killed API leaves it."""
    spec, now, run_id = spec or automation("practice:none"), datetime.now(UTC), new_id("run")
    await house.runs.insert(
        Run(
            id=run_id, tenant=OLGA.tenant, automation=spec.name, automation_version="1.0", digest=spec.digest,
            requester=OLGA.id, principal=OLGA, inputs={}, phase=phase_, created_at=now, updated_at=now,
        )
    )  # fmt: skip
    return run_id


async def test_a_run_that_never_started_is_started_once(house: House) -> None:
    house.provider.script("sweep-start", answer(said="late"))
    spec = automation("practice:sweep-start")
    run_id = await put(house, Phase.QUEUED, spec)
    assert [(f.what, f.left) for f in await sweeping(house, spec).sweep(repair=False) if f.run_id == run_id] == [
        ("started", True)
    ]
    assert await phase(house, run_id) is Phase.QUEUED
    await asyncio.gather(sweeping(house, spec).look(), sweeping(house, spec).look())  # two keepers at once
    result = await asyncio.wait_for(house.client.get_workflow_handle(run_id, result_type=RunResult).result(), 60)
    assert result.output == {"said": "late"}
    assert await phase(house, run_id) is Phase.SUCCEEDED
    assert await repairs(house, run_id) == ["started"]
    assert (
        len([r for r in await house.audit.page(tenant=None, run_id=run_id, limit=100) if r.type == "run.opened"]) == 1
    )


async def test_a_run_that_cannot_be_started_is_given_up_after_a_while_with_the_reason(house: House) -> None:
    spec = automation("practice:none")
    run_id = await put(house, Phase.QUEUED, spec)
    other = spec.model_copy(update={"digest": "0" * 64})
    for known, why in (((), "there is no automation"), ((other,), "has changed")):
        [found] = [
            f for f in await sweeping(house, *known, never_started=timedelta(hours=1)).sweep() if f.run_id == run_id
        ]
        assert (found.what, found.left) == ("waits", True)
        assert why in found.detail
        assert await phase(house, run_id) is Phase.QUEUED
    await sweeping(house, other).look()
    row = await house.runs.get(None, run_id)
    assert row is not None
    assert row.result is not None
    assert row.phase is Phase.FAILED
    assert "it could not be started: " in str(row.result.failure)
    assert await repairs(house, run_id) == ["closed"]


async def test_a_switch_keeps_a_run_from_being_started_late(house: House) -> None:
    house.provider.script("sweep-held", answer(said="freed"))
    spec = automation("practice:sweep-held", name="held-run")
    switches = Switches(house.db, house.audit)
    switch = await switches.set(
        "automation", tenant=OLGA.tenant, target=spec.name, state="stop", running="pause", reason="x", by="root"
    )
    run_id = await put(house, Phase.QUEUED, spec)
    [found] = [f for f in await sweeping(house, spec).sweep() if f.run_id == run_id]
    assert (found.what, found.left, await phase(house, run_id)) == ("held", False, Phase.QUEUED)
    await switches.advance(switch, "released", by="root", reason="over")
    await sweeping(house, spec).look()
    await asyncio.wait_for(house.client.get_workflow_handle(run_id).result(), 60)
    assert await phase(house, run_id) is Phase.SUCCEEDED


async def test_a_missing_workflow_is_no_reason_to_give_up_at_once(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The keeper may look into the wrong Temporal; a clock that jumps is no time that passed."""
    run_id, keeper = await put(house, Phase.WORKING), sweeping(house)
    await keeper.look()
    with monkeypatch.context() as jump:
        jump.setattr(times, "now", lambda: datetime.now(UTC) + timedelta(days=1))
        await keeper.look()
    assert await phase(house, run_id) is Phase.WORKING
    await sweeping(house, lost=timedelta(0)).look()
    assert await phase(house, run_id) is Phase.FAILED
