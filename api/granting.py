"""Making grants and delegations: who may, for how long, and signed so that nobody else can have made them."""

from datetime import UTC, datetime, timedelta
from typing import Annotated

from pydantic import AwareDatetime, ConfigDict, Field

from api.errors import Refused, invalid
from api.services import Services
from api.validation import JsonIn
from policies.approval import needed, same
from policies.decision import Principal
from policies.signatures import DELEGATION, GRANT
from policies.standing import Delegation, Grant
from tools.contract import JsonObject, Strict
from worker.store.approvals import ApprovalRow
from worker.store.ids import new_id
from worker.store.standing import DelegationRow, GrantRow

LONGEST = timedelta(days=90)

Until = Annotated[AwareDatetime, Field(description="When it ends; within 90 days.")]
Uses = Annotated[int, Field(ge=1, le=10_000, description="How many calls at most.")]


class _Bounds(Strict):
    model_config = ConfigDict(use_attribute_docstrings=True)

    uses: Uses
    until: Until


class RememberIn(_Bounds):
    """With an approval: do not ask again about like calls of this automation, by this rule."""

    arguments: JsonIn | None = None
    """Each argument by name: its value, or for a text a pattern with `*`; `*` alone is any. Null: exactly these."""


class GrantIn(_Bounds):
    """A grant made by an administrator."""

    automation: Annotated[str, Field(min_length=1, max_length=64)]
    tool: Annotated[str, Field(min_length=1, max_length=64)]
    rule: Annotated[str | None, Field(max_length=64)] = None
    """Only asks of this rule."""
    arguments: JsonIn
    reason: Annotated[str, Field(min_length=1, max_length=500)]


class AbsentIn(Strict):
    """Somebody who cannot say so themselves."""

    id: Annotated[str, Field(min_length=1, max_length=128)]
    roles: tuple[str, ...]


class DelegationIn(Strict):
    """Who answers for you while you are away."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    stand_in: Annotated[str, Field(min_length=1, max_length=128)]
    until: Until
    reason: Annotated[str, Field(max_length=500)] = ""
    absent: AbsentIn | None = None
    """For somebody else; only administrators."""


def check_memory(row: ApprovalRow, remember: RememberIn, *, break_glass: bool) -> None:
    """Raises Refused when such an approval of this question can leave no grant behind; nothing has happened then."""
    _in_bounds(remember.until, "body.remember.until")
    if break_glass:
        raise invalid("body.remember", "an emergency says nothing about later calls", "leave the field out")
    asked = row.request
    if asked.call is None or needed(asked) > 1:
        problem = "it is not about a call" if asked.call is None else "several people must agree to each of these calls"
        raise invalid("body.remember", problem, "leave the field out")
    if remember.arguments is not None and remember.arguments.keys() != asked.call.arguments.keys():
        raise invalid("body.remember.arguments", "it must name each argument of the call", "use `*` for any value")


async def remember_answer(services: Services, principal: Principal, row: ApprovalRow, remember: RememberIn) -> GrantRow:
    """The grant that comes with an approval that counted, for calls like the one asked about."""
    asked = row.request
    call = asked.call
    if call is None:
        raise RuntimeError("check_memory lets only questions about calls through")
    return await _add(
        services, principal, automation=asked.automation, tool=call.tool, rule=asked.rule, uses=remember.uses,
        until=remember.until, digest=asked.digest if remember.arguments is None else None,
        arguments=remember.arguments, approval_id=asked.id, reason="",
    )  # fmt: skip


async def grant_by_admin(services: Services, principal: Principal, body: GrantIn) -> GrantRow:
    """A grant without a question. Whether the principal may is the route's to check."""
    _in_bounds(body.until, "body.until")
    return await _add(
        services, principal, automation=body.automation, tool=body.tool, rule=body.rule, uses=body.uses,
        until=body.until, digest=None, arguments=body.arguments, approval_id=None, reason=body.reason,
    )  # fmt: skip


async def delegate_all(services: Services, principal: Principal, body: DelegationIn) -> DelegationRow:
    """Somebody stands in for the principal, or for whoever an administrator names."""
    _in_bounds(body.until, "body.until")
    absent = principal
    if body.absent is not None and not same(body.absent.id, principal.id):
        if not services.engine.may(principal, "approvals", "grant"):
            raise Refused(403, "forbidden", "only administrators may name a stand-in for somebody else")
        absent = Principal(id=body.absent.id, tenant=principal.tenant, roles=body.absent.roles)
    if same(body.stand_in, absent.id):
        raise invalid("body.stand_in", "nobody stands in for themselves", "name another person")
    made = Delegation(
        id=new_id("dlg"), absent=absent, stand_in=body.stand_in, reason=body.reason, until=body.until,
        created_by=principal.id, created_at=datetime.now(UTC),
    )  # fmt: skip
    return await services.standing.add_delegation(services.answer_key.key.sign(made, DELEGATION))


async def _add(
    services: Services, principal: Principal, *, automation: str, tool: str, rule: str | None, uses: int,
    until: datetime, digest: str | None, arguments: JsonObject | None, approval_id: str | None, reason: str,
) -> GrantRow:  # fmt: skip
    grant = Grant(
        id=new_id("grant"), tenant=principal.tenant, automation=automation, tool=tool, rule=rule, digest=digest,
        arguments=arguments, uses=uses, until=until, created_by=principal.id, created_at=datetime.now(UTC),
        reason=reason, approval_id=approval_id,
    )  # fmt: skip
    return await services.standing.add_grant(services.answer_key.key.sign(grant, GRANT))


def _in_bounds(until: datetime, field: str) -> None:
    now = datetime.now(UTC)
    if not now < until <= now + LONGEST:
        raise invalid(field, "it must lie within the next 90 days", "choose an earlier end")
