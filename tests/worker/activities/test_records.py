"""Each fact of a run is recorded once, with its row, however often and in whatever race it is reported."""

import asyncio
import json
from collections.abc import Awaitable
from typing import get_type_hints

import pytest
from temporalio.exceptions import ApplicationError

from policies.decision import Principal
from tests.worker.activities.payloads import BOB, Job
from tools.contract import Outcome, ToolResult
from worker.activities.gate import GateActivities
from worker.activities.records import RecordActivities
from worker.store.approvals import Approvals
from worker.store.audit import AuditEvent, AuditLog
from worker.store.database import Database
from worker.store.events import outcome_body, outcome_id
from worker.store.ledger import Ledger
from worker.store.runs import Runs
from workflows import ports
from workflows.contracts import (
    ApprovalClosed,
    ApprovalState,
    ArtifactRef,
    ModelRequested,
    Phase,
    Question,
    RunClosed,
    Rung,
    RungChanged,
    RunOpened,
    RunResult,
)


def closing(job: Job, phase: Phase = Phase.SUCCEEDED) -> RunClosed:
    artifact = ArtifactRef(name="report.md", sha256="a" * 64, size=3, media_type="text/markdown")
    result = RunResult(phase=phase, rung=Rung.RULES, output={"summary": "all the data"}, artifacts=(artifact,), steps=2)
    return RunClosed(run=job.ref, result=result)


async def refusal(call: Awaitable[object]) -> str | None:
    with pytest.raises(ApplicationError) as caught:
        await call
    assert caught.value.non_retryable
    return caught.value.type


async def test_the_activities_are_the_ports(records: RecordActivities, gate: GateActivities) -> None:
    """Names and types: dispatch is by name, so nothing else would notice a difference."""
    port_of = {
        definition.name: port
        for port in vars(ports).values()
        if (definition := getattr(port, "__temporal_activity_definition", None)) is not None
    }
    methods = {
        getattr(method, "__temporal_activity_definition").name: method for method in [*records.all(), *gate.all()]
    }
    assert set(methods) == {
        "run.open", "call.open", "call.close", "approval.open", "approval.note", "approval.close", "model.record",
        "rung.record", "run.hold", "run.close",
    }  # fmt: skip
    for name, method in methods.items():
        assert list(get_type_hints(method).values()) == list(get_type_hints(port_of[name]).values()), name


async def test_a_run_opens_once(records: RecordActivities, runs: Runs, audit: AuditLog, job: Job) -> None:
    for _ in range(2):
        await records.open_run(job.opened())
    [record] = await audit.page(tenant="default")
    assert (record.type, record.actor, record.run_seq) == ("run.opened", "alice", 1)
    found = await runs.get("default", job.id)
    assert found is not None
    assert found.phase is Phase.WORKING


@pytest.mark.parametrize(
    "changes",
    [
        {"answer_keys": {}},
        {"answer_keys": {"k1": "Zm9yZ2Vk"}},
        {"answer_keys": {"k1": "cHVibGlj", "k2": "Zm9yZ2Vk"}},
        {"principal": BOB},
        {"principal": Principal(id="alice", roles=("operator", "admin"))},
        {"principal": Principal(id="alice", roles=("operator",), tenant="other")},
        {"automation_version": "2"},
        {"automation_digest": "e" * 64},
        {"inputs_digest": "e" * 64},
        {"files": ()},
    ],
)
async def test_a_run_that_is_not_what_was_asked_for_is_refused(
    records: RecordActivities, audit: AuditLog, job: Job, changes: dict[str, object]
) -> None:
    forged: RunOpened = job.opened().model_copy(update=changes)
    assert await refusal(records.open_run(forged)) == "untrusted_request"
    assert await audit.page(tenant=None) == []


async def test_a_run_nobody_asked_for_is_refused(records: RecordActivities, job: Job) -> None:
    assert await refusal(records.open_run(Job.new().opened())) == "untrusted_request"
    stranger = job.opened()
    stranger = stranger.model_copy(update={"run": stranger.run.model_copy(update={"tenant": "other"})})
    assert await refusal(records.open_run(stranger)) == "untrusted_request"


async def test_a_call_ends_once_and_its_key_is_settled(
    records: RecordActivities, gate: GateActivities, audit: AuditLog, db: Database, job: Job
) -> None:
    await gate.open_call(job.call())
    first = await records.close_call(job.refused(words="Denied."))
    again = await records.close_call(job.refused(words="Expired.", outcome=Outcome.EXPIRED))
    assert first == again == job.refused(words="Denied.").result
    [record] = await audit.page(tenant=None, type="call.outcome")
    assert (record.body["outcome"], record.body["content_head"]) == ("denied", "Denied.")
    claim = await Ledger(db).claim(f"{job.id}/c1", generation=1, tool="read_file", attempt=1, owner="w")
    assert (claim.state, claim.result) == ("settled", first)


async def test_the_sandbox_s_result_stands_against_a_late_refusal(
    records: RecordActivities, gate: GateActivities, audit: AuditLog, db: Database, job: Job
) -> None:
    await gate.open_call(job.call())
    key, done = f"{job.id}/c1", ToolResult(outcome=Outcome.SUCCEEDED, content="42")
    body = outcome_body(call_id="c1", tool="read_file", key=key, result=done)
    event = AuditEvent(outcome_id(job.id, "c1"), "call.outcome", "default", job.id, "system:sandbox", body)
    await Ledger(db, audit).settle(key, done, event)
    assert await records.close_call(job.refused()) == done


async def test_a_call_without_intent_gets_no_outcome_but_can_never_run(
    records: RecordActivities, audit: AuditLog, db: Database, job: Job
) -> None:
    result = await records.close_call(job.refused())
    assert result.outcome is Outcome.DENIED
    assert await audit.page(tenant=None) == []
    claim = await Ledger(db).claim(f"{job.id}/c1", generation=1, tool="read_file", attempt=1, owner="w")
    assert claim.state == "settled"


async def test_outputs_are_recorded_by_digest_and_head(
    records: RecordActivities, gate: GateActivities, audit: AuditLog, job: Job
) -> None:
    await gate.open_call(job.call())
    token = "sk-" + "a1B2c3D4" * 5
    kept = await records.close_call(job.refused(words=f"{token} " + "x" * 9000))
    assert token not in kept.content
    [record] = await audit.page(tenant=None, type="call.outcome")
    assert len(str(record.body)) < 1500
    assert token not in str(record.body)
    assert record.body["content_bytes"] == len(kept.content)


async def test_a_question_opens_and_closes_once(
    records: RecordActivities, approvals: Approvals, runs: Runs, audit: AuditLog, job: Job
) -> None:
    asked = job.question()
    for _ in range(2):
        await records.open_approval(asked)
    assert await _phase(runs, job) is Phase.AWAITING_APPROVAL
    closed = ApprovalClosed(
        run=job.ref, approval_id=asked.id, state=ApprovalState.APPROVED, answer=job.answer(edited={"paths": ["b.log"]})
    )
    for _ in range(2):
        await records.close_approval(closed)
    await records.close_approval(ApprovalClosed(run=job.ref, approval_id=asked.id, state=ApprovalState.EXPIRED))
    assert await _phase(runs, job) is Phase.WORKING
    row = await approvals.get("default", asked.id)
    assert row is not None
    assert (row.state, row.answer, row.request) == (ApprovalState.APPROVED, closed.answer, asked)
    requested, approved = await audit.page(tenant=None)
    assert (requested.type, approved.type, approved.actor) == ("approval.requested", "approval.approved", "bob")
    assert json.loads(json.dumps(approved.body))["answer"]["edited"]["arguments"] == {"paths": ["b.log"]}
    assert await _phase(runs, job) is Phase.WORKING
    await records.open_approval(asked)  # repeated late: changes nothing
    assert await _phase(runs, job) is Phase.WORKING


@pytest.mark.parametrize(
    "state", [ApprovalState.DENIED, ApprovalState.EXPIRED, ApprovalState.CANCELLED, ApprovalState.APPROVED]
)
async def test_each_final_state_has_its_record(
    records: RecordActivities, audit: AuditLog, job: Job, state: ApprovalState
) -> None:
    await records.open_approval(job.question())
    await records.close_approval(ApprovalClosed(run=job.ref, approval_id=f"{job.id}.1", state=state))
    assert [r.type for r in await audit.page(tenant=None)] == ["approval.requested", f"approval.{state}"]


async def test_a_yes_counts_for_nothing_where_another_end_is_on_record(records: RecordActivities, job: Job) -> None:
    await records.open_approval(job.question())
    name = f"{job.id}.1"
    await records.close_approval(ApprovalClosed(run=job.ref, approval_id=name, state=ApprovalState.DENIED))
    with pytest.raises(ApplicationError, match="another end"):
        await records.close_approval(ApprovalClosed(run=job.ref, approval_id=name, state=ApprovalState.APPROVED))


async def test_answers_racing_a_deadline_leave_one_end(
    records: RecordActivities, approvals: Approvals, audit: AuditLog, job: Job
) -> None:
    for number in range(1, 6):
        await records.open_approval(job.question(number))
        ends = [ApprovalState.APPROVED, ApprovalState.EXPIRED, ApprovalState.DENIED, ApprovalState.CANCELLED]
        await asyncio.gather(
            *(
                records.close_approval(ApprovalClosed(run=job.ref, approval_id=f"{job.id}.{number}", state=state))
                for state in ends
            ),
            return_exceptions=True,  # a yes that comes second is refused, as nothing may run by it
        )
        row = await approvals.get("default", f"{job.id}.{number}")
        [record] = [r for r in await audit.page(tenant=None) if r.event_id.endswith(f".{number}/closed")]
        assert row is not None
        assert record.type == f"approval.{row.state}"


async def test_the_run_waits_as_long_as_any_question_does(records: RecordActivities, runs: Runs, job: Job) -> None:
    await asyncio.gather(*(records.open_approval(job.question(n)) for n in range(1, 7)))
    end = [ApprovalClosed(run=job.ref, approval_id=f"{job.id}.{n}", state=ApprovalState.DENIED) for n in range(1, 7)]
    await asyncio.gather(*(records.close_approval(closed) for closed in end[:5]))
    assert await _phase(runs, job) is Phase.AWAITING_APPROVAL
    await records.close_approval(end[5])
    assert await _phase(runs, job) is Phase.WORKING
    await records.open_approval(job.question(7, Question.HANDOVER))
    assert await _phase(runs, job) is Phase.AWAITING_HUMAN


async def test_questions_that_contradict_the_record_are_refused(records: RecordActivities, job: Job) -> None:
    asked = job.question()
    await records.open_approval(asked)
    other = asked.model_copy(update={"digest": "0" * 64})
    assert await refusal(records.open_approval(other)) == "bad_record"
    foreign = asked.model_copy(update={"id": "run_other.1"})
    assert await refusal(records.open_approval(foreign)) == "bad_record"
    for approval_id, state in ((f"{job.id}.9", ApprovalState.DENIED), (asked.id, ApprovalState.FROZEN)):
        assert await refusal(
            records.close_approval(ApprovalClosed(run=job.ref, approval_id=approval_id, state=state))
        ) == "bad_record"  # fmt: skip
    thief = Job.new()
    stolen = ApprovalClosed(run=thief.ref, approval_id=asked.id, state=ApprovalState.CANCELLED)
    assert await refusal(records.close_approval(stolen)) == "bad_record"
    await records.close_approval(ApprovalClosed(run=job.ref, approval_id=asked.id, state=ApprovalState.DENIED))


async def test_models_and_rungs_are_recorded_once(
    records: RecordActivities, runs: Runs, audit: AuditLog, job: Job
) -> None:
    requested = ModelRequested(
        run=job.ref, step=1, model="openai:gpt-5.2", prompt_digest="p" * 64, outcome="failed",
        failure="401: bad key sk-" + "a1B2c3D4" * 5,
    )  # fmt: skip
    changed = RungChanged(run=job.ref, index=0, from_rung=Rung.MODEL, to_rung=Rung.RULES, reason="no model answered")
    for _ in range(2):
        await records.record_model(requested)
        await records.record_rung(changed)
    asked, degraded = await audit.page(tenant=None)
    assert (asked.type, asked.body["model"], "a1B2c3D4" in str(asked.body)) == (
        "model.requested", "openai:gpt-5.2", False,
    )  # fmt: skip
    assert (degraded.type, degraded.body["to_rung"]) == ("run.degraded", "rules")
    found = await runs.get("default", job.id)
    assert found is not None
    assert found.rung is Rung.RULES


async def test_a_run_closes_once_and_counts_its_records(
    records: RecordActivities, gate: GateActivities, runs: Runs, audit: AuditLog, job: Job
) -> None:
    await records.open_run(job.opened())
    await gate.open_call(job.call())
    await records.close_call(job.refused())
    for phase in (Phase.SUCCEEDED, Phase.FAILED):
        await records.close_run(closing(job, phase))
    written = await audit.page(tenant=None, run_id=job.id)
    assert [r.type for r in written] == ["run.opened", "call.intent", "gate.decided", "call.outcome", "run.closed"]
    assert (written[-1].body["records"], written[-1].body["phase"]) == (5, "succeeded")
    assert "all the data" not in str(written[-1].body)
    found = await runs.get("default", job.id)
    assert found is not None
    assert (found.phase, found.rung, found.result) == (Phase.SUCCEEDED, Rung.RULES, closing(job).result)
    assert (await audit.verify()).ok


async def test_closing_a_run_leaves_nothing_open(
    records: RecordActivities, gate: GateActivities, approvals: Approvals, audit: AuditLog, job: Job
) -> None:
    for call in ("c1", "c2"):
        await gate.open_call(job.call(call))
    await records.close_call(job.refused("c1"))
    await records.open_approval(job.question())
    await records.close_run(closing(job, Phase.CANCELLED))
    written = await audit.page(tenant=None, run_id=job.id)
    assert [r.type for r in written[-3:]] == ["approval.cancelled", "call.outcome", "run.closed"]
    assert (written[-2].body["call_id"], written[-2].body["outcome"]) == ("c2", "unknown")
    assert written[-1].body["records"] == len(written)
    row = await approvals.get("default", f"{job.id}.1")
    assert row is not None
    assert row.state is ApprovalState.CANCELLED
    assert (await audit.verify()).ok


async def test_nothing_follows_the_closing_record(
    records: RecordActivities, runs: Runs, audit: AuditLog, job: Job
) -> None:
    await records.close_run(closing(job))
    late = [
        records.open_run(job.opened()),
        records.open_approval(job.question()),
        records.record_rung(
            RungChanged(run=job.ref, index=0, from_rung=Rung.MODEL, to_rung=Rung.RULES, reason="late")
        ),
    ]  # fmt: skip
    for call in late:
        assert await refusal(call) == "run_closed"
    assert await _phase(runs, job) is Phase.SUCCEEDED
    assert len(await audit.page(tenant=None)) == 1


async def test_only_a_final_phase_closes_a_run(records: RecordActivities, job: Job) -> None:
    assert await refusal(records.close_run(closing(job, Phase.WORKING))) == "bad_record"


async def test_the_count_holds_while_others_record(
    records: RecordActivities, gate: GateActivities, audit: AuditLog, job: Job
) -> None:
    """A record either counts or is refused; none slips in behind the count."""
    calls = [gate.open_call(job.call(f"c{n}")) for n in range(10)]
    await asyncio.gather(*calls[:5], records.close_run(closing(job)), *calls[5:], return_exceptions=True)
    written = await audit.page(tenant=None, run_id=job.id)
    assert written[-1].type == "run.closed"
    assert written[-1].body["records"] == len(written)
    assert (await audit.verify()).ok


async def _phase(runs: Runs, job: Job) -> Phase | None:
    found = await runs.get("default", job.id)
    return None if found is None else found.phase
