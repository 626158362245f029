"""One human's answer to one pending question: checked, signed, handed to the run, and every refusal on record.

The workflow decides; what is checked here first only gives a friendlier error sooner. Both use the same pure functions
of policies.approval, so there is one place that says who may answer what.
"""

import asyncio
import hashlib
from collections.abc import Awaitable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from api.errors import FieldProblem, Refused, invalid_fields, not_found
from api.gateway import ANSWER_S, AnswerRejected, NotRunning, NoWorker, Unreachable
from api.granting import RememberIn, check_memory, remember_answer
from api.refusals import record_refusal, refuse
from api.services import Services
from api.unreachable import temporal_unreachable
from api.validation import JsonIn, schema_problems
from policies.approval import refusal
from policies.decision import Principal
from tools.contract import SHA256_PATTERN, JsonObject, Strict, canonical_json
from worker.store.approvals import OPEN_STATES, ApprovalRow
from workflows.contracts import AnswerAccepted, AnswerRefused, ApprovalAnswer, ApprovalRequest, ApprovalState, Question

ANSWER_LIFE = timedelta(minutes=5)
"""A signed answer that has not reached the run by then is worthless, wherever it got stuck."""

CLOSE_WAIT_S = 3.0
"""How long the reply waits for the row that people list to show what the run has already accepted."""

_NO_REASON = FieldProblem(
    field="body.reason", problem="an emergency needs a reason", remedy="say what makes it one"
)  # fmt: skip

Digest = Annotated[str, Field(pattern=SHA256_PATTERN, description="`digest` of the question as you saw it.")]
Reason = Annotated[str, Field(max_length=2000)]
OnBehalf = Annotated[str | None, Field(max_length=128, description="Id of the absent person you stand in for.")]
Seen = Annotated[
    str | None, Field(max_length=128, description="As you saw it; the answer is void when it is another by now.")
]


class ApproveIn(Strict):
    """Yes: to the call as asked, to edited arguments, or (a hand-over) with the job's result."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    digest: Digest
    reason: Reason = ""
    edited_arguments: JsonIn | None = None
    """Run the tool with these instead; the gate decides about them anew."""
    output: JsonIn | None = None
    """Only for a hand-over: the result of the job."""
    on_behalf_of: OnBehalf = None
    break_glass: bool = False
    """An emergency: counts by the role `break-glass`, needs a reason, and two people; recorded loudly."""
    remember: RememberIn | None = None
    """Do not ask again about like calls."""
    policy_version: Seen = None
    tool_version: Seen = None


class DenyIn(Strict):
    """No, and why: the reason is what the agent reads."""

    digest: Digest
    reason: Annotated[str, Field(min_length=1, max_length=2000)]
    on_behalf_of: OnBehalf = None
    policy_version: Seen = None
    tool_version: Seen = None


async def give_answer(
    services: Services,
    principal: Principal,
    approval_id: str,
    verdict: Literal["approve", "deny"],
    body: ApproveIn | DenyIn,
) -> ApprovalRow:
    """Hand the answer to the run and return the question's row afterwards. Raises Refused for every other end."""
    row = await services.approvals.get(principal.tenant, approval_id)
    if row is None:
        raise not_found("approval", approval_id)
    now = datetime.now(UTC)
    key = services.answer_key.key
    answer = key.sign_answer(
        ApprovalAnswer(
            approval_id=approval_id,
            run_id=row.request.run_id,
            verdict=verdict,
            digest=body.digest,
            edited_arguments=body.edited_arguments if isinstance(body, ApproveIn) else None,
            output=body.output if isinstance(body, ApproveIn) else None,
            principal=principal,
            reason=body.reason,
            answered_at=now,
            expires_at=now + ANSWER_LIFE,
            tool_version=body.tool_version or row.request.tool_version,
            policy_version=body.policy_version or row.request.policy_version,
            break_glass=True if isinstance(body, ApproveIn) and body.break_glass else None,
            on_behalf_of=await absent_of(services, principal, body.on_behalf_of, now),
            key_id=key.key_id,
        )
    )
    early = refusal(row.request, answer, services.public_keys, now, row.state, row.progress)
    if early == AnswerRefused.INVALID_ARGUMENTS:
        await record_refusal(services, row, principal, AnswerRefused(early))
        raise invalid_fields([_NO_REASON], kind=early)
    if early is not None:
        await refuse(services, row, principal, AnswerRefused(early))
    await _check_shape(services, row, principal, answer)
    remember = body.remember if isinstance(body, ApproveIn) else None
    if remember is not None:
        check_memory(row, remember, break_glass=bool(answer.break_glass))
    accepted = await deliver(services, row, principal, services.gateway.answer(answer, _update_id(answer)))
    if remember is not None and accepted.state is ApprovalState.APPROVED:
        await remember_answer(services, principal, row, remember)
    return await _shown(services, row, answer, accepted)


async def absent_of(services: Services, principal: Principal, absent: str | None, now: datetime) -> Principal | None:
    """The absent person for whom the principal may speak. Raises Refused when nobody made it stand in for them."""
    if absent is None:
        return None
    found = await services.standing.absent(principal, absent, now)
    if found is None:
        raise Refused(
            403,
            "not_an_approver",
            f"you do not stand in for `{absent}`",
            remedy="ask them or an administrator to say so",
        )
    return found


async def deliver(
    services: Services, row: ApprovalRow, principal: Principal, sending: Awaitable[AnswerAccepted]
) -> AnswerAccepted:
    """What the run says to what somebody said. Raises Refused when it refuses, or cannot be reached."""
    try:
        return await sending
    except AnswerRejected as rejected:
        await refuse(services, row, principal, rejected.kind, rejected.detail)
    except NotRunning:
        await refuse(services, row, principal, AnswerRefused.CANCELLED)
    except NoWorker:
        raise Refused(
            503,
            "no_worker",
            f"no worker of the runs queue took the answer within {ANSWER_S:g} s; if one comes back within "
            f"{ANSWER_LIFE.seconds // 60} minutes it may still count",
            remedy="check that the workers run (`gatehouse doctor`), read the approval again, then answer again",
            headers={"Retry-After": "5"},
        ) from None
    except Unreachable as error:
        raise temporal_unreachable(error) from error


async def _check_shape(services: Services, row: ApprovalRow, principal: Principal, answer: ApprovalAnswer) -> None:
    """What a person wrote by hand, checked where the definition is at hand; the run checks again with its own."""
    wrong = list(_misshapen(services, row.request, answer))
    if wrong:
        await record_refusal(services, row, principal, AnswerRefused.INVALID_ARGUMENTS)
        raise invalid_fields(wrong, kind=AnswerRefused.INVALID_ARGUMENTS.value)


def _misshapen(services: Services, asked: ApprovalRequest, answer: ApprovalAnswer) -> Iterator[FieldProblem]:
    if answer.edited_arguments is not None:
        if asked.question is not Question.CALL or asked.call is None:
            yield FieldProblem(
                field="body.edited_arguments", problem="this question is not about a call's arguments",
                remedy="leave the field out",
            )  # fmt: skip
        else:
            tool = services.catalog.tools.get(asked.call.tool)
            # Another version may take other arguments: then only the run can tell.
            if tool is not None and tool.version == asked.tool_version:
                yield from schema_problems(answer.edited_arguments, tool.parameters, "body.edited_arguments")
    handover = asked.question is Question.HANDOVER
    if answer.output is not None and not handover:
        yield FieldProblem(field="body.output", problem="only a hand-over takes a result", remedy="leave the field out")
    if handover and answer.verdict == "approve" and answer.output is None:
        yield FieldProblem(
            field="body.output",
            problem="a hand-over is approved with the job's result",
            remedy="give `output`, or deny",
        )


def _update_id(answer: ApprovalAnswer) -> str:
    """One id for one meaning: the client library or an impatient client may send the same answer twice."""
    said: JsonObject = {
        "approval": answer.approval_id, "verdict": answer.verdict, "digest": answer.digest, "by": answer.principal.id,
        "edited": answer.edited_arguments, "output": answer.output, "glass": answer.break_glass,
        "for": answer.on_behalf_of.id if answer.on_behalf_of else None,
    }  # fmt: skip
    return f"{answer.approval_id}-{hashlib.sha256(canonical_json(said)).hexdigest()[:24]}"


async def _shown(services: Services, row: ApprovalRow, answer: ApprovalAnswer, accepted: AnswerAccepted) -> ApprovalRow:
    """The row once it shows the effect: the run records it right after accepting. Should that take long, what was
    accepted is told all the same, for it stands."""
    current, there = await await_row(services, row, accepted)
    if there or accepted.state is ApprovalState.PENDING:
        return current
    return current.model_copy(update={"state": accepted.state, "answer": answer, "closed_at": answer.answered_at})


async def await_row(services: Services, row: ApprovalRow, accepted: AnswerAccepted) -> tuple[ApprovalRow, bool]:
    """The row, and whether it shows by now what the run has accepted."""
    deadline = asyncio.get_running_loop().time() + CLOSE_WAIT_S
    current = row
    while True:
        there = current.progress.seq >= accepted.seq and (current.state is accepted.state or _final(current))
        if there or asyncio.get_running_loop().time() >= deadline:
            return current, there
        await asyncio.sleep(0.02)
        current = await services.approvals.get(row.request.tenant, row.request.id) or current


def _final(row: ApprovalRow) -> bool:
    return row.state not in OPEN_STATES
