"""What can be asked for and what it may use: automations and tools, as they are installed."""

from typing import Annotated

from fastapi import APIRouter, Path, Request
from starlette.responses import Response

from api.console.pages import page
from api.console.session import AutomationsReader, ToolsReader
from api.errors import not_found

router = APIRouter()

Name = Annotated[str, Path(max_length=64)]


@router.get("/automations")
async def automations_page(request: Request, visitor: AutomationsReader) -> Response:
    """By name."""
    return page(request, "automations.html", specs=[*visitor.services.catalog.automations.values()])


@router.get("/automations/{name}")
async def automation_page(request: Request, name: Name, visitor: AutomationsReader) -> Response:
    """Instructions, tools, models, budgets, fallback rules."""
    spec = visitor.services.catalog.automations.get(name)
    if spec is None:
        raise not_found("automation", name)
    return page(request, "automation.html", spec=spec, d=spec.definition)


@router.get("/tools")
async def tools_page(request: Request, visitor: ToolsReader) -> Response:
    """By name, with the automations that may ask for each."""
    catalog = visitor.services.catalog
    users = {t: [a.name for a in catalog.automations.values() if t in a.definition.tools] for t in catalog.tools}
    return page(request, "tools.html", tools=[*catalog.tools.values()], users=users)


@router.get("/tools/{name}")
async def tool_page(request: Request, name: Name, visitor: ToolsReader) -> Response:
    """Its manifest."""
    tool = visitor.services.catalog.tools.get(name)
    if tool is None:
        raise not_found("tool", name)
    return page(request, "tool.html", tool=tool)
