"""Policy tests: a YAML table of calls and the verdict and rule each must get, run against a compiled policy.

A table also has to hit every rule of the policy: a rule that no case reaches is a rule nobody has checked.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, JsonValue, ValidationError

from policies.decision import NO_RULE, Decision, Facts, GateRequest, Principal, Verdict
from policies.engine import PolicyEngine
from policies.source import Document, SourceError, problems_of, read_document
from tools.contract import Effect, Strict, Wire


class CaseError(SourceError):
    """A table of cases cannot be used. Names file, line, field, problem and remedy."""


class Case(Strict):
    """One call and what must be said of it."""

    name: str = ""
    tool: str
    effect: Effect | None = None
    """The installed tool's effect when left out."""
    roles: tuple[str, ...] = ("operator",)
    principal: Annotated[str, Field(min_length=1, max_length=128)] = "somebody"
    kind: Literal["person", "service"] = "person"
    tenant: Annotated[str, Field(min_length=1, max_length=64)] = "default"
    automation: str = "some-automation"
    arguments: dict[str, JsonValue] = Field(default_factory=dict)
    facts: Facts | None = None
    """Taint, origins, counts; without them the most distrustful are taken."""
    verdict: Verdict
    rule: str | None = None
    """Not looked at when left out."""

    def request(self, effects: Mapping[str, Effect]) -> GateRequest:
        """The call. `effects` of the installed tools. An unknown tool counts as destructive."""
        who = Principal(id=self.principal, tenant=self.tenant, roles=self.roles, kind=self.kind)
        effect = self.effect or effects.get(self.tool, Effect.DESTRUCTIVE)
        return GateRequest(
            principal=who, automation=self.automation, tool=self.tool, effect=effect, arguments=self.arguments,
            facts=self.facts,
        )  # fmt: skip


class CaseResult(Wire):
    """What was said of one case."""

    place: str
    """`file:line`."""
    name: str
    passed: bool
    expected: str
    decision: Decision


class Report(Wire):
    """What a table showed."""

    passed: bool
    """Every case got its answer, and every rule was hit."""
    results: tuple[CaseResult, ...]
    unhit: tuple[str, ...]
    """Rules that decided no case."""


def read_cases(path: Path) -> list[tuple[str, Case]]:
    """The cases of one file with their places. Raises CaseError."""
    return cases_of(read_document(path, CaseError))


def cases_of(document: Document) -> list[tuple[str, Case]]:
    """The cases of a document: a list, or a mapping with the list under `cases`. Raises CaseError."""
    value = document.value
    rows = value.get("cases") if isinstance(value, dict) else value
    start = ("cases",) if isinstance(value, dict) else ()
    if not isinstance(rows, list):
        raise CaseError(document.problem((), "the table is not a list", "write one `- tool: ...` for each case"))
    found: list[tuple[str, Case]] = []
    for at, row in enumerate(rows):
        try:
            found.append((f"{document.file}:{document.line((*start, at))}", Case.model_validate(row)))
        except ValidationError as wrong:
            errors = [{**e, "loc": (*start, at, *e["loc"])} for e in wrong.errors(include_url=False)]
            raise CaseError(*problems_of(errors, document, Case)) from wrong  # type: ignore[arg-type]
    return found


def run_cases(engine: PolicyEngine, cases: Sequence[tuple[str, Case]], effects: Mapping[str, Effect]) -> Report:
    """Ask the engine about every case."""
    results: list[CaseResult] = []
    hit: set[str] = set()
    for place, case in cases:
        decision = engine.decide(case.request(effects))
        hit.add(decision.rule)
        passed = decision.verdict is case.verdict and case.rule in (None, decision.rule)
        expected = case.verdict.value if case.rule is None else f"{case.verdict.value} by {case.rule}"
        results.append(
            CaseResult(place=place, name=case.name or case.tool, passed=passed, expected=expected, decision=decision)
        )
    unhit = tuple(sorted({rule.id for rule in engine.rules.rules} - hit - {NO_RULE}))
    return Report(passed=all(r.passed for r in results) and not unhit, results=tuple(results), unhit=unhit)
