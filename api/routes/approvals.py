"""Questions to humans: the list, one of them, and the two answers. The key says who answers, never the body."""

from datetime import datetime
from typing import Annotated, Literal, cast

from fastapi import APIRouter, Path, Query

from api.answers import ApproveIn, DenyIn, give_answer
from api.auth import ApprovalsAnswerer, ApprovalsReader
from api.errors import not_found, problems
from api.links import run_link, temporal_link
from api.listing import bad_cursor
from api.paging import Cursor, Limit, PageOut
from api.services import Services, ServicesDep
from policies.decision import Principal
from tools.contract import JsonObject, ToolCall, Wire
from worker.store.approvals import ApprovalRow
from worker.store.paging import BadCursor
from workflows.contracts import ApprovalState, Question

router = APIRouter(prefix="/approvals", tags=["approvals"])

Id = Annotated[str, Path(max_length=80, description="`<run id>.<n>`", examples=["run_01kb2m0000000000000000000.1"])]


class AnswerOut(Wire):
    """What was answered, and by whom."""

    verdict: Literal["approve", "deny"]
    principal: str
    reason: str
    edited_arguments: JsonObject | None


class ApprovalLinks(Wire):
    """Where to look further."""

    run: str
    temporal: str


class ApprovalOut(Wire):
    """One question. `digest` binds an answer to exactly these arguments: send it back with the answer."""

    id: str
    run_id: str
    question: Question
    state: ApprovalState
    automation: str
    requester: str
    call: ToolCall | None
    tool_version: str | None
    effect: str | None
    digest: str
    rule: str
    reason: str
    approvers: str
    requested_at: datetime
    deadline: datetime
    closed_at: datetime | None
    answer: AnswerOut | None
    links: ApprovalLinks


def approval_out(services: Services, row: ApprovalRow, viewer: Principal) -> ApprovalOut:
    """The row as the API shows it. Who may answer sees exactly what will run; others see no secret or personal data."""
    asked, given = row.request, row.answer
    call, edited = asked.call, None if given is None else given.edited_arguments
    if not services.engine.may(viewer, "approvals", "answer"):
        clean = services.redacts.json
        call = None if call is None else call.model_copy(update={"arguments": clean(dict(call.arguments))})
        edited = None if edited is None else cast("JsonObject", clean(dict(edited)))
    return ApprovalOut(
        id=asked.id, run_id=asked.run_id, question=asked.question, state=row.state, automation=asked.automation,
        requester=asked.requester, call=call, tool_version=asked.tool_version, effect=asked.effect,
        digest=asked.digest, rule=asked.rule, reason=asked.reason, approvers=asked.approvers,
        requested_at=asked.requested_at, deadline=asked.deadline, closed_at=row.closed_at,
        answer=None if given is None else AnswerOut(
            verdict=given.verdict, principal=given.principal.id, reason=given.reason,
            edited_arguments=edited,
        ),
        links=ApprovalLinks(run=run_link(asked.run_id), temporal=temporal_link(services.settings, asked.run_id)),
    )  # fmt: skip


@router.get("", operation_id="list_approvals", summary="List questions", responses=problems())
async def list_approvals(
    principal: ApprovalsReader,
    services: ServicesDep,
    state: Annotated[ApprovalState | None, Query(description="Only those in this state.")] = None,
    run: Annotated[str | None, Query(max_length=64, description="Only this run's.")] = None,
    automation: Annotated[str | None, Query(max_length=64, description="Only this automation's.")] = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> PageOut[ApprovalOut]:
    """Newest first."""
    try:
        page = await services.approvals.page(
            principal.tenant, state=state, automation=automation, run_id=run, cursor=cursor, limit=limit
        )
    except BadCursor:
        raise bad_cursor() from None
    return PageOut[ApprovalOut](
        items=[approval_out(services, row, principal) for row in page.items], next_cursor=page.next_cursor
    )


@router.get("/{approval_id}", operation_id="get_approval", summary="One question", responses=problems(404))
async def get_approval(approval_id: Id, principal: ApprovalsReader, services: ServicesDep) -> ApprovalOut:
    """With the exact arguments that would run."""
    row = await services.approvals.get(principal.tenant, approval_id)
    if row is None:
        raise not_found("approval", approval_id)
    return approval_out(services, row, principal)


@router.post(
    "/{approval_id}/approve",
    operation_id="approve",
    summary="Approve, as asked or with edited arguments",
    responses=problems(404, 409),
)
async def approve(approval_id: Id, body: ApproveIn, principal: ApprovalsAnswerer, services: ServicesDep) -> ApprovalOut:
    """A run's requester may not answer. 409, 403 and 422 carry the refusal's `kind`; each refusal is recorded."""
    return approval_out(services, await give_answer(services, principal, approval_id, "approve", body), principal)


@router.post("/{approval_id}/deny", operation_id="deny", summary="Deny, with a reason", responses=problems(404, 409))
async def deny(approval_id: Id, body: DenyIn, principal: ApprovalsAnswerer, services: ServicesDep) -> ApprovalOut:
    """The reason is handed to the agent, which goes on without the call."""
    return approval_out(services, await give_answer(services, principal, approval_id, "deny", body), principal)
