"""What else people say to a question: ask back, reply, hand on, escalate. Checked and signed like an answer."""

import hashlib
from datetime import UTC, datetime
from typing import Annotated, Literal

from pydantic import Field

from api.answers import ANSWER_LIFE, Digest, OnBehalf, absent_of, await_row, deliver
from api.errors import Refused, not_found
from api.refusals import record_refusal, refuse
from api.services import Services
from policies.approval import action_refusal
from policies.decision import Principal
from tools.contract import JsonObject, Strict, canonical_json
from worker.store.approvals import ApprovalRow
from workflows.contracts import AnswerRefused, ApprovalAction

Text = Annotated[str, Field(min_length=1, max_length=2000)]


class SayIn(Strict):
    """A question to the run's requester, or the reply."""

    digest: Digest
    text: Text
    on_behalf_of: OnBehalf = None


class DelegateIn(Strict):
    """To whom the question goes, and why."""

    digest: Digest
    to: Annotated[str, Field(min_length=1, max_length=128, description="Principal id of the person who may answer.")]
    text: Annotated[str, Field(max_length=2000)] = ""


class EscalateIn(Strict):
    """The next group of the rule's chain may answer at once."""

    digest: Digest
    text: Annotated[str, Field(max_length=2000)] = ""


Kind = Literal["ask", "reply", "delegate", "escalate"]

_SENSELESS = {
    "escalate": (
        "the rule that asks names no further group to escalate to",
        "answer it, delegate it, or let its deadline decide",
    ),
    "delegate": ("nobody else is named who could answer", "give another person's principal id"),
}
"""What `invalid_arguments` means for what has no arguments of a call."""


async def give_action(
    services: Services, principal: Principal, approval_id: str, kind: Kind, body: SayIn | DelegateIn | EscalateIn
) -> ApprovalRow:
    """Hand it to the run and return the question's row afterwards. Raises Refused for every other end."""
    row = await services.approvals.get(principal.tenant, approval_id)
    if row is None:
        raise not_found("approval", approval_id)
    now = datetime.now(UTC)
    key = services.answer_key.key
    behalf = body.on_behalf_of if isinstance(body, SayIn) else None
    action = key.sign_action(
        ApprovalAction(
            approval_id=approval_id, run_id=row.request.run_id, kind=kind, digest=body.digest, principal=principal,
            text=body.text, to=body.to if isinstance(body, DelegateIn) else None, acted_at=now,
            expires_at=now + ANSWER_LIFE, tool_version=row.request.tool_version,
            policy_version=row.request.policy_version, key_id=key.key_id,
            on_behalf_of=await absent_of(services, principal, behalf, now),
        )
    )  # fmt: skip
    early = action_refusal(row.request, action, services.public_keys, now, row.state.value, row.progress)
    if early == AnswerRefused.INVALID_ARGUMENTS:
        await record_refusal(services, row, principal, AnswerRefused(early))
        detail, remedy = _SENSELESS[kind]
        raise Refused(422, early, detail, remedy=remedy)
    if early is not None:
        await refuse(services, row, principal, AnswerRefused(early))
    accepted = await deliver(services, row, principal, services.gateway.act(action, _update_id(action, row)))
    return (await await_row(services, row, accepted))[0]


def _update_id(action: ApprovalAction, row: ApprovalRow) -> str:
    """One id for one meaning at one point of the conversation: a repeated request says nothing twice."""
    said: JsonObject = {
        "approval": action.approval_id, "kind": action.kind, "by": action.principal.id, "text": action.text,
        "to": action.to, "seen": row.progress.seq,
    }  # fmt: skip
    return f"{action.approval_id}-{action.kind}-{hashlib.sha256(canonical_json(said)).hexdigest()[:24]}"
