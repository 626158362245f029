"""What was said beforehand: standing grants, and who answers for whom while they are away."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path

from api.auth import ApprovalsAnswerer, ApprovalsReader, Granter
from api.errors import Refused, not_found, problems
from api.granting import DelegationIn, GrantIn, delegate_all, grant_by_admin
from api.paging import PageOut
from api.services import Services, ServicesDep
from policies.approval import same
from policies.decision import Principal
from policies.standing import Delegation, Grant
from worker.store import times
from worker.store.standing import DelegationRow, GrantRow

router = APIRouter(tags=["approvals"])

Id = Annotated[str, Path(max_length=64)]
State = Literal["in_force", "used_up", "ended", "revoked"]


class GrantOut(Grant):
    """A grant, and whether it still counts."""

    used: int
    state: State
    revoked_by: str | None


class DelegationOut(Delegation):
    """A delegation, and whether it still counts."""

    state: State
    revoked_by: str | None


def _words(services: Services, viewer: Principal, said: Grant | Delegation) -> dict[str, Any]:
    """Its fields; who may not answer questions sees what people wrote in it redacted."""
    fields = said.model_dump()
    if not services.engine.may(viewer, "approvals", "answer"):
        fields |= {name: services.redacts.json(fields[name]) for name in ("reason", "arguments") if name in fields}
    return fields


def grant_out(services: Services, viewer: Principal, row: GrantRow) -> GrantOut:
    """As the API shows it."""
    grant = row.grant
    state: State = "used_up" if row.used >= grant.uses else "ended" if times.now() >= grant.until else "in_force"
    state = state if row.revoked_at is None else "revoked"
    return GrantOut(**_words(services, viewer, grant), used=row.used, state=state, revoked_by=row.revoked_by)


def _delegation_out(services: Services, viewer: Principal, row: DelegationRow) -> DelegationOut:
    made = row.delegation
    state: State = "ended" if times.now() >= made.until else "in_force"
    state = state if row.revoked_at is None else "revoked"
    return DelegationOut(**_words(services, viewer, made), state=state, revoked_by=row.revoked_by)


@router.get("/grants", operation_id="list_grants", summary="Standing grants", responses=problems())
async def list_grants(principal: ApprovalsReader, services: ServicesDep) -> PageOut[GrantOut]:
    """The latest 500, newest first, those that ended too."""
    rows = await services.standing.grants(principal.tenant)
    return PageOut[GrantOut](items=[grant_out(services, principal, row) for row in rows], next_cursor=None)


@router.post(
    "/grants", operation_id="create_grant", summary="Stop asking about like calls", status_code=201,
    responses=problems(),
)  # fmt: skip
async def create_grant(body: GrantIn, principal: Granter, services: ServicesDep) -> GrantOut:
    """A grant turns asks into allows, never a deny; it does not count for runs of the one who made it."""
    return grant_out(services, principal, await grant_by_admin(services, principal, body))


@router.delete("/grants/{grant_id}", operation_id="revoke_grant", summary="End a grant", responses=problems(404))
async def revoke_grant(grant_id: Id, principal: ApprovalsAnswerer, services: ServicesDep) -> GrantOut:
    """Whoever made it, or an administrator. Calls that have used it already are not undone."""
    row = await services.standing.grant(principal.tenant, grant_id)
    if row is None:
        raise not_found("grant", grant_id)
    _own(services, principal, row.grant.created_by)
    ended = await services.standing.revoke_grant(principal.tenant, grant_id, principal.id)
    return grant_out(services, principal, ended or row)


@router.get("/delegations", operation_id="list_delegations", summary="Who answers for whom", responses=problems())
async def list_delegations(principal: ApprovalsReader, services: ServicesDep) -> PageOut[DelegationOut]:
    """The latest 500, newest first, those that ended too."""
    rows = await services.standing.delegations(principal.tenant)
    return PageOut[DelegationOut](items=[_delegation_out(services, principal, row) for row in rows], next_cursor=None)


@router.post(
    "/delegations", operation_id="create_delegation", summary="Let somebody answer for you", status_code=201,
    responses=problems(),
)  # fmt: skip
async def create_delegation(body: DelegationIn, principal: ApprovalsAnswerer, services: ServicesDep) -> DelegationOut:
    """With the roles you hold now, until the end you name. One voice, whoever of the two uses it."""
    return _delegation_out(services, principal, await delegate_all(services, principal, body))


@router.delete(
    "/delegations/{delegation_id}", operation_id="revoke_delegation", summary="End a delegation",
    responses=problems(404),
)  # fmt: skip
async def revoke_delegation(delegation_id: Id, principal: ApprovalsAnswerer, services: ServicesDep) -> DelegationOut:
    """Whoever made it, the absent person, or an administrator."""
    row = await _delegation(services, principal, delegation_id)
    _own(services, principal, row.delegation.created_by, row.delegation.absent.id)
    await services.standing.revoke_delegation(principal.tenant, delegation_id, principal.id)
    return _delegation_out(services, principal, await _delegation(services, principal, delegation_id))


async def _delegation(services: Services, principal: Principal, delegation_id: str) -> DelegationRow:
    row = await services.standing.delegation(principal.tenant, delegation_id)
    if row is None:
        raise not_found("delegation", delegation_id)
    return row


def _own(services: Services, principal: Principal, *owners: str) -> None:
    mine = any(same(principal.id, owner) for owner in owners)
    if not mine and not services.engine.may(principal, "approvals", "grant"):
        raise Refused(403, "forbidden", "only whoever made it, or an administrator, may end it")
