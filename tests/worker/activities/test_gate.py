"""`call.open`: no intent, no decision; one decision per pass, and it stands."""

import asyncio
from pathlib import Path

import pytest
from temporalio.exceptions import ApplicationError

from policies.decision import Decision, GateRequest, Verdict
from policies.engine import PolicyEngine
from tests.fixtures.processes import spawn
from tests.worker.activities.payloads import Job
from tests.worker.store import jobs
from tools.contract import Effect, arguments_digest, canonical_json
from worker.activities.gate import GATE_FAULT, GateActivities
from worker.activities.records import RecordActivities
from worker.store.audit import AuditLog
from worker.store.database import Database
from workflows.contracts import CallOpened, Phase, RunClosed, Rung, RunResult


async def test_the_intent_and_the_decision_are_recorded_in_order(
    gate: GateActivities, audit: AuditLog, job: Job
) -> None:
    decision = await gate.open_call(job.call())
    assert (decision.verdict, decision.rule) == (Verdict.ALLOW, "read-workspace")
    intent, decided = await audit.page(tenant="default", run_id=job.id)
    assert (intent.type, intent.actor, intent.body["arguments"]) == ("call.intent", "alice", {"path": "in/app.log"})
    assert (decided.type, decided.body["decision"]) == ("gate.decided", decision.model_dump(mode="json"))
    assert intent.body["digest"] == decided.body["digest"]


async def test_a_repeat_gets_the_recorded_decision_though_policy_changed(
    gate: GateActivities, stricter: PolicyEngine, audit: AuditLog, job: Job
) -> None:
    first = await gate.open_call(job.call())
    changed = GateActivities(stricter, audit)
    assert await changed.open_call(job.call()) == first
    assert len(await audit.page(tenant=None)) == 2
    later = await changed.open_call(job.call(gate_pass=1))
    assert (later.verdict, later.rule) == (Verdict.DENY, "nothing")
    assert [r.type for r in await audit.page(tenant=None)] == ["call.intent", "gate.decided", "gate.decided"]


async def test_many_attempts_at_once_agree(
    gate: GateActivities, stricter: PolicyEngine, audit: AuditLog, job: Job
) -> None:
    changed = GateActivities(stricter, audit)
    found = await asyncio.gather(*((gate, changed)[n % 2].open_call(job.call()) for n in range(8)))
    assert len(set(found)) == 1
    assert len(await audit.page(tenant=None)) == 2


async def test_the_intent_is_durable_when_the_gate_kills_the_process(store_url: str, tmp_path: Path) -> None:
    job = Job.new()
    dead = spawn(jobs.die_in_the_gate, store_url, job.call().model_dump_json(), str(tmp_path / "asked"))
    await asyncio.to_thread(dead.join, 60)
    assert dead.exitcode == jobs.DIED
    db = Database(store_url)
    [intent] = await AuditLog(db).page(tenant=None)
    assert (intent.type, intent.run_id) == ("call.intent", job.id)
    await db.close()


class BrokenGate:
    version = "v"

    def decide(self, request: GateRequest) -> Decision:
        raise KeyError(request.tool)


async def test_a_gate_that_breaks_denies_on_record(audit: AuditLog, job: Job) -> None:
    decision = await GateActivities(BrokenGate(), audit).open_call(job.call())
    assert (decision.verdict, decision.rule) == (Verdict.DENY, GATE_FAULT)
    assert len(await audit.page(tenant=None, type="gate.decided")) == 1


async def refusal(gate: GateActivities, opened: CallOpened) -> str | None:
    with pytest.raises(ApplicationError) as caught:
        await gate.open_call(opened)
    assert caught.value.non_retryable
    return caught.value.type


async def test_a_call_id_used_again_for_other_arguments_is_refused(gate: GateActivities, job: Job) -> None:
    """Else the decision on a harmless call would let a harmful one through."""
    await gate.open_call(job.call())
    assert await refusal(gate, job.call(arguments={"path": "in/other.log"})) == "bad_record"
    await gate.open_call(job.call(gate_pass=1, arguments={"path": "in/edited.log"}))
    assert await refusal(gate, job.call(gate_pass=1, arguments={"path": "in/again.log"})) == "bad_record"


class Stopped:
    version = "v"

    def decide(self, request: GateRequest) -> Decision:
        raise asyncio.CancelledError(request.tool)


async def test_an_intent_left_without_a_decision_is_not_taken_over_by_other_arguments(
    gate: GateActivities, audit: AuditLog, job: Job
) -> None:
    with pytest.raises(asyncio.CancelledError):
        await GateActivities(Stopped(), audit).open_call(job.call())
    assert await refusal(gate, job.call(arguments={"path": "in/other.log"})) == "bad_record"
    assert [r.type for r in await audit.page(tenant=None)] == ["call.intent"]


async def test_a_question_about_another_call_is_refused(gate: GateActivities, audit: AuditLog, job: Job) -> None:
    call = job.call()
    other = job.call(tool="delete_files", effect=Effect.DESTRUCTIVE, arguments={"paths": ["a"]})
    strangers = [
        call.model_copy(update={"digest": arguments_digest("read_file", {})}),
        call.model_copy(update={"call": other.call}),
        call.model_copy(update={"request": other.request}),
        call.model_copy(update={"call": other.call, "digest": other.digest}),
        call.model_copy(update={"run": job.ref.model_copy(update={"tenant": "other"})}),
        call.model_copy(update={"run": job.ref.model_copy(update={"automation": "other"})}),
    ]
    for opened in strangers:
        assert await refusal(gate, opened) == "bad_record"
    assert await audit.page(tenant=None) == []


async def test_no_intent_no_decision(gate: GateActivities, audit: AuditLog, job: Job) -> None:
    assert await refusal(gate, job.call(gate_pass=1)) == "bad_record"
    assert await audit.page(tenant=None) == []


async def test_a_closed_run_opens_no_call(gate: GateActivities, records: RecordActivities, job: Job) -> None:
    await records.close_run(RunClosed(run=job.ref, result=RunResult(phase=Phase.CANCELLED, rung=Rung.MODEL)))
    assert await refusal(gate, job.call()) == "run_closed"


async def test_without_a_store_nothing_is_decided(engine: PolicyEngine, tmp_path: Path) -> None:
    asked: list[GateRequest] = []

    class Watched:
        version = engine.version

        def decide(self, request: GateRequest) -> Decision:
            asked.append(request)
            return engine.decide(request)

    gone = Database(f"postgresql://nobody@/none?host={tmp_path}")
    with pytest.raises(ApplicationError) as caught:
        await GateActivities(Watched(), AuditLog(gone)).open_call(Job.new().call())
    assert (caught.value.type, caught.value.non_retryable) == ("store_unavailable", False)
    assert asked == []
    await gone.close()


async def test_secrets_and_bulk_stay_out_of_the_log(gate: GateActivities, audit: AuditLog, job: Job) -> None:
    token = "sk-" + "a1B2c3D4" * 5
    arguments = {"path": "out/x", "api_key": "hunter2hunter2", "content": f"token {token} " + "x" * 50_000}
    await gate.open_call(job.call(tool="write_file", effect=Effect.WRITE, arguments={**arguments}))
    [intent] = await audit.page(tenant=None, type="call.intent")
    text = str(intent.body)
    assert token not in text
    assert "hunter2" not in text
    assert len(text) < 20_000
    assert intent.body["arguments_bytes"] == len(canonical_json({**arguments}))
    assert intent.body["digest"] == arguments_digest("write_file", {**arguments})
