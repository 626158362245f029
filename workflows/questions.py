"""Questions to humans as they cross the Temporal boundary: what is asked, what is said, and where it stands.

Names and fields are durable, as in `workflows.contracts`, which gives them out again; the rules are those told there.
"""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

from policies.decision import ArgumentFact, Principal
from policies.signatures import Succession
from policies.terms import Group, Terms
from tools.contract import JsonObject, ToolCall, Wire

UPDATE_ANSWER = "answer"
UPDATE_ACT = "act"


class Question(StrEnum):
    """What a human is asked."""

    CALL = "call"
    """May this call run? approve | approve with edited arguments | deny."""
    UNKNOWN_OUTCOME = "unknown_outcome"
    """A call that may not be repeated ended without a known outcome. approve = run it once more; deny = leave it."""
    HANDOVER = "handover"
    """Every machine rung gave up. approve with `output` = the job's result; deny = give the run up."""


class ApprovalRequest(Wire):
    """A pending question. Workflow state is the truth; the store's row is a list for people."""

    id: str
    """`<run_id>.<n>`, n counting from 1 in the run."""
    run_id: str
    question: Question
    tenant: str
    automation: str
    requester: str
    """Principal id of the run's requester, who may not answer."""
    call: ToolCall | None = None
    tool_version: str | None = None
    effect: str | None = None
    digest: str
    """arguments_digest of the call, or of the question itself where there is no call."""
    rule: str = ""
    reason: str = ""
    policy_version: str = ""
    approvers: str
    """Role needed to answer, or the names of the groups in `terms`."""
    requested_at: datetime
    deadline: datetime
    terms: Terms | None = None
    """How many people, which groups, what happens while nobody answers; None: one person with the role."""
    tainted: bool | None = None
    """Whether the run had read content that anybody may have written; None where nobody looked."""
    origins: tuple[ArgumentFact, ...] | None = None
    """Where each value of the arguments comes from."""
    read: dict[str, int] = Field(default_factory=dict)
    """Tool -> calls of the run so far, this one not counted: what the agent has looked at and done."""
    because: Literal["", "edited", "policy_changed", "facts_changed"] = ""
    """Why it is asked although the call was approved: other arguments, a policy that wants other approvers, or the run
    has meanwhile read something for which the policy wants others."""
    follows: str | None = None
    """Id of the question whose answer was not enough."""


class ApprovalState(StrEnum):
    """Where a question stands; everything but pending and frozen is final."""

    PENDING = "pending"
    APPROVED = "approved"
    DENIED = "denied"
    EXPIRED = "expired"
    CANCELLED = "cancelled"
    FROZEN = "frozen"


class ApprovalAnswer(Wire):
    """What one human said, signed by the API. The signature covers every other field (see policies.approval)."""

    approval_id: str
    run_id: str
    verdict: Literal["approve", "deny"]
    digest: str
    """The digest the person saw; must equal the pending question's."""
    edited_arguments: JsonObject | None = None
    output: JsonObject | None = None
    """Only for a hand-over: the job's result."""
    principal: Principal
    reason: Annotated[str, Field(max_length=2000)] = ""
    answered_at: datetime
    expires_at: datetime
    """The signed answer is worthless after this moment (minutes)."""
    tool_version: str | None = None
    """The version of the tool the person saw."""
    policy_version: str | None = None
    """The policy under which the question stood when the person saw it."""
    on_behalf_of: Principal | None = None
    """The absent person for whom `principal` stands in."""
    break_glass: bool | None = None
    """An emergency: counts by the role break-glass, whoever the question asks for. None is no."""
    succession: tuple[Succession, ...] | None = None
    """How the signing key came after those the run knows."""
    key_id: str
    signature: str = ""
    """base64 Ed25519."""


class ApprovalAction(Wire):
    """Something else somebody says to a question. Signed by the API like an answer, in a domain of its own."""

    approval_id: str
    run_id: str
    kind: Literal["ask", "reply", "delegate", "escalate"]
    digest: str
    principal: Principal
    text: Annotated[str, Field(max_length=2000)] = ""
    to: Annotated[str, Field(max_length=128)] | None = None
    """To whom it is delegated."""
    acted_at: datetime
    expires_at: datetime
    tool_version: str | None = None
    policy_version: str | None = None
    on_behalf_of: Principal | None = None
    succession: tuple[Succession, ...] | None = None
    key_id: str
    signature: str = ""


class Remark(Wire):
    """One line of the conversation about a question."""

    kind: Literal["ask", "reply"]
    by: str
    text: str
    at: datetime


class Delegated(Wire):
    """Somebody who may answer handed the question on; their voice counts once, whoever uses it."""

    by: str
    to: str
    reason: str = ""
    at: datetime


class Escalated(Wire):
    """A further group may answer from here on."""

    to: Group
    by: str | None = None
    """Who wanted that; None for the chain of the rule."""
    at: datetime


class ApprovalProgress(Wire):
    """What has happened to a question since it was put."""

    seq: int = 0
    """Counts the changes; the higher one is the newer state."""
    answers: tuple[ApprovalAnswer, ...] = ()
    """All that counted, in order."""
    conversation: tuple[Remark, ...] = ()
    delegated: tuple[Delegated, ...] = ()
    escalated: tuple[Escalated, ...] = ()
    reminded_at: tuple[datetime, ...] = ()
    void: Literal["args_changed", "policy_changed"] | None = None
    """Why a withdrawn question was put anew in another form."""


class AnswerRefused(StrEnum):
    """Typed reasons for which an answer has no effect: ApplicationError.type of a rejected update."""

    NOT_FOUND = "not_found"
    ALREADY_DECIDED = "already_decided"
    EXPIRED = "expired"
    CANCELLED = "cancelled"
    ARGS_CHANGED = "args_changed"
    POLICY_CHANGED = "policy_changed"
    FROZEN = "frozen"
    SELF_APPROVAL = "self_approval"
    NOT_AN_APPROVER = "not_an_approver"
    ALREADY_ANSWERED = "already_answered"
    BAD_SIGNATURE = "bad_signature"
    INVALID_ARGUMENTS = "invalid_arguments"


class AnswerAccepted(Wire):
    """Result of the updates `answer` and `act`."""

    approval_id: str
    state: ApprovalState
    seq: int = 0
    """The question's row shows the effect when its progress has reached this."""
