"""Questions to humans: the list, one of them, and the two answers. The key says who answers, never the body."""

from datetime import datetime
from typing import Annotated, Literal, cast

import yaml
from fastapi import APIRouter, Path, Query

from api.actions import DelegateIn, EscalateIn, SayIn, give_action
from api.answers import ApproveIn, DenyIn, give_answer
from api.auth import ApprovalsAnswerer, ApprovalsReader
from api.batch import BatchIn, BatchItemOut, answer_all
from api.errors import not_found, problems
from api.links import run_link, temporal_link
from api.listing import bad_cursor
from api.paging import Cursor, Limit, PageOut
from api.services import Services, ServicesDep
from policies.decision import ArgumentFact, Principal
from policies.terms import Group, Terms, schedule
from tools.contract import JsonObject, ToolCall, Wire
from worker.store.approvals import ApprovalRow, LikeCalls
from worker.store.paging import BadCursor
from workflows.contracts import (
    ApprovalAnswer,
    ApprovalRequest,
    ApprovalState,
    Delegated,
    Escalated,
    Question,
    Remark,
)

router = APIRouter(prefix="/approvals", tags=["approvals"])

Id = Annotated[str, Path(max_length=80, description="`<run id>.<n>`", examples=["run_01kb2m0000000000000000000.1"])]


class AnswerOut(Wire):
    """What was answered, and by whom."""

    verdict: Literal["approve", "deny"]
    principal: str
    reason: str
    edited_arguments: JsonObject | None
    answered_at: datetime
    on_behalf_of: str | None
    """The absent person this one stood in for."""
    break_glass: bool
    """An emergency approval."""


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
    """The one that decided."""
    needed: int
    """How many different people must approve."""
    answers: list[AnswerOut]
    """All that counted so far."""
    groups: list[Group]
    """Whose members may answer; empty: holders of the role `approvers`."""
    services: bool
    """Whether service principals may answer."""
    on_expiry: Literal["deny", "fallback"]
    policy_version: str
    rule_text: str | None
    """The rule that asks, as YAML; null when another policy is in force by now."""
    taint: bool | None
    """The run has read content that anybody may have written."""
    origins: list[ArgumentFact] | None
    """Where each value of the arguments stands; null where nobody looked."""
    read: dict[str, int]
    """Tool -> earlier calls of the run: what the agent has looked at and done."""
    like_calls: LikeCalls | None
    """How the very same call was decided before; only when one question is read."""
    conversation: list[Remark]
    delegated_to: list[Delegated]
    escalated_to: list[Escalated]
    reminders_at: list[datetime]
    """When those asked are reminded, as planned when it was put."""
    reminded_at: list[datetime]
    because: str
    """Why the call is asked about again: `edited`, `policy_changed`, `facts_changed`, or empty."""
    follows: str | None
    """The question before this one about the same call."""
    links: ApprovalLinks


def _answer_out(given: ApprovalAnswer) -> AnswerOut:
    return AnswerOut(
        verdict=given.verdict, principal=given.principal.id, reason=given.reason,
        edited_arguments=given.edited_arguments, answered_at=given.answered_at, break_glass=bool(given.break_glass),
        on_behalf_of=given.on_behalf_of.id if given.on_behalf_of else None,
    )  # fmt: skip


def _rule_text(services: Services, asked: ApprovalRequest) -> str | None:
    engine = services.engine.engine
    rule = engine.rule(asked.rule) if engine.version == asked.policy_version else None
    if rule is None:
        return None
    text = yaml.safe_dump(rule.model_dump(mode="json", exclude_unset=True), sort_keys=False, allow_unicode=True)
    return str(text)


def _reminders(asked: ApprovalRequest) -> list[datetime]:
    if asked.terms is None:
        return []
    wait_s = (asked.deadline - asked.requested_at).total_seconds()
    return [m.at for m in schedule(asked.terms, asked.requested_at, round(wait_s)).due if m.step is None]


def _cleaned(services: Services, row: ApprovalRow, viewer: Principal) -> ApprovalRow:
    """For who may not answer: no secrets in the call and in what was said about it; personal data for the requester."""
    asked, given, now = row.request, row.answer, row.progress
    clean = services.redacts.without_secrets if viewer.id == asked.requester else services.redacts.json

    def whole(arguments: JsonObject | None) -> JsonObject | None:
        return None if arguments is None else cast("JsonObject", clean(dict(arguments)))

    def text(words: str) -> str:
        return str(clean(words))

    def answer(said: ApprovalAnswer) -> ApprovalAnswer:
        changes = {"edited_arguments": whole(said.edited_arguments), "output": whole(said.output)}
        return said.model_copy(update={**changes, "reason": text(said.reason)})

    call = asked.call
    if call is not None:
        call = call.model_copy(update={"arguments": whole(call.arguments)})
    progress = {
        "answers": tuple(answer(each) for each in now.answers),
        "conversation": tuple(each.model_copy(update={"text": text(each.text)}) for each in now.conversation),
        "delegated": tuple(each.model_copy(update={"reason": text(each.reason)}) for each in now.delegated),
    }
    return row.model_copy(
        update={
            "request": asked.model_copy(update={"call": call, "reason": text(asked.reason)}),
            "answer": None if given is None else answer(given),
            "progress": now.model_copy(update=progress),
        }
    )


def approval_out(
    services: Services, row: ApprovalRow, like: LikeCalls | None = None, *, viewer: Principal | None = None
) -> ApprovalOut:
    """A question as the API shows it. A `viewer` who may not answer sees it cleaned."""
    if viewer is not None and not services.engine.may(viewer, "approvals", "answer"):
        row = _cleaned(services, row, viewer)
    asked, given, now = row.request, row.answer, row.progress
    terms = asked.terms or Terms()
    return ApprovalOut(
        id=asked.id, run_id=asked.run_id, question=asked.question, state=row.state, automation=asked.automation,
        requester=asked.requester, call=asked.call, tool_version=asked.tool_version, effect=asked.effect,
        digest=asked.digest, rule=asked.rule, reason=asked.reason, approvers=asked.approvers,
        requested_at=asked.requested_at, deadline=asked.deadline, closed_at=row.closed_at,
        answer=None if given is None else _answer_out(given),
        needed=terms.needed, answers=[_answer_out(a) for a in now.answers], groups=list(terms.groups),
        services=terms.services, on_expiry=terms.on_expiry, policy_version=asked.policy_version,
        rule_text=_rule_text(services, asked), taint=asked.tainted, read=asked.read,
        origins=None if asked.origins is None else list(asked.origins), like_calls=like,
        conversation=list(now.conversation), delegated_to=list(now.delegated), escalated_to=list(now.escalated),
        reminders_at=_reminders(asked), reminded_at=list(now.reminded_at), because=asked.because,
        follows=asked.follows,
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
        items=[approval_out(services, row, viewer=principal) for row in page.items], next_cursor=page.next_cursor
    )


@router.get("/{approval_id}", operation_id="get_approval", summary="One question", responses=problems(404))
async def get_approval(approval_id: Id, principal: ApprovalsReader, services: ServicesDep) -> ApprovalOut:
    """With the exact arguments that would run."""
    row = await services.approvals.get(principal.tenant, approval_id)
    if row is None:
        raise not_found("approval", approval_id)
    return approval_out(services, row, await services.approvals.like(row), viewer=principal)


@router.post(
    "/{approval_id}/approve",
    operation_id="approve",
    summary="Approve, as asked or with edited arguments",
    responses=problems(404, 409),
)
async def approve(approval_id: Id, body: ApproveIn, principal: ApprovalsAnswerer, services: ServicesDep) -> ApprovalOut:
    """A run's requester may not answer. 409, 403 and 422 carry the refusal's `kind`; each refusal is recorded."""
    return approval_out(services, await give_answer(services, principal, approval_id, "approve", body))


@router.post("/{approval_id}/deny", operation_id="deny", summary="Deny, with a reason", responses=problems(404, 409))
async def deny(approval_id: Id, body: DenyIn, principal: ApprovalsAnswerer, services: ServicesDep) -> ApprovalOut:
    """The reason is handed to the agent, which goes on without the call."""
    return approval_out(services, await give_answer(services, principal, approval_id, "deny", body))


@router.post("/answers", operation_id="answer_many", summary="One answer to many questions", responses=problems())
async def answer_many(body: BatchIn, principal: ApprovalsAnswerer, services: ServicesDep) -> PageOut[BatchItemOut]:
    """Each question is answered by itself, as by `approve` and `deny`; each item says what came of it."""
    return PageOut[BatchItemOut](items=await answer_all(services, principal, body), next_cursor=None)


@router.post(
    "/{approval_id}/ask", operation_id="ask_back", summary="Ask the requester something", responses=problems(404, 409)
)
async def ask_back(approval_id: Id, body: SayIn, principal: ApprovalsAnswerer, services: ServicesDep) -> ApprovalOut:
    """The deadline runs on."""
    return approval_out(services, await give_action(services, principal, approval_id, "ask", body))


@router.post("/{approval_id}/reply", operation_id="reply", summary="Reply to an approver", responses=problems(404, 409))
async def reply(approval_id: Id, body: SayIn, principal: ApprovalsReader, services: ServicesDep) -> ApprovalOut:
    """Only the run's requester."""
    return approval_out(services, await give_action(services, principal, approval_id, "reply", body))


@router.post(
    "/{approval_id}/delegate", operation_id="delegate", summary="Let somebody answer", responses=problems(404, 409)
)
async def delegate(
    approval_id: Id, body: DelegateIn, principal: ApprovalsAnswerer, services: ServicesDep
) -> ApprovalOut:
    """One voice, whoever of the two uses it."""
    return approval_out(services, await give_action(services, principal, approval_id, "delegate", body))


@router.post(
    "/{approval_id}/escalate", operation_id="escalate", summary="Ask the next group too", responses=problems(404, 409)
)
async def escalate(approval_id: Id, body: EscalateIn, principal: ApprovalsReader, services: ServicesDep) -> ApprovalOut:
    """The next step of the rule's chain, before its time. Whoever may answer, or the requester."""
    return approval_out(services, await give_action(services, principal, approval_id, "escalate", body))
