"""The policy in force, and what one can ask of it or of another: nothing here changes anything."""

import asyncio
from typing import Annotated

from fastapi import APIRouter, Path
from pydantic import BaseModel, ConfigDict, Field

from api.auth import PolicyChecker, PolicyReader, unknown_roles
from api.errors import invalid, invalid_fields, not_found, problems
from api.policies import DocumentIn, PolicyIn, check_tenant, decisions, engine_of, refused, rules_of
from api.services import Services, ServicesDep
from api.validation import JsonIn, schema_problems
from policies.decision import Decision, Facts, GateRequest, Principal
from policies.diff import PolicyDiff, diff
from policies.explain import Explanation, explain
from policies.export import as_yaml
from policies.lint import Finding, lint
from policies.rules import RuleSet
from policies.simulate import Simulation, simulate
from policies.source import SourceError, parse_document
from policies.testing import CaseError, Report, cases_of, run_cases
from tools.contract import Strict
from worker.store.policies import PolicyChange

router = APIRouter(prefix="/policy", tags=["policy"])

VersionPath = Annotated[str, Path(pattern=r"^[0-9a-f]{64}$", description="Digest of a policy.")]


class PolicyQuestion(Strict):
    """One imagined call."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    automation: Annotated[str, Field(max_length=64, examples=["log-triage"])]
    tool: Annotated[str, Field(max_length=64, examples=["delete_files"])]
    arguments: Annotated[JsonIn, Field(examples=[{"paths": ["in/app.log.1"]}])] = Field(default_factory=dict)
    roles: Annotated[tuple[Annotated[str, Field(max_length=64)], ...] | None, Field(max_length=20)] = None
    """Ask as somebody with these roles; your own when left out."""
    facts: Facts | None = None
    """Taint, origins, counts; the most distrustful ones when left out."""


class PolicyOut(BaseModel):
    """What is in force, how it came to be, and what is wrong with a newer one."""

    version: str
    change: PolicyChange | None
    rules: int
    environment: str
    strict: bool
    """Every change takes two people."""
    problem: str | None
    """Why a newer policy is not in force."""


class PolicyText(BaseModel):
    """A whole policy as one rules file."""

    version: str
    text: str


class LintOut(BaseModel):
    """Everything found; `ok` when nothing of it is an error."""

    ok: bool
    version: str
    findings: list[Finding]


class TestIn(Strict):
    """A table of cases, and the policy it is run against."""

    cases: DocumentIn
    policy: PolicyIn = PolicyIn()


class DiffIn(Strict):
    """Two policies; `before` is the one in force when left out."""

    before: PolicyIn = PolicyIn()
    after: PolicyIn


@router.post("/check", operation_id="check_policy", summary="Ask the gate about an imagined call", responses=problems())
async def check_policy(question: PolicyQuestion, principal: PolicyChecker, services: ServicesDep) -> Decision:
    """The verdict, the rule that decided and who may approve. A real call is decided anew when it is made."""
    return services.engine.decide(_request(question, principal, services))


@router.post("/explain", operation_id="explain_policy", summary="Why the gate says so", responses=problems())
async def explain_policy(question: PolicyQuestion, principal: PolicyReader, services: ServicesDep) -> Explanation:
    """The decision and every row that matched or missed by one clause, with what its condition found."""
    check_tenant(principal, services)
    return explain(services.engine.engine, _request(question, principal, services))


@router.get("", operation_id="get_policy", summary="The policy in force", responses=problems())
async def get_policy(principal: PolicyReader, services: ServicesDep) -> PolicyOut:
    """Its version and where it came from."""
    check_tenant(principal, services)
    live = services.engine
    return PolicyOut(
        version=live.version, change=live.change, rules=len(live.engine.rules.rules), environment=live.environment,
        strict=live.strict, problem=live.problem,
    )  # fmt: skip


@router.get(
    "/versions/{version}", operation_id="get_policy_version", summary="A policy as text", responses=problems(404)
)
async def get_policy_version(version: VersionPath, principal: PolicyReader, services: ServicesDep) -> PolicyText:
    """The whole policy, as one rules file that can be edited and proposed again with `whole`."""
    check_tenant(principal, services)
    body = await services.engine.policies.body(version)
    if body is None:
        raise not_found("policy version", version)
    rules = await asyncio.to_thread(RuleSet.from_body, body)
    return PolicyText(version=version, text=await asyncio.to_thread(as_yaml, rules))


@router.post("/lint", operation_id="lint_policy", summary="What is wrong with a policy", responses=problems(404))
async def lint_policy(policy: PolicyIn, principal: PolicyReader, services: ServicesDep) -> LintOut:
    """Rows that never decide, say nothing, or say it twice. 422 when the policy does not load at all."""
    check_tenant(principal, services)
    try:
        rules = await rules_of(policy, services)
    except SourceError as error:
        raise refused(error.problems) from None
    found = await asyncio.to_thread(lint, rules, services.catalog.tools)
    return LintOut(ok=all(f.level != "error" for f in found), version=rules.version, findings=found)


@router.post("/test", operation_id="test_policy", summary="Run a table of cases", responses=problems(404))
async def test_policy(asked: TestIn, principal: PolicyReader, services: ServicesDep) -> Report:
    """Each call, its verdict and rule; fails too when a rule is hit by no case."""
    check_tenant(principal, services)
    engine = await engine_of(asked.policy, services)
    try:
        cases = cases_of(parse_document(asked.cases.text, asked.cases.name, CaseError))
    except SourceError as error:
        raise refused(error.problems) from None
    effects = {name: spec.effect for name, spec in services.catalog.tools.items()}
    return await asyncio.to_thread(run_cases, engine, cases, effects)


@router.post("/diff", operation_id="diff_policy", summary="What differs between two policies", responses=problems(404))
async def diff_policy(asked: DiffIn, principal: PolicyReader, services: ServicesDep) -> PolicyDiff:
    """Which rows, which fields, and which verdicts over made-up calls."""
    check_tenant(principal, services)
    before, after = await engine_of(asked.before, services), await engine_of(asked.after, services)
    return await asyncio.to_thread(diff, before, after, services.catalog.tools)


@router.post("/simulate", operation_id="simulate_policy", summary="Replay recorded decisions", responses=problems(404))
async def simulate_policy(policy: PolicyIn, principal: PolicyReader, services: ServicesDep) -> Simulation:
    """Asks the policy about every decision in the audit log and says what would have been decided otherwise."""
    check_tenant(principal, services)
    engine = await engine_of(policy, services)
    return await asyncio.to_thread(simulate, await decisions(services), engine)


def _request(question: PolicyQuestion, principal: Principal, services: Services) -> GateRequest:
    """The call as the gate would see it. Raises Refused 422 for a call that could not even be asked for."""
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
    return GateRequest(
        principal=asker, automation=spec.name, tool=tool.name, effect=tool.effect, arguments=question.arguments,
        facts=question.facts,
    )  # fmt: skip
