"""Whether what one human says to a question counts. Pure: used by the workflow's validator and by the API alike.

The one place that decides this: every way in (API, command line, console, links in messages) ends in an answer or an
action that `refusal` or `action_refusal` lets through, first in the API, and then again in the run. No clock, no
randomness, no I/O: the caller passes `now`. Importable inside Temporal's workflow sandbox (pass it through). This layer
may not import `workflows`, so questions and answers are seen through the Protocols below.
"""

import unicodedata
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Literal, Protocol

from policies import signatures
from policies.decision import Principal
from policies.signatures import ACTION, ANSWER, Signed, Succession, trusted, verify
from policies.terms import Group, Terms

APPROVER = "approver"
ADMIN = "admin"
BREAK_GLASS = "break-glass"
"""The role whose holders may approve in an emergency what they otherwise may not; no other role stands for it."""
BREAK_GLASS_NEEDED = 2

Refusal = Literal[
    "bad_signature", "not_found", "already_decided", "expired", "cancelled", "args_changed", "policy_changed", "frozen",
    "self_approval", "not_an_approver", "already_answered", "invalid_arguments",
]  # fmt: skip
"""The values of `workflows.contracts.AnswerRefused` this module decides."""


class Asked(Protocol):
    """The fields of a question that bind its answers."""

    @property
    def id(self) -> str: ...  # noqa: D102
    @property
    def run_id(self) -> str: ...  # noqa: D102
    @property
    def tenant(self) -> str: ...  # noqa: D102
    @property
    def requester(self) -> str: ...  # noqa: D102
    @property
    def digest(self) -> str: ...  # noqa: D102
    @property
    def tool_version(self) -> str | None: ...  # noqa: D102
    @property
    def policy_version(self) -> str: ...  # noqa: D102
    @property
    def approvers(self) -> str: ...  # noqa: D102
    @property
    def terms(self) -> Terms | None: ...  # noqa: D102
    @property
    def deadline(self) -> datetime: ...  # noqa: D102


class Said(Signed, Protocol):
    """The fields of anything signed that somebody says to a question."""

    @property
    def approval_id(self) -> str: ...  # noqa: D102
    @property
    def run_id(self) -> str: ...  # noqa: D102
    @property
    def digest(self) -> str: ...  # noqa: D102
    @property
    def principal(self) -> Principal: ...  # noqa: D102
    @property
    def on_behalf_of(self) -> Principal | None: ...  # noqa: D102
    @property
    def tool_version(self) -> str | None: ...  # noqa: D102
    @property
    def policy_version(self) -> str | None: ...  # noqa: D102
    @property
    def expires_at(self) -> datetime: ...  # noqa: D102
    @property
    def succession(self) -> tuple[Succession, ...] | None: ...  # noqa: D102


class Answered(Said, Protocol):
    """An answer."""

    @property
    def verdict(self) -> Literal["approve", "deny"]: ...  # noqa: D102
    @property
    def reason(self) -> str: ...  # noqa: D102
    @property
    def break_glass(self) -> bool | None: ...  # noqa: D102


class Acted(Said, Protocol):
    """Something else said to a question: a question back, a reply, a delegation, an escalation."""

    @property
    def kind(self) -> Literal["ask", "reply", "delegate", "escalate"]: ...  # noqa: D102
    @property
    def to(self) -> str | None: ...  # noqa: D102


class Handed(Protocol):
    """That somebody who may answer lets somebody else do it."""

    @property
    def by(self) -> str: ...  # noqa: D102
    @property
    def to(self) -> str: ...  # noqa: D102


class Raised(Protocol):
    """That a further group may answer."""

    @property
    def to(self) -> Group: ...  # noqa: D102


class Standing(Protocol):
    """What has happened to a question since it was put."""

    @property
    def answers(self) -> Sequence[Answered]: ...  # noqa: D102
    @property
    def delegated(self) -> Sequence[Handed]: ...  # noqa: D102
    @property
    def escalated(self) -> Sequence[Raised]: ...  # noqa: D102
    @property
    def void(self) -> Literal["args_changed", "policy_changed"] | None: ...  # noqa: D102


def signing_bytes(answer: Signed) -> bytes:
    """The bytes the signature of an answer covers."""
    return signatures.signing_bytes(answer, ANSWER)


def verify_signature(answer: Said, keys: Mapping[str, str]) -> bool:
    """Whether the answer is signed by one of `keys`, or by a key they led to. Never raises."""
    return verify(answer, ANSWER, trusted(keys, answer.succession or ()))


def refusal(
    request: Asked, answer: Answered, keys: Mapping[str, str], now: datetime, state: str = "pending",
    standing: Standing | None = None,
) -> Refusal | None:  # fmt: skip
    """Why the answer has no effect on the question, or None when it counts. The first reason in this order is given:

    1. `bad_signature`    not signed by one of `keys` or a successor; nothing else about such an answer is believed
    2. `not_found`        it answers another question or run
    3. `already_decided`, `expired`, `cancelled`, `frozen`, `args_changed`, `policy_changed`
                          the question takes no answer now (`state` is an ApprovalState value)
    4. `expired`          the signed answer or the question's deadline has passed at `now` (timezone-aware)
    5. `args_changed`     the person saw another digest, or another version of the tool, than is asked now
       `policy_changed`   the person saw the question under another policy
    6. `self_approval`    the run's requester answers, for or against, or somebody in their stead
    7. `not_an_approver`  another tenant, no member of a group that may answer, or the role is missing
    8. `already_answered` this person, or the one they stand for, has answered already
    9. `invalid_arguments` an emergency approval without a reason, or that denies

    Left to the caller: whether the question exists at all, and what is wrong with an edit or a result.
    """
    if not verify_signature(answer, keys):
        return "bad_signature"
    if (why := _not_now(request, answer, now, state, standing)) is not None:
        return why
    broken = bool(answer.break_glass)
    if (why := who_refused(request, answer.principal, answer.on_behalf_of, standing, break_glass=broken)) is not None:
        return why
    if broken and (answer.verdict != "approve" or not answer.reason.strip()):
        return "invalid_arguments"
    return None


def action_refusal(
    request: Asked, action: Acted, keys: Mapping[str, str], now: datetime, state: str, standing: Standing
) -> Refusal | None:
    """Why an action has no effect on the question; reasons 1 to 5 as for an answer, then who may:

    ask       whoever may answer
    reply     the run's requester, and nobody else
    delegate  whoever may answer in their own right; not to the requester, nor to themselves
    escalate  whoever may answer, and the requester; `invalid_arguments` when the chain has no further step
    """
    if not verify(action, ACTION, trusted(keys, action.succession or ())):
        return "bad_signature"
    if (why := _not_now(request, action, now, state, standing)) is not None:
        return why
    who = action.principal
    asks_for_it = who.tenant == request.tenant and same(who.id, request.requester)
    match action.kind:
        case "reply":
            return None if asks_for_it else "not_an_approver"
        case "escalate" if asks_for_it:
            why = None
        case "delegate":
            if action.to is None or same(action.to, who.id):
                return "invalid_arguments"
            if asks_for_it or same(action.to, request.requester):
                return "self_approval"
            return None if _eligible(request, standing, who) else "not_an_approver"
        case _:
            why = who_refused(request, who, action.on_behalf_of, standing, again=True)
    if why is None and action.kind == "escalate" and not _steps_left(request, standing):
        return "invalid_arguments"
    return why


def who_refused(
    request: Asked, principal: Principal, on_behalf_of: Principal | None = None, standing: Standing | None = None, *,
    break_glass: bool = False, again: bool = False,
) -> Literal["self_approval", "not_an_approver", "already_answered"] | None:  # fmt: skip
    """Steps 6 to 8 alone: may this principal answer the question at all? Used before anything is signed.

    `again`: somebody who has answered already may, too.
    """
    voice = voice_of(request, principal, on_behalf_of, standing, break_glass=break_glass)
    if voice in ("self_approval", "not_an_approver"):
        return voice
    if again or standing is None:
        return None
    taken = [(a.principal.id, _voice_in(request, a, standing)) for a in standing.answers]
    heard = {_folded(name) for pair in taken for name in pair}
    return "already_answered" if {_folded(principal.id), _folded(voice)} & heard else None


def voice_of(
    request: Asked, principal: Principal, on_behalf_of: Principal | None, standing: Standing | None, *,
    break_glass: bool = False,
) -> str:  # fmt: skip
    """The id of the person for whom this principal speaks, itself or whoever it stands in for; `self_approval` or
    `not_an_approver` when nobody whose voice counts."""
    if principal.tenant != request.tenant:
        return "not_an_approver"
    if same(principal.id, request.requester):
        return "self_approval"
    if break_glass:
        person = principal.kind == "person" and BREAK_GLASS in principal.roles
        return principal.id if person else "not_an_approver"
    if _eligible(request, standing, principal):
        return principal.id
    if not _service_may(request, principal):
        return "not_an_approver"
    if on_behalf_of is not None and on_behalf_of.tenant == request.tenant:
        if same(on_behalf_of.id, request.requester):
            return "self_approval"
        if _eligible(request, standing, on_behalf_of):
            return on_behalf_of.id
    handed = [d.by for d in standing.delegated if same(d.to, principal.id)] if standing else []
    return handed[0] if handed else "not_an_approver"


def outcome(request: Asked, answers: Sequence[Answered]) -> Literal["approved", "denied"] | None:
    """What these answers, each of which counted, come to; None while more are needed. One denial denies."""
    if any(answer.verdict == "deny" for answer in answers):
        return "denied"
    broken = sum(bool(answer.break_glass) for answer in answers)
    ordinary = len(answers) - broken
    return "approved" if ordinary >= needed(request) or broken >= BREAK_GLASS_NEEDED else None


def needed(request: Asked) -> int:
    """How many people must approve the question."""
    return request.terms.needed if request.terms else 1


def holds(roles: tuple[str, ...], wanted: str) -> bool:
    """Whether somebody with `roles` may answer what asks for `wanted`.

    An admin is an approver, but holds no role of the user's own (a rule that asks for `finance-lead` means it).
    """
    return bool(wanted) and (wanted in roles or (wanted == APPROVER and ADMIN in roles))


def same(one: str, other: str) -> bool:
    """`Alice` and `alice` are one person here: folding can only refuse more."""
    return _folded(one) == _folded(other)


def _not_now(request: Asked, said: Said, now: datetime, state: str, standing: Standing | None) -> Refusal | None:
    """Steps 2 to 5: is this the question, does it take anything now, and is it still what the person saw?"""
    if said.approval_id != request.id or said.run_id != request.run_id:
        return "not_found"
    closed = _closed(state, standing)
    if closed is not None:
        return closed
    if _passed(said.expires_at, now) or _passed(request.deadline, now):
        return "expired"
    if said.digest != request.digest or said.tool_version not in (None, request.tool_version):
        return "args_changed"
    return None if said.policy_version in (None, request.policy_version) else "policy_changed"


def _closed(state: str, standing: Standing | None) -> Refusal | None:
    match state:
        case "pending":
            return None
        case "expired":
            return "expired"
        case "cancelled":
            return (standing.void if standing else None) or "cancelled"
        case "frozen":
            return "frozen"
        case _:  # approved, denied, and also a state this version does not know: nothing may be answered
            return "already_decided"


def _eligible(request: Asked, standing: Standing | None, who: Principal) -> bool:
    """Whether the principal may answer in its own right: by role, by group, or by a group the question went on to."""
    if who.tenant != request.tenant or not _service_may(request, who):
        return False
    groups = [*(request.terms.groups if request.terms else ())]
    by_role = not groups and holds(who.roles, request.approvers)
    groups += [raised.to for raised in standing.escalated] if standing else []
    return by_role or any(_member(group, who) for group in groups)


def _member(group: Group, who: Principal) -> bool:
    return any(holds(who.roles, role) for role in group.roles) or any(same(name, who.id) for name in group.people)


def _service_may(request: Asked, who: Principal) -> bool:
    return who.kind == "person" or (request.terms is not None and request.terms.services)


def _voice_in(request: Asked, answer: Answered, standing: Standing) -> str:
    return voice_of(request, answer.principal, answer.on_behalf_of, standing, break_glass=bool(answer.break_glass))


def _steps_left(request: Asked, standing: Standing) -> bool:
    return len(standing.escalated) < len(request.terms.escalation if request.terms else ())


def _passed(moment: datetime, now: datetime) -> bool:
    """A moment without a timezone cannot be compared and counts as passed."""
    return moment.tzinfo is None or now.tzinfo is None or now >= moment


def _folded(principal_id: str) -> str:
    return unicodedata.normalize("NFKC", principal_id).casefold().strip()
