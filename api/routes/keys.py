"""API keys of the administrator's tenant. A key's secret is shown once, in the answer that made it."""

from datetime import UTC, datetime, timedelta
from typing import Annotated, Literal

from fastapi import APIRouter, Path, Response
from pydantic import Field

from api.auth import KeysCreator, KeysReader, KeysRevoker, unknown_roles
from api.errors import invalid_fields, not_found, problems
from api.listing import page_of
from api.paging import Cursor, Limit, PageOut
from api.services import ServicesDep
from policies.decision import Principal
from policies.rules import ROLE_PATTERN
from tools.contract import Strict, Wire
from worker.store.keys import ApiKey

router = APIRouter(prefix="/keys", tags=["keys"])

SCOPE = r"^[a-z]{1,30}:(\*|[a-z_]{1,30})$"
NAME = r"^[A-Za-z0-9][A-Za-z0-9 ._@:-]{0,79}$"


class KeyIn(Strict):
    """A key to be made, in your own tenant."""

    name: Annotated[str, Field(pattern=NAME, examples=["nightly triage"])]
    principal: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._@:-]{0,127}$", examples=["olga"])]
    roles: Annotated[tuple[Annotated[str, Field(pattern=ROLE_PATTERN)], ...], Field(min_length=1, max_length=20)]
    kind: Literal["person", "service"] = "person"
    expires_in_days: Annotated[int, Field(ge=1, le=3650)] | None = None
    scopes: Annotated[tuple[Annotated[str, Field(pattern=SCOPE)], ...], Field(max_length=40)] = ()
    """What of its roles' rights it may use, as `runs:read` or `runs:*`; all of them when empty."""


class RotationIn(Strict):
    """How a key hands over to its successor."""

    grace_hours: Annotated[int, Field(ge=0, le=720)] = 24
    """How long the old key goes on at most."""


class KeyOut(Wire):
    """A key without its secret."""

    id: str
    name: str
    principal: Principal
    scopes: tuple[str, ...]
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None


class NewKeyOut(KeyOut):
    """A key just made; `key` is not stored and cannot be read again."""

    key: str


Id = Annotated[str, Path(max_length=64, description="Id of the key, not the key.")]


def _out(key: ApiKey) -> KeyOut:
    return KeyOut(
        id=key.id, name=key.name, principal=key.principal, scopes=key.scopes, created_at=key.created_at,
        expires_at=key.expires_at, revoked_at=key.revoked_at, last_used_at=key.last_used_at,
    )  # fmt: skip


def _position(key: KeyOut) -> str:
    return f"{key.created_at.isoformat()} {key.id}"


@router.get("", operation_id="list_keys", summary="List keys", responses=problems())
async def list_keys(
    principal: KeysReader, services: ServicesDep, limit: Limit = 50, cursor: Cursor = None
) -> PageOut[KeyOut]:
    """Oldest first, revoked ones included; never a secret."""
    found = sorted(map(_out, await services.keys.list(principal.tenant)), key=_position)
    return page_of(found, _position, limit, cursor)


@router.post("", operation_id="create_key", summary="Make a key", status_code=201, responses=problems())
async def create_key(body: KeyIn, principal: KeysCreator, services: ServicesDep) -> NewKeyOut:
    """In your own tenant; roles are those the policy declares. Keep `key` from the answer: it cannot be read again."""
    unknown = unknown_roles(services, body.roles, "body.roles")
    if unknown:
        raise invalid_fields(unknown, kind="unknown_role")
    owner = Principal(id=body.principal, tenant=principal.tenant, roles=body.roles, kind=body.kind)
    days = body.expires_in_days
    expires = None if days is None else datetime.now(UTC) + timedelta(days=days)
    key, plaintext = await services.keys.create(body.name, owner, expires, scopes=body.scopes, actor=principal.id)
    return NewKeyOut(**_out(key).model_dump(), key=plaintext)


@router.post(
    "/{key_id}/rotate", operation_id="rotate_key", summary="Replace a key", status_code=201, responses=problems(404)
)
async def rotate_key(key_id: Id, body: RotationIn, principal: KeysCreator, services: ServicesDep) -> NewKeyOut:
    """A successor with the same name, principal, scopes and life span; the old key goes on for the grace given."""
    grace = timedelta(hours=body.grace_hours)
    rotated = await services.keys.rotate(principal.tenant, key_id, grace=grace, actor=principal.id)
    if rotated is None:
        raise not_found("valid key", key_id)
    key, plaintext = rotated
    return NewKeyOut(**_out(key).model_dump(), key=plaintext)


@router.delete(
    "/{key_id}", operation_id="revoke_key", summary="Withdraw a key", status_code=204, responses=problems(404)
)
async def revoke_key(key_id: Id, principal: KeysRevoker, services: ServicesDep) -> Response:
    """At once; withdrawing it again changes nothing."""
    if await services.keys.revoke(principal.tenant, key_id, actor=principal.id) is None:
        raise not_found("key", key_id)
    return Response(status_code=204)
