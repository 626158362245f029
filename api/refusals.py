"""Why what somebody said to a question had no effect: the HTTP form of each reason, and its record."""

from typing import NoReturn

from api.errors import FieldProblem, Refused
from api.services import Services
from policies.decision import Principal
from worker.store import times
from worker.store.approvals import ApprovalRow
from worker.store.audit import AuditEvent
from worker.store.ids import new_id
from workflows.contracts import AnswerRefused, ApprovalState, Question

_STATUS: dict[AnswerRefused, int] = {
    AnswerRefused.NOT_FOUND: 404,
    AnswerRefused.SELF_APPROVAL: 403,
    AnswerRefused.NOT_AN_APPROVER: 403,
    AnswerRefused.INVALID_ARGUMENTS: 422,
}
_TEXT: dict[AnswerRefused, tuple[str, str]] = {
    AnswerRefused.NOT_FOUND: ("the run does not know this question", "list the pending approvals again"),
    AnswerRefused.ALREADY_DECIDED: (
        "somebody has answered already; the first answer stands",
        "read the approval again",
    ),
    AnswerRefused.EXPIRED: (
        "the deadline has passed, which counts as a denial",
        "start the run again if it is still needed",
    ),
    AnswerRefused.CANCELLED: ("the run was cancelled or has ended", "nothing is left to answer"),
    AnswerRefused.ARGS_CHANGED: (
        "the digest is not that of the call now asked about",
        "read the approval again, then answer",
    ),
    AnswerRefused.POLICY_CHANGED: (
        "the question is asked under another policy than the one you saw",
        "read the approval again, then answer",
    ),
    AnswerRefused.ALREADY_ANSWERED: (
        "you, or the person you stand in for, have answered already",
        "somebody else must give the next answer",
    ),
    AnswerRefused.SELF_APPROVAL: ("you asked for this run, so somebody else must answer", "ask another approver"),
    AnswerRefused.NOT_AN_APPROVER: (
        "you are not among those who may answer",
        "ask somebody who is",
    ),
    AnswerRefused.BAD_SIGNATURE: (
        "the run does not accept the key this API signs with",
        "the run was started with other keys; restore data/keys and restart the API",
    ),
    AnswerRefused.FROZEN: (
        "a kill switch holds the run; nobody's answer counts until it is released",
        "`gatehouse switches list` shows which one; answer again after its release",
    ),
    AnswerRefused.INVALID_ARGUMENTS: ("the edited arguments do not fit", "correct them and answer again"),
}
_CLOCKS = (
    "the run took the answer for older than it is: the clocks of this machine and of Temporal's server are apart",
    "set them right, then answer again: the question still waits",
)


async def refuse(
    services: Services, row: ApprovalRow, principal: Principal, kind: AnswerRefused, detail: str = ""
) -> NoReturn:
    """Record the refusal and end the request with it. Raises Refused, always."""
    await record_refusal(services, row, principal, kind)
    text, remedy = _TEXT[kind]
    in_time = row.state is ApprovalState.PENDING and times.now() < row.request.deadline
    if kind is AnswerRefused.EXPIRED and in_time:
        text, remedy, detail = *_CLOCKS, ""
    if kind is AnswerRefused.NOT_AN_APPROVER:
        text = f"{text} (`{row.request.approvers}`)"
    if detail and detail != kind.value:
        text = f"{text}: {detail}"
    errors: list[FieldProblem] = []
    if kind is AnswerRefused.INVALID_ARGUMENTS:
        field = "body.output" if row.request.question is Question.HANDOVER else "body.edited_arguments"
        errors = [FieldProblem(field=field, problem=detail or text, remedy=remedy)]
    raise Refused(_STATUS.get(kind, 409), kind.value, text, remedy=remedy, errors=errors)


async def record_refusal(services: Services, row: ApprovalRow, principal: Principal, kind: AnswerRefused) -> None:
    """`answer.refused`: somebody tried."""
    await services.audit.append(
        AuditEvent(
            event_id=f"{row.request.run_id}/approval/{row.request.id}/{new_id('refused')}",
            type="answer.refused",
            tenant=row.request.tenant,
            run_id=row.request.run_id,
            actor=principal.id,
            body={"approval_id": row.request.id, "kind": kind.value, "roles": list(principal.roles)},
        )
    )
