"""Questions to humans as audit events and as phases of a run. Pure."""

from pydantic import JsonValue

from tools.contract import JsonObject, arguments_digest
from worker.activities.recording import SYSTEM_RUNS, Redact, arguments_fields, text
from worker.store import times
from worker.store.approvals import ApprovalRow
from worker.store.audit import AuditEvent
from worker.store.outbox import Notice
from workflows.contracts import ApprovalAnswer, ApprovalNoted, ApprovalRequest, Phase, Question


def phase_of(request: ApprovalRequest) -> Phase:
    """Where a run stands that waits for the answer."""
    return Phase.AWAITING_HUMAN if request.question is Question.HANDOVER else Phase.AWAITING_APPROVAL


def requested(request: ApprovalRequest, redact: Redact) -> AuditEvent:
    """`approval.requested`."""
    body: JsonObject = {
        "approval_id": request.id,
        "question": request.question.value,
        "digest": request.digest,
        "rule": request.rule,
        "reason": text(redact, request.reason),
        "policy_version": request.policy_version,
        "approvers": request.approvers,
        "deadline": times.to_text(request.deadline),
        "call": None if request.call is None else arguments_fields(redact, request.call, request.digest),
        "tool_version": request.tool_version,
        "effect": request.effect,
        "terms": None if request.terms is None else request.terms.model_dump(mode="json"),
        "because": request.because,
        "follows": request.follows,
    }
    event_id = f"{request.run_id}/approval/{request.id}/requested"
    return AuditEvent(event_id, "approval.requested", request.tenant, request.run_id, request.requester, body)


def happened(noted: ApprovalNoted, redact: Redact) -> AuditEvent:
    """Whatever happened to a question that did not end it; `event` names the type."""
    run = noted.run
    words: JsonObject = {k: text(redact, v) if isinstance(v, str) and k in _WORDS else v for k, v in noted.body.items()}
    body: JsonObject = {"approval_id": noted.approval_id, "seq": noted.progress.seq, **words}
    event_id = f"{run.run_id}/approval/{noted.approval_id}/{noted.progress.seq}"
    return AuditEvent(event_id, noted.event, run.tenant, run.run_id, noted.actor or SYSTEM_RUNS, body)


_WORDS = ("text", "reason")
_TOLD = (
    "approval.reminder", "approval.escalated", "approval.asked_back", "approval.replied", "approval.delegated"
)  # fmt: skip


def notice_of(noted: ApprovalNoted, request: ApprovalRequest, redact: Redact) -> Notice | None:
    """What people are told of what happened, if anything; each reminder and each step by itself."""
    if noted.event not in _TOLD:
        return None
    progress = noted.progress
    more: JsonObject
    match noted.event:
        case "approval.asked_back":
            more = {"to": request.requester, "by": noted.actor}
        case "approval.replied":
            asked = [remark.by for remark in progress.conversation if remark.kind == "ask"]
            more = {"to": asked[-1] if asked else None, "by": noted.actor}
        case "approval.delegated":
            more = {"to": progress.delegated[-1].to if progress.delegated else None, "by": noted.actor}
        case _:
            more = {"escalated_to": [to.to.name for to in progress.escalated]}
    made = notice(request, noted.event, redact, **more)
    return made.model_copy(update={"id": f"{made.id}/{noted.progress.seq}"})


def notice(request: ApprovalRequest, type_: str, redact: Redact, **more: JsonValue) -> Notice:
    """What people are told of a question: names, never arguments. The digest is for our own tokens alone."""
    body: JsonObject = {
        "approval_id": request.id, "question": request.question.value, "automation": request.automation,
        "requester": request.requester, "tool": request.call.tool if request.call else None, "effect": request.effect,
        "approvers": request.approvers, "rule": request.rule, "reason": text(redact, request.reason)[:500],
        "deadline": times.to_text(request.deadline), "digest": request.digest, **more,
    }  # fmt: skip
    fact = type_.partition(".")[2]
    return Notice(
        id=f"{request.id}/{fact}", type=type_, tenant=request.tenant, run_id=request.run_id, body=body,
        created_at=times.now(),
    )  # fmt: skip


def notice_closed(row: ApprovalRow, redact: Redact) -> Notice:
    """`approval.closed`, with who said what."""
    by = None if row.answer is None else row.answer.principal.id
    return notice(row.request, "approval.closed", redact, state=row.state.value, by=by)


def closed(row: ApprovalRow, redact: Redact) -> AuditEvent:
    """`approval.<state>`. One event id for all final states: a question ends once."""
    request, answer = row.request, row.answer
    body: JsonObject = {
        "approval_id": request.id,
        "question": request.question.value,
        "digest": request.digest,
        "state": row.state.value,
        "void": row.progress.void,
        "answers": [
            {"principal": a.principal.id, "verdict": a.verdict, "break_glass": bool(a.break_glass)}
            for a in row.progress.answers
        ],
        "answer": None if answer is None else _answered(request, answer, redact),
    }
    actor = SYSTEM_RUNS if answer is None else answer.principal.id
    event_id = f"{request.run_id}/approval/{request.id}/closed"
    return AuditEvent(event_id, f"approval.{row.state.value}", request.tenant, request.run_id, actor, body)


def _answered(request: ApprovalRequest, answer: ApprovalAnswer, redact: Redact) -> JsonObject:
    """What was said, by whom, and the signature that proves it; edited arguments under their own digest."""
    fields: JsonObject = {
        "verdict": answer.verdict,
        "principal": answer.principal.model_dump(mode="json"),
        "on_behalf_of": None if answer.on_behalf_of is None else answer.on_behalf_of.model_dump(mode="json"),
        "break_glass": bool(answer.break_glass),
        "reason": text(redact, answer.reason),
        "answered_at": times.to_text(answer.answered_at),
        "key_id": answer.key_id,
        "signature": answer.signature,
    }
    if answer.edited_arguments is not None and request.call is not None:
        edited = request.call.model_copy(update={"arguments": answer.edited_arguments})
        fields["edited"] = arguments_fields(redact, edited, arguments_digest(edited.tool, edited.arguments))
    if answer.output is not None:
        fields["output"] = redact(dict(answer.output))
    return fields
