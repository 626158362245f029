"""API keys of the administrator's tenant: the list, a new one, which is shown once, and withdrawing one."""

from typing import Annotated, Any

from fastapi import APIRouter, Form, Path, Request
from pydantic import ValidationError
from starlette.responses import RedirectResponse, Response

from api.auth import ROLES
from api.console.pages import page
from api.console.session import KeysCreator, KeysReader, KeysRevoker, Visitor
from api.errors import Refused
from api.routes import keys as key_routes
from worker.store.head import last_seq

router = APIRouter(prefix="/keys")


@router.get("")
async def keys_page(request: Request, visitor: KeysReader) -> Response:
    """Newest first; never a secret."""
    return await _draw(request, visitor)


@router.post("")
async def create(
    request: Request, visitor: KeysCreator, name: Annotated[str, Form(max_length=80)],
    principal: Annotated[str, Form(max_length=128)], role: Annotated[list[str] | None, Form(max_length=20)] = None,
    days: Annotated[str, Form(max_length=5)] = "", kind: Annotated[str, Form(max_length=10)] = "person",
) -> Response:  # fmt: skip
    """The answer to this very request shows the key; nothing else ever does."""
    asked = {"name": name.strip(), "principal": principal.strip(), "roles": tuple(role or ()), "kind": kind}
    try:
        body = key_routes.KeyIn.model_validate(asked | {"expires_in_days": int(days) if days.strip() else None})
        made = await key_routes.create_key(body, visitor.principal, visitor.services)
    except (ValidationError, ValueError) as error:
        field = error.errors()[0]["loc"][0] if isinstance(error, ValidationError) else "days"
        return await _draw(request, visitor, status=422, asked=asked, problem=f"Correct the field {field}.")
    except Refused as refused:
        return await _draw(request, visitor, status=refused.status, asked=asked, problem=refused.detail)
    return await _draw(request, visitor, made=made)


@router.post("/{key_id}/revoke")
async def revoke(visitor: KeysRevoker, key_id: Annotated[str, Path(max_length=64)]) -> Response:
    """At once: sessions it opened end with it."""
    await key_routes.revoke_key(key_id, visitor.principal, visitor.services)
    return RedirectResponse("/console/keys", 303)


async def _draw(request: Request, visitor: Visitor, *, status: int = 200, **more: Any) -> Response:
    seq = await last_seq(visitor.services.database)
    found = await visitor.services.keys.list(visitor.principal.tenant)
    context: dict[str, Any] = {
        "seq": seq, "keys": found, "roles": ROLES, "made": None, "problem": None,
        "asked": {"name": "", "principal": "", "roles": (), "kind": "person"},
        "may_create": visitor.may("keys", "create"), "may_revoke": visitor.may("keys", "revoke"),
    }  # fmt: skip
    return page(request, "keys.html", status=status, **(context | more))
