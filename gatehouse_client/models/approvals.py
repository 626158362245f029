"""Questions to humans, their answers, and what makes asking unnecessary."""

from datetime import datetime
from typing import Literal

from gatehouse_client.models.installation import Principal
from gatehouse_client.models.wire import Given, JsonObject, Told

Question = Literal["call", "unknown_outcome", "handover"] | str
"""What a human is asked."""


ApprovalState = Literal["pending", "approved", "denied", "expired", "cancelled", "frozen"] | str
"""Where a question stands; everything but pending and frozen is final."""


class ToolCall(Told):
    """One request of an agent, a rule or a human for one tool. `id` is unique within the run."""

    id: str
    tool: str
    arguments: JsonObject


class Answer(Told):
    """What was answered, and by whom."""

    verdict: Literal["approve", "deny"] | str
    principal: str
    reason: str
    edited_arguments: JsonObject | None
    answered_at: datetime
    on_behalf_of: str | None
    break_glass: bool


class Group(Told):
    """A named group of approvers: holders of any of the roles, and the people named by id."""

    name: str
    roles: tuple[str, ...] = ()
    people: tuple[str, ...] = ()


class Step(Told):
    """One step of an escalation chain: from then on this group may answer, too."""

    after_s: int
    to: Group
    at: datetime | None = None


class Terms(Told):
    """What an ask demands. The defaults: one person with the decision's role, reminded twice."""

    groups: tuple[Group, ...] = ()
    needed: int = 1
    services: bool = False
    deadline_s: int | None = None
    deadline: datetime | None = None
    reminders: tuple[float, ...] = (0.5, 0.9)
    reminders_at: tuple[datetime, ...] | None = None
    escalation: tuple[Step, ...] = ()
    on_expiry: Literal["deny", "fallback"] | str = "deny"


class Remark(Told):
    """One line of the conversation about a question."""

    kind: Literal["ask", "reply"] | str
    by: str
    text: str
    at: datetime


class Delegated(Told):
    """Somebody who may answer handed the question on; their voice counts once, whoever uses it."""

    by: str
    to: str
    reason: str = ""
    at: datetime


class Escalated(Told):
    """A further group may answer from here on."""

    to: Group
    by: str | None = None
    at: datetime


class LikeCalls(Told):
    """How calls with the very same arguments were decided before."""

    approved: int = 0
    denied: int = 0


class ApprovalLinks(Told):
    """Where to look further."""

    run: str
    temporal: str


class ArgumentFact(Told):
    """Where one value of a call's arguments comes from."""

    path: str
    role: Literal["target", "handle", "quantity", "content"] | str
    origin: Literal["operator", "own_named", "own", "named", "vendor", "untrusted", "unknown"] | str


class Approval(Told):
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
    answer: Answer | None
    needed: int
    answers: tuple[Answer, ...]
    groups: tuple[Group, ...]
    services: bool
    on_expiry: Literal["deny", "fallback"] | str
    policy_version: str
    rule_text: str | None
    taint: bool | None
    origins: tuple[ArgumentFact, ...] | None
    read: dict[str, int]
    like_calls: LikeCalls | None
    conversation: tuple[Remark, ...]
    delegated_to: tuple[Delegated, ...]
    escalated_to: tuple[Escalated, ...]
    reminders_at: tuple[datetime, ...]
    reminded_at: tuple[datetime, ...]
    because: str
    follows: str | None
    links: ApprovalLinks


class BatchChoice(Given):
    """One question, as it was seen."""

    id: str
    digest: str
    """`digest` of the question as you saw it."""


class BatchItem(Told):
    """What came of the answer to one question."""

    id: str
    state: ApprovalState | None = None
    kind: str | None = None
    detail: str | None = None


class Remember(Given):
    """With an approval: do not ask again about like calls of this automation, by this rule."""

    uses: int
    """How many calls at most."""
    until: datetime
    """When it ends; within 90 days."""
    arguments: JsonObject | None = None
    """Each argument by name: its value, or for a text a pattern with `*`; `*` alone is any. Null: exactly these."""


class Grant(Told):
    """A grant, and whether it still counts."""

    id: str
    tenant: str
    automation: str
    tool: str
    rule: str | None = None
    digest: str | None = None
    arguments: JsonObject | None = None
    uses: int
    until: datetime
    created_by: str
    created_at: datetime
    reason: str = ""
    approval_id: str | None = None
    key_id: str = ""
    signature: str = ""
    used: int
    state: Literal["in_force", "used_up", "ended", "revoked"] | str
    revoked_by: str | None


class Absent(Given):
    """Somebody who cannot say so themselves."""

    id: str
    roles: tuple[str, ...]


class StandIn(Told):
    """A delegation, and whether it still counts."""

    id: str
    absent: Principal
    stand_in: str
    reason: str = ""
    until: datetime
    created_by: str
    created_at: datetime
    key_id: str = ""
    signature: str = ""
    state: Literal["in_force", "used_up", "ended", "revoked"] | str
    revoked_by: str | None
