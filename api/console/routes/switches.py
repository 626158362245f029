"""Switches: what is stopped, how far each stop got, stopping more, and the way back, one step at a time."""

from typing import Annotated, Any

from fastapi import APIRouter, Form, Path, Request
from pydantic import ValidationError
from starlette.responses import RedirectResponse, Response

from api.console.pages import page
from api.console.session import SwitchesReader, SwitchesReleaser, SwitchesSetter, Visitor
from api.errors import Refused
from api.routes import switches as switch_routes
from worker.store.head import last_seq

router = APIRouter(prefix="/switches")

Word = Annotated[str, Form(max_length=20)]


@router.get("")
async def switches_page(request: Request, visitor: SwitchesReader) -> Response:
    """Those in force first."""
    return await _draw(request, visitor)


@router.post("")
async def set_switch(
    request: Request, visitor: SwitchesSetter, scope: Word, kind: Word, running: Word = "pause",
    target: Annotated[str, Form(max_length=128)] = "", reason: Annotated[str, Form(max_length=1000)] = "",
) -> Response:  # fmt: skip
    """In force when this answers."""
    asked = {"scope": scope, "kind": kind, "running": running, "target": target.strip(), "reason": reason.strip()}
    try:
        body = switch_routes.SwitchIn.model_validate(asked)
        await switch_routes.set_switch(body, visitor.principal, visitor.services)
    except ValidationError as error:
        field = str(error.errors()[0]["loc"][-1])
        return await _draw(
            request, visitor, status=422, asked=asked, problem=f"Correct the {field}; a reason is needed."
        )
    except Refused as refused:
        return await _draw(request, visitor, status=refused.status, asked=asked, problem=refused.detail)
    return RedirectResponse("/console/switches", 303)


@router.post("/{switch_id}/release")
async def release(
    request: Request, visitor: SwitchesReleaser, switch_id: Annotated[str, Path(max_length=64)], state: Word,
    reason: Annotated[str, Form(max_length=1000)] = "",
) -> Response:  # fmt: skip
    """One step back from the state that was shown."""
    try:
        body = switch_routes.ReleaseIn.model_validate({"state": state, "reason": reason.strip()})
        await switch_routes.release_switch(switch_id, body, visitor.principal, visitor.services)
    except ValidationError:
        return await _draw(request, visitor, status=422, problem="Say why it is released.")
    except Refused as refused:
        return await _draw(request, visitor, status=refused.status, problem=refused.detail)
    return RedirectResponse("/console/switches", 303)


async def _draw(request: Request, visitor: Visitor, *, status: int = 200, **more: Any) -> Response:
    seq = await last_seq(visitor.services.database)
    listed = await switch_routes.list_switches(visitor.principal, visitor.services)
    ordered = sorted(listed.items, key=lambda s: s.state == "released")
    context: dict[str, Any] = {
        "switches": ordered, "active": [s for s in ordered if s.state != "released"], "problem": None,
        "seq": seq,
        "asked": {"scope": "automation", "kind": "stop", "running": "pause", "target": "", "reason": ""},
        "may_set": visitor.may("switches", "set"), "may_release": visitor.may("switches", "release"),
        "automations": sorted(visitor.services.catalog.automations), "tools": sorted(visitor.services.catalog.tools),
    }  # fmt: skip
    return page(request, "switches.html", status=status, **(context | more))
