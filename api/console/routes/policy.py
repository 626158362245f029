"""The policy in force: its rules, why it would say what of a call, and what another one would have said."""

import json
from typing import Annotated, Any

from fastapi import APIRouter, Form, Request
from pydantic import ValidationError
from starlette.responses import Response

from api.console.pages import page
from api.console.session import PolicyReader, Visitor
from api.errors import Refused
from api.policies import DocumentIn, PolicyIn, check_tenant
from api.routes import policy as policy_routes

router = APIRouter(prefix="/policy")

EXAMPLE = '{"paths": ["in/app.log.1"]}'


@router.get("")
async def policy_page(request: Request, visitor: PolicyReader) -> Response:
    """Every rule, strictest first."""
    return await _draw(request, visitor)


@router.post("/explain")
async def explain(
    request: Request, visitor: PolicyReader, automation: Annotated[str, Form(max_length=64)],
    tool: Annotated[str, Form(max_length=64)], arguments: Annotated[str, Form(max_length=100_000)] = "{}",
    roles: Annotated[str, Form(max_length=500)] = "",
) -> Response:  # fmt: skip
    """Nothing is run and nothing recorded."""
    asked = {"automation": automation, "tool": tool, "arguments": arguments, "roles": roles}
    try:
        question = policy_routes.PolicyQuestion(
            automation=automation, tool=tool, arguments=json.loads(arguments), roles=tuple(roles.split()) or None
        )
        found = await policy_routes.explain_policy(question, visitor.principal, visitor.services)
    except (ValueError, RecursionError) as error:
        why = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
        return await _draw(request, visitor, status=422, asked=asked, problem=f"The arguments cannot be read: {why}")
    except Refused as refused:
        return await _draw(request, visitor, status=refused.status, asked=asked, problem=refused.detail)
    return await _draw(request, visitor, asked=asked, explanation=found)


@router.post("/simulate")
async def simulate(
    request: Request, visitor: PolicyReader, text: Annotated[str, Form(max_length=1_000_000)],
    whole: Annotated[bool, Form()] = False,
) -> Response:  # fmt: skip
    """Asks another policy about every recorded decision; brings nothing into force."""
    try:
        policy = PolicyIn(documents=(DocumentIn(name="your rules", text=text),), whole=whole)
        found = await policy_routes.simulate_policy(policy, visitor.principal, visitor.services)
    except Refused as refused:
        return await _draw(request, visitor, status=refused.status, text=text, whole=whole, wrong=refused)
    return await _draw(request, visitor, text=text, whole=whole, simulation=found)


async def _draw(request: Request, visitor: Visitor, *, status: int = 200, **more: Any) -> Response:
    services = visitor.services
    check_tenant(visitor.principal, services)
    order = {"deny": 0, "ask": 1, "allow": 2}
    rules = sorted(services.engine.engine.rules.rules, key=lambda r: (order[r.verdict], r.id))
    context: dict[str, Any] = {
        "live": services.engine, "rules": rules,
        "automations": services.catalog.automations, "tools": sorted(services.catalog.tools),
        "asked": {"automation": "", "tool": "", "arguments": EXAMPLE, "roles": "operator"}, "explanation": None,
        "problem": None, "text": "", "whole": False, "simulation": None, "wrong": None,
    }  # fmt: skip
    return page(request, "policy.html", status=status, **(context | more))
