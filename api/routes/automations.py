"""The automations this installation knows: what can be asked for, with which inputs."""

from typing import Annotated

from fastapi import APIRouter, Path
from pydantic import ConfigDict

from api.auth import AutomationsReader
from api.errors import not_found, problems
from api.listing import page_of
from api.paging import Cursor, Limit, PageOut
from api.services import ServicesDep
from tools.contract import JsonObject, Wire
from workflows.spec import ApprovalDefaults, AutomationSpec, Budgets, FileRules

router = APIRouter(prefix="/automations", tags=["automations"])

Name = Annotated[str, Path(max_length=64, examples=["log-triage"])]


class AutomationOut(Wire):
    """An automation as a client needs it to start a run; `digest` covers the whole definition and its tools."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    name: str
    version: str
    description: str
    owner: str
    digest: str
    inputs: JsonObject
    """JSON Schema of the inputs."""
    output: JsonObject
    files: FileRules
    tools: tuple[str, ...]
    models: tuple[str, ...]
    budgets: Budgets
    approvals: ApprovalDefaults
    rules: tuple[str, ...]
    """Ids of the fallback rules, in order."""
    instructions: str


def _out(spec: AutomationSpec) -> AutomationOut:
    d = spec.definition
    return AutomationOut(
        name=d.name, version=d.version, description=d.description, owner=d.owner, digest=spec.digest, inputs=d.inputs,
        output=d.output, files=d.files, tools=d.tools, models=d.models, budgets=d.budgets, approvals=d.approvals,
        rules=tuple(r.id for r in d.rules), instructions=d.instructions,
    )  # fmt: skip


@router.get("", operation_id="list_automations", summary="List automations", responses=problems())
async def list_automations(
    _: AutomationsReader, services: ServicesDep, limit: Limit = 50, cursor: Cursor = None
) -> PageOut[AutomationOut]:
    """By name."""
    specs = services.catalog.automations
    return page_of([_out(specs[name]) for name in sorted(specs)], lambda a: a.name, limit, cursor)


@router.get("/{name}", operation_id="get_automation", summary="One automation", responses=problems(404))
async def get_automation(name: Name, _: AutomationsReader, services: ServicesDep) -> AutomationOut:
    """Its schema says what POST /runs takes as `inputs`."""
    spec = services.catalog.automations.get(name)
    if spec is None:
        raise not_found("automation", name)
    return _out(spec)
