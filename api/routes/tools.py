"""The tools automations may ask for: manifests only; programs run nowhere but in the sandbox."""

from typing import Annotated

from fastapi import APIRouter, Path

from api.auth import ToolsReader
from api.errors import not_found, problems
from api.listing import page_of
from api.paging import Cursor, Limit, PageOut
from api.services import ServicesDep
from tools.contract import ToolSpec

router = APIRouter(prefix="/tools", tags=["tools"])

Name = Annotated[str, Path(max_length=64, examples=["search_text"])]


@router.get("", operation_id="list_tools", summary="List tools", responses=problems())
async def list_tools(
    _: ToolsReader, services: ServicesDep, limit: Limit = 50, cursor: Cursor = None
) -> PageOut[ToolSpec]:
    """By name."""
    tools = services.catalog.tools
    return page_of([tools[name] for name in sorted(tools)], lambda t: t.name, limit, cursor)


@router.get("/{name}", operation_id="get_tool", summary="One tool", responses=problems(404))
async def get_tool(name: Name, _: ToolsReader, services: ServicesDep) -> ToolSpec:
    """Its manifest: arguments schema, effect, limits, and the digest of its program."""
    tool = services.catalog.tools.get(name)
    if tool is None:
        raise not_found("tool", name)
    return tool
