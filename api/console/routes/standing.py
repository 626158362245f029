"""What was said beforehand: grants that spare questions, and who answers for whom while they are away."""

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

from fastapi import APIRouter, Form, Path, Request
from pydantic import ValidationError
from starlette.responses import RedirectResponse, Response

from api.console.pages import page
from api.console.session import QueueAnswerer, QueueReader, Visitor
from api.errors import Refused
from api.granting import DelegationIn
from api.routes import standing as routes

router = APIRouter(prefix="/standing")

Id = Annotated[str, Path(max_length=64)]


@router.get("")
async def standing_page(request: Request, visitor: QueueReader) -> Response:
    """Those in force first; nothing that ended is hidden."""
    return await _draw(request, visitor)


@router.post("/stand-ins")
async def stand_in(
    request: Request, visitor: QueueAnswerer, person: Annotated[str, Form(max_length=128)],
    days: Annotated[str, Form(max_length=5)], reason: Annotated[str, Form(max_length=500)] = "",
) -> Response:  # fmt: skip
    """Somebody answers for the visitor while they are away."""
    asked = {"person": person, "days": days, "reason": reason}
    until = datetime.now(UTC) + timedelta(days=min(int(days), 1000)) if days.isdecimal() else None
    try:
        body = DelegationIn.model_validate({"stand_in": person.strip(), "until": until, "reason": reason.strip()})
        await routes.create_delegation(body, visitor.principal, visitor.services)
    except ValidationError:
        return await _draw(request, visitor, status=422, asked=asked, problem="name a person, and 1 to 90 days")
    except Refused as refused:
        found = refused.errors[0].problem if refused.errors else refused.detail
        return await _draw(request, visitor, status=refused.status, asked=asked, problem=found)
    return RedirectResponse("/console/standing", 303)


@router.post("/grants/{grant_id}/end")
async def end_grant(request: Request, visitor: QueueAnswerer, grant_id: Id) -> Response:
    """From now on people are asked again."""
    try:
        await routes.revoke_grant(grant_id, visitor.principal, visitor.services)
    except Refused as refused:
        return await _draw(request, visitor, status=refused.status, problem=refused.detail)
    return RedirectResponse("/console/standing", 303)


@router.post("/stand-ins/{delegation_id}/end")
async def end_stand_in(request: Request, visitor: QueueAnswerer, delegation_id: Id) -> Response:
    """The absent person is back."""
    try:
        await routes.revoke_delegation(delegation_id, visitor.principal, visitor.services)
    except Refused as refused:
        return await _draw(request, visitor, status=refused.status, problem=refused.detail)
    return RedirectResponse("/console/standing", 303)


async def _draw(request: Request, visitor: Visitor, *, status: int = 200, **more: Any) -> Response:
    grants = (await routes.list_grants(visitor.principal, visitor.services)).items
    stand_ins = (await routes.list_delegations(visitor.principal, visitor.services)).items
    context: dict[str, Any] = {
        "grants": sorted(grants, key=lambda g: g.state != "in_force"),
        "stand_ins": sorted(stand_ins, key=lambda d: d.state != "in_force"),
        "may_answer": visitor.may("approvals", "answer"), "may_grant": visitor.may("approvals", "grant"),
        "me": visitor.principal.id, "problem": None, "asked": {"person": "", "days": "7", "reason": ""},
    }  # fmt: skip
    return page(request, "standing.html", status=status, **(context | more))
