"""What people have said beforehand: calls that need not be asked about again, and who answers for whom. Pure.

Both are kept in the store, where others may write, so both are signed by the API and worthless without the signature.
"""

from datetime import datetime

from pydantic import JsonValue

from policies.approval import same
from policies.decision import Decision, GateRequest, Principal, Verdict
from policies.glob import glob
from tools.contract import JsonObject, Wire, arguments_digest


class Grant(Wire):
    """A standing permission: an ask that fits is an allow. It never touches a deny."""

    id: str
    tenant: str
    automation: str
    tool: str
    rule: str | None = None
    """Only asks of this rule; None: of whichever rule asks."""
    digest: str | None = None
    """Exactly these arguments (`arguments_digest`); else `arguments` says which."""
    arguments: JsonObject | None = None
    """Top-level argument -> its value, or for a text a pattern with `*` and `?`; `*` alone is any value. A call whose
    arguments are not exactly these does not fit."""
    uses: int
    """How many calls at most."""
    until: datetime
    created_by: str
    created_at: datetime
    reason: str = ""
    approval_id: str | None = None
    """The question with whose approval it came; None: an administrator made it."""
    key_id: str = ""
    signature: str = ""


class Delegation(Wire):
    """`stand_in` may answer for `absent` until then."""

    id: str
    absent: Principal
    """With the roles held when it was made."""
    stand_in: str
    reason: str = ""
    until: datetime
    created_by: str
    created_at: datetime
    key_id: str = ""
    signature: str = ""


def grants(grant: Grant, decision: Decision, request: GateRequest, now: datetime) -> bool:
    """Whether the grant turns this ask into an allow: same place, fitting arguments, in time, one person's to give, and
    not by the requester's own hand. Its signature, its revocation and its uses are the caller's to check."""
    if decision.verdict is not Verdict.ASK or (decision.terms is not None and decision.terms.needed > 1):
        return False
    place = (grant.tenant, grant.automation, grant.tool)
    if place != (request.principal.tenant, request.automation, request.tool) or grant.rule not in (None, decision.rule):
        return False
    if same(grant.created_by, request.principal.id) or now >= grant.until:
        return False
    if grant.digest is not None:
        return grant.digest == arguments_digest(request.tool, request.arguments)
    wanted = grant.arguments
    if wanted is None or request.arguments.keys() != wanted.keys():
        return False
    return all(_fits(request.arguments[name], wanted[name]) for name in wanted)


def _fits(value: JsonValue, wanted: JsonValue) -> bool:
    if wanted == "*":
        return True
    if isinstance(value, str) and isinstance(wanted, str):
        return glob(value, wanted)
    return type(value) is type(wanted) and value == wanted


def stands_in(delegation: Delegation, principal: Principal, now: datetime) -> bool:
    """Whether the delegation lets this principal answer now."""
    here = delegation.absent.tenant == principal.tenant and same(delegation.stand_in, principal.id)
    return here and now < delegation.until
