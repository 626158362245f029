"""The recording ports of a run. Each writes its rows and its audit record in one transaction, and any number of times
it is called the fact is recorded once.
"""

import hashlib
from collections.abc import Callable, Mapping

from sqlalchemy.ext.asyncio import AsyncConnection
from temporalio import activity

from policies.redaction import redact_json
from tools.contract import JsonObject, Outcome, ToolResult, canonical_json
from worker.activities import questions
from worker.activities.recording import (
    BAD_RECORD,
    SYSTEM_RUNS,
    UNTRUSTED_REQUEST,
    Redact,
    recorded,
    refuse,
    text,
)
from worker.store.approvals import Approvals
from worker.store.audit import AuditEvent, AuditLog
from worker.store.events import closed_id, intent_id, outcome_body, outcome_id
from worker.store.ledger import Ledger
from worker.store.outbox import Outbox, run_closed
from worker.store.runs import Run, Runs
from worker.store.stops import Stops
from workflows.contracts import (
    ApprovalClosed,
    ApprovalNoted,
    ApprovalRequest,
    ApprovalState,
    CallRefused,
    ModelRequested,
    Phase,
    RunClosed,
    RungChanged,
    RunOpened,
    RunRef,
    RunResult,
)
from workflows.held import FrozenQuestion, RunHeld


class RecordActivities:
    """The ports run.open, call.close, approval.open, approval.close, model.record, rung.record, run.hold, run.close.

    All raise ApplicationError: `store_unavailable` (retried), `run_closed` and `bad_record` (not retried).
    """

    def __init__(
        self, audit: AuditLog, runs: Runs, approvals: Approvals, ledger: Ledger, answer_keys: Mapping[str, str], *,
        redact: Redact = redact_json,
    ) -> None:  # fmt: skip
        """`answer_keys`: key id -> base64 public key, the only ones a run may accept answers by."""
        self._audit = audit
        self._runs = runs
        self._approvals = approvals
        self._ledger = ledger
        self._answer_keys = answer_keys
        self._redact = redact
        self._stops = Stops(audit.db)
        self._outbox = Outbox(audit.db)

    def all(self) -> list[Callable[..., object]]:
        """Every activity, for the worker's registration."""
        return [
            self.open_run, self.close_call, self.open_approval, self.note_approval, self.close_approval,
            self.record_model, self.record_rung, self.hold_run, self.close_run,
        ]  # fmt: skip

    @activity.defn(name="run.open")
    async def open_run(self, opened: RunOpened) -> None:
        """Record `run.opened` and mark the run working.

        Refuses (`untrusted_request`) a run whose answer keys are not ours, that nobody asked for through the API, or
        that differs from what was asked for: whoever can start workflows could otherwise run anything as anybody.
        """
        run = opened.run
        with recorded():
            asked = await self._runs.get(run.tenant, run.run_id)
            problem = _distrust(opened, asked, self._answer_keys)
            if problem is not None:
                refuse(UNTRUSTED_REQUEST, f"run {run.run_id} is refused: {problem}")
            body: JsonObject = {
                "automation": run.automation,
                "automation_version": opened.automation_version,
                "automation_digest": opened.automation_digest,
                "inputs_digest": opened.inputs_digest,
                "files": [file.model_dump(mode="json") for file in opened.files],
                "principal": opened.principal.model_dump(mode="json"),
                "answer_keys": [*sorted(opened.answer_keys)],
            }
            async with self._audit.db.begin() as conn:
                await self._runs.set_phase(run.run_id, Phase.WORKING, conn=conn)
                await self._record(conn, run, f"{run.run_id}/opened", "run.opened", opened.principal.id, body)

    @activity.defn(name="call.close")
    async def close_call(self, refused: CallRefused) -> ToolResult:
        """Settle the call's key and record `call.outcome`, unless that happened before; the result that stands.

        A call whose intent was never recorded gets no outcome record either; its key is settled all the same, so that
        it can never run.
        """
        run = refused.run
        result = refused.result.model_copy(update={"content": text_of(self._redact, refused.result)})
        body = outcome_body(call_id=refused.call_id, tool=refused.tool, key=refused.key, result=result)
        event = AuditEvent(
            outcome_id(run.run_id, refused.call_id), "call.outcome", run.tenant, run.run_id, SYSTEM_RUNS, body
        )
        with recorded():
            async with self._audit.db.begin() as conn:
                intended = await self._audit.get(intent_id(run.run_id, refused.call_id), conn=conn) is not None
                return await self._ledger.settle_in(conn, refused.key, result, event, record=intended)

    @activity.defn(name="approval.open")
    async def open_approval(self, request: ApprovalRequest) -> None:
        """Insert the row for people, record `approval.requested`, and mark the run as waiting."""
        if not request.id.startswith(f"{request.run_id}."):
            refuse(BAD_RECORD, f"question {request.id} is not one of run {request.run_id}")
        with recorded():
            async with self._audit.db.begin() as conn:
                phase = await self._runs.lock(request.run_id, conn=conn)
                row = await self._approvals.open(request, conn=conn)
                # Its deadline moves when a switch stops its clock.
                if row.request.model_copy(update={"deadline": request.deadline}) != request:
                    refuse(BAD_RECORD, f"question {request.id} is on record with other content")
                if row.state is ApprovalState.PENDING and phase is Phase.FROZEN:
                    # A switch has held the run since it decided to ask; letting it go sets the clock.
                    still = FrozenQuestion(
                        approval_id=request.id, state=ApprovalState.FROZEN, deadline=row.request.deadline
                    )
                    await self._approvals.set_clock(still, conn=conn)
                elif row.state is ApprovalState.PENDING:
                    await self._runs.set_phase(request.run_id, questions.phase_of(request), conn=conn)
                await self._outbox.add(conn, questions.notice(request, "approval.requested", self._redact))
                await self._audit.append(questions.requested(request, self._redact), conn=conn)

    @activity.defn(name="approval.note")
    async def note_approval(self, noted: ApprovalNoted) -> None:
        """Show what happened on the question's row and record it, once.

        Refuses (`untrusted_request`) what is signed by a key that was revoked: then the run fails.
        """
        self._believed(noted.body.get("key_id"))
        with recorded():
            async with self._audit.db.begin() as conn:
                row = await self._approvals.note(noted.approval_id, noted.progress, conn=conn)
                if row is None or row.request.run_id != noted.run.run_id:
                    refuse(BAD_RECORD, f"run {noted.run.run_id} has no question {noted.approval_id}")
                if (notice := questions.notice_of(noted, row.request, self._redact)) is not None:
                    await self._outbox.add(conn, notice)
                await self._audit.append(questions.happened(noted, self._redact), conn=conn)

    @activity.defn(name="approval.close")
    async def close_approval(self, closed: ApprovalClosed) -> None:
        """Set the row's state, record `approval.<state>`, and mark the run as working when nothing else waits.

        The first final state stays, in the row and in the log. Refuses (`untrusted_request`) answers signed by a key
        that was revoked: nothing runs by them, and the run fails.
        """
        if closed.state is ApprovalState.APPROVED:
            answers = closed.progress.answers if closed.progress else ()
            self._believed(*(answer.key_id for answer in answers))
        run_id = closed.run.run_id
        with recorded():
            async with self._audit.db.begin() as conn:
                # Two questions of a run may close at once; each must see the other to know whether something waits.
                await self._runs.lock(run_id, conn=conn)
                row = await self._approvals.close(
                    closed.approval_id, closed.state, closed.answer, progress=closed.progress, conn=conn
                )
                if row is None or row.request.run_id != run_id:
                    refuse(BAD_RECORD, f"run {run_id} has no question {closed.approval_id}")
                if closed.state is ApprovalState.APPROVED and (row.state, row.answer) != (closed.state, closed.answer):
                    # A worker that was lost had recorded another end before its own was accepted by Temporal.
                    refuse(BAD_RECORD, f"question {closed.approval_id} is on record with another end: nothing runs")
                waiting = await self._approvals.still_open(run_id, conn=conn)
                phase = questions.phase_of(waiting[0].request) if waiting else Phase.WORKING
                await self._runs.set_phase(run_id, phase, conn=conn)
                await self._outbox.add(conn, questions.notice_closed(row, self._redact))
                await self._audit.append(questions.closed(row, self._redact), conn=conn)

    def _believed(self, *key_ids: object) -> None:
        """The run checked each signature by the keys it started with. Whether one was revoked since, only we know."""
        revoked = sorted({str(k) for k in key_ids if k is not None and k not in self._answer_keys})
        if revoked:
            refuse(UNTRUSTED_REQUEST, f"signed by a key that does not count any more: {', '.join(revoked)}")

    @activity.defn(name="model.record")
    async def record_model(self, requested: ModelRequested) -> None:
        """Record `model.requested`."""
        run = requested.run
        body: JsonObject = requested.model_dump(mode="json", exclude={"run"})
        if requested.failure is not None:
            body["failure"] = text(self._redact, requested.failure)
        with recorded():
            async with self._audit.db.begin() as conn:
                event_id = f"{run.run_id}/model/{requested.step}"
                await self._record(conn, run, event_id, "model.requested", SYSTEM_RUNS, body)

    @activity.defn(name="rung.record")
    async def record_rung(self, changed: RungChanged) -> None:
        """Record `run.degraded`, and the new rung on the run's row."""
        run = changed.run
        body: JsonObject = {
            "index": changed.index,
            "from_rung": changed.from_rung.value,
            "to_rung": changed.to_rung.value,
            "reason": text(self._redact, changed.reason),
        }
        with recorded():
            async with self._audit.db.begin() as conn:
                await self._runs.set_rung(run.run_id, changed.to_rung, conn=conn)
                event_id = f"{run.run_id}/rung/{changed.index}"
                await self._record(conn, run, event_id, "run.degraded", SYSTEM_RUNS, body)

    @activity.defn(name="run.hold")
    async def hold_run(self, held: RunHeld) -> None:
        """Acknowledge a switch: its row, the questions' rows and the run's, and `run.frozen` or `run.thawed`."""
        run, hold = held.run, held.hold
        body: JsonObject = {
            "switch_id": hold.switch_id,
            "revision": hold.revision,
            "held": held.held,
            "questions": [question.model_dump(mode="json") for question in held.questions],
        }
        type_ = "run.frozen" if hold.held else "run.thawed"
        with recorded():
            async with self._audit.db.begin() as conn:
                await self._runs.lock(run.run_id, conn=conn)
                await self._runs.set_phase(run.run_id, held.phase, conn=conn)
                for question in held.questions:
                    await self._approvals.set_clock(question, conn=conn)
                await self._stops.heard(conn, hold.switch_id, run.run_id, held=hold.held)
                event_id = f"{run.run_id}/hold/{hold.switch_id}/{hold.revision}"
                await self._record(conn, run, event_id, type_, SYSTEM_RUNS, body)

    @activity.defn(name="run.close")
    async def close_run(self, closed: RunClosed) -> None:
        """Record `run.closed` with the run's record count; final phase, result and artifacts on the run's row.

        What is still open is closed here too, so that the log leaves nothing hanging: a question as cancelled, an
        intent without outcome as unknown.
        """
        run, result = closed.run, closed.result
        if not result.phase.final:
            refuse(BAD_RECORD, f"{result.phase} does not end a run")
        with recorded():
            async with self._audit.db.begin() as conn:
                if await self._audit.get(closed_id(run.run_id), conn=conn) is not None:
                    return
                await self._runs.set_phase(run.run_id, result.phase, rung=result.rung, result=result, conn=conn)
                left = await self._cancel_questions(conn, run)
                await self._outbox.add(conn, run_closed(run, result.phase, result.failure))
                # From here nobody appends: the count below is the count.
                await self._audit.lock(conn)
                left += await self._unfinished_calls(conn, run)
                records = await self._audit.count(run.run_id, conn=conn) + len(left) + 1
                body = _closed_body(result, records, self._redact)
                last = AuditEvent(closed_id(run.run_id), "run.closed", run.tenant, run.run_id, SYSTEM_RUNS, body)
                await self._audit.append(*left, last, conn=conn)

    async def _cancel_questions(self, conn: AsyncConnection, run: RunRef) -> list[AuditEvent]:
        events: list[AuditEvent] = []
        for waiting in await self._approvals.still_open(run.run_id, conn=conn):
            row = await self._approvals.close(waiting.request.id, ApprovalState.CANCELLED, conn=conn)
            if row is not None:
                events.append(questions.closed(row, self._redact))
                await self._outbox.add(conn, questions.notice_closed(row, self._redact))
        return events

    async def _unfinished_calls(self, conn: AsyncConnection, run: RunRef) -> list[AuditEvent]:
        ended = set(await self._audit.event_ids(run.run_id, "call.outcome", conn=conn))
        events: list[AuditEvent] = []
        for intent in await self._audit.event_ids(run.run_id, "call.intent", conn=conn):
            call_id = intent.removeprefix(f"{run.run_id}/call/").removesuffix("/intent")
            if outcome_id(run.run_id, call_id) not in ended:
                body: JsonObject = {"call_id": call_id, "outcome": Outcome.UNKNOWN.value, "error": "unfinished"}
                event_id = outcome_id(run.run_id, call_id)
                events.append(AuditEvent(event_id, "call.outcome", run.tenant, run.run_id, SYSTEM_RUNS, body))
        return events

    async def _record(
        self, conn: AsyncConnection, run: RunRef, event_id: str, type_: str, actor: str, body: JsonObject
    ) -> None:
        await self._audit.append(AuditEvent(event_id, type_, run.tenant, run.run_id, actor, body), conn=conn)


def text_of(redact: Redact, result: ToolResult) -> str:
    """A result's content without secrets."""
    return str(redact(result.content))


def _distrust(opened: RunOpened, asked: Run | None, answer_keys: Mapping[str, str]) -> str | None:
    """Why the workflow is not the run that was asked for, or None when it is."""
    ours = all(answer_keys.get(key_id) == key for key_id, key in opened.answer_keys.items())
    if not opened.answer_keys or not ours:
        return "its answer keys are not those of this installation"
    if asked is None:
        return "nobody asked for it through the API"
    differs = {
        "automation": asked.automation != opened.run.automation,
        "automation version": asked.automation_version != opened.automation_version,
        "automation digest": asked.digest != opened.automation_digest,
        "inputs": hashlib.sha256(canonical_json(asked.inputs)).hexdigest() != opened.inputs_digest,
        "files": asked.files != opened.files,
        "requester": asked.requester != opened.principal.id,
        # Whole, roles included: the gate decides by them.
        "principal": asked.principal != opened.principal or asked.tenant != opened.principal.tenant,
    }
    wrong = [name for name, is_wrong in differs.items() if is_wrong]
    return f"its {', '.join(wrong)} differ from what was asked for" if wrong else None


def _closed_body(result: RunResult, records: int, redact: Redact) -> JsonObject:
    body: JsonObject = result.model_dump(mode="json", exclude={"output", "failure", "degraded"})
    output = None if result.output is None else canonical_json(result.output)
    body["records"] = records
    body["failure"] = None if result.failure is None else text(redact, result.failure)
    body["degraded"] = [text(redact, reason) for reason in result.degraded]
    body["output_sha256"] = None if output is None else hashlib.sha256(output).hexdigest()
    body["output_bytes"] = None if output is None else len(output)
    return body
