"""Whether one human's signed answer to a question counts. Pure: used by the workflow's validator and by the API alike.

No clock, no randomness, no I/O: the caller passes `now`. Importable inside Temporal's workflow sandbox (pass it
through). This layer may not import `workflows`, so questions and answers are seen through the two Protocols
below, which `workflows.contracts.ApprovalRequest` and `ApprovalAnswer` satisfy.
"""

import base64
import unicodedata
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal, Protocol

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from policies.decision import Principal
from tools.contract import canonical_json

SIGNING_DOMAIN = b"gatehouse/approval-answer/v1\n"
"""Prefix of the signed bytes: a signature made for anything else can never pass as an answer."""

APPROVER = "approver"
ADMIN = "admin"

Refusal = Literal[
    "bad_signature", "not_found", "already_decided", "expired", "cancelled", "args_changed", "self_approval",
    "not_an_approver", "frozen",
]  # fmt: skip
"""The values of `workflows.contracts.AnswerRefused` this module decides."""


class Asked(Protocol):
    """The fields of a pending question that bind its answer."""

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
    def approvers(self) -> str: ...  # noqa: D102
    @property
    def deadline(self) -> datetime: ...  # noqa: D102


class Answered(Protocol):
    """The fields of a signed answer, and its JSON form."""

    @property
    def approval_id(self) -> str: ...  # noqa: D102
    @property
    def run_id(self) -> str: ...  # noqa: D102
    @property
    def digest(self) -> str: ...  # noqa: D102
    @property
    def principal(self) -> Principal: ...  # noqa: D102
    @property
    def expires_at(self) -> datetime: ...  # noqa: D102
    @property
    def key_id(self) -> str: ...  # noqa: D102
    @property
    def signature(self) -> str: ...  # noqa: D102
    # pydantic's own signature, whose values are Any.
    def model_dump(self, *, mode: str = "python") -> dict[str, Any]: ...  # noqa: D102


def signing_bytes(answer: Answered) -> bytes:
    """The bytes a signature covers: the domain prefix, then canonical JSON of every field but `signature`.

    A top-level field that is None counts as absent, so that an optional field added later does not void the signatures
    of answers that do not use it. Raises ValueError when a value has no canonical JSON (NaN, lone surrogate).
    """
    fields = answer.model_dump(mode="json")
    return SIGNING_DOMAIN + canonical_json({k: v for k, v in fields.items() if k != "signature" and v is not None})


def verify_signature(answer: Answered, keys: Mapping[str, str]) -> bool:
    """Whether `answer.signature` is the Ed25519 signature of the answer by `keys[answer.key_id]`.

    `keys`: key id -> base64 raw public key (32 bytes). Never raises: an unknown key, a malformed key or signature and
    an answer that cannot be serialised are all simply not signed.
    """
    encoded = keys.get(answer.key_id)
    if encoded is None:
        return False
    try:
        key = Ed25519PublicKey.from_public_bytes(base64.b64decode(encoded, validate=True))
        key.verify(base64.b64decode(answer.signature, validate=True), signing_bytes(answer))
    except (InvalidSignature, ValueError, TypeError, RecursionError):
        return False
    return True


def refusal(
    request: Asked, answer: Answered, keys: Mapping[str, str], now: datetime, state: str = "pending"
) -> Refusal | None:
    """Why the answer has no effect on the question, or None when it counts. The first reason in this order is given:

    1. `bad_signature`    not signed by one of `keys`; nothing else about such an answer is believed or told
    2. `not_found`        it answers another question or run
    3. `already_decided`, `expired`, `cancelled`, `frozen`   the question is not pending (`state`: an ApprovalState)
    4. `expired`          the signed answer or the question's deadline has passed at `now` (timezone-aware)
    5. `args_changed`     the person saw another digest than the one that is asked now
    6. `self_approval`    the run's requester answers, for or against
    7. `not_an_approver`  another tenant, or the role is missing

    Left to the caller: whether the question exists at all, and `invalid_arguments` of an edit.
    """
    if not verify_signature(answer, keys):
        return "bad_signature"
    if answer.approval_id != request.id or answer.run_id != request.run_id:
        return "not_found"
    closed = _closed(state)
    if closed is not None:
        return closed
    if _passed(answer.expires_at, now) or _passed(request.deadline, now):
        return "expired"
    if answer.digest != request.digest:
        return "args_changed"
    return who_refused(request, answer.principal)


def who_refused(request: Asked, principal: Principal) -> Literal["self_approval", "not_an_approver"] | None:
    """Steps 6 and 7 alone: may this principal answer the question at all? Used before anything is signed."""
    same_tenant = principal.tenant == request.tenant
    if same_tenant and _folded(principal.id) == _folded(request.requester):
        return "self_approval"
    if not same_tenant or not holds(principal.roles, request.approvers):
        return "not_an_approver"
    return None


def holds(roles: tuple[str, ...], needed: str) -> bool:
    """Whether somebody with `roles` may answer what asks for `needed`.

    An admin is an approver, but holds no role of the user's own (a rule that asks for `finance-lead` means it).
    """
    return bool(needed) and (needed in roles or (needed == APPROVER and ADMIN in roles))


def _closed(state: str) -> Refusal | None:
    match state:
        case "pending":
            return None
        case "expired":
            return "expired"
        case "cancelled":
            return "cancelled"
        case "frozen":
            return "frozen"
        case _:  # approved, denied, and also a state this version does not know: nothing may be answered
            return "already_decided"


def _passed(moment: datetime, now: datetime) -> bool:
    """A moment without a timezone cannot be compared and counts as passed."""
    return moment.tzinfo is None or now.tzinfo is None or now >= moment


def _folded(principal_id: str) -> str:
    """`Alice` and `alice` are one person here: folding can only refuse more."""
    return unicodedata.normalize("NFKC", principal_id).casefold().strip()
