"""What would the gate say? The same engine and rules that decide real calls; nothing runs and nothing is recorded."""

from typing import Annotated

from fastapi import APIRouter
from pydantic import ConfigDict, Field

from api.auth import PolicyChecker, unknown_roles
from api.errors import invalid, invalid_fields, problems
from api.services import ServicesDep
from api.validation import JsonIn, schema_problems
from policies.decision import Decision, GateRequest
from tools.contract import Strict

router = APIRouter(prefix="/policy", tags=["policy"])


class PolicyQuestion(Strict):
    """One imagined call."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    automation: Annotated[str, Field(max_length=64, examples=["log-triage"])]
    tool: Annotated[str, Field(max_length=64, examples=["delete_files"])]
    arguments: Annotated[JsonIn, Field(examples=[{"paths": ["in/app.log.1"]}])] = Field(default_factory=dict)
    roles: Annotated[tuple[Annotated[str, Field(max_length=64)], ...] | None, Field(max_length=20)] = None
    """Ask as somebody with these roles; your own when left out."""


@router.post("/check", operation_id="check_policy", summary="Ask the gate about an imagined call", responses=problems())
async def check_policy(question: PolicyQuestion, principal: PolicyChecker, services: ServicesDep) -> Decision:
    """The verdict, the rule that decided and who may approve. A real call is decided anew when it is made."""
    spec = services.catalog.automations.get(question.automation)
    if spec is None:
        raise invalid("body.automation", "there is no such automation", "GET /api/v1/automations lists them")
    tool = spec.tool(question.tool)
    if tool is None:
        raise invalid("body.tool", f"{spec.name} may not ask for it", f"give one of {', '.join(spec.definition.tools)}")
    wrong = schema_problems(question.arguments, tool.parameters, "body.arguments")
    if wrong:
        raise invalid_fields(wrong, kind="invalid_arguments")
    unknown = unknown_roles(services, question.roles or (), "body.roles")
    if unknown:
        raise invalid_fields(unknown, kind="unknown_role")
    asker = principal if question.roles is None else principal.model_copy(update={"roles": question.roles})
    return services.engine.decide(
        GateRequest(
            principal=asker, automation=spec.name, tool=tool.name, effect=tool.effect, arguments=question.arguments
        )
    )
