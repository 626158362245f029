"""Why the gate says what it says of one call: every row that matched or nearly did, and what each condition found.

Reads the typed rules, not Casbin's rows, and is checked against the engine: the row named as deciding is the one the
engine named.
"""

import re
from typing import Literal

from policies.condition import Condition, Question, condition
from policies.decision import Decision, GateRequest, Verdict
from policies.engine import PolicyEngine
from policies.expression import ExpressionError
from policies.glob import any_glob
from policies.malformed import measure
from policies.rules import GATE_FAULT, MALFORMED, Rule
from tools.contract import Wire

Standing = Literal["decides", "matches", "nearly"]
"""`decides`: the strictest that matches. `matches`: a stricter one came first. `nearly`: one clause was not met."""

_ORDER = {Verdict.DENY: 0, Verdict.ASK: 1, Verdict.ALLOW: 2}


class Clause(Wire):
    """One conjunct of a condition and what came of it."""

    text: str
    holds: bool | None
    """None when it could not be evaluated; then `problem` says why."""
    problem: str = ""


class RowExplained(Wire):
    """One row and how it stands to the call."""

    rule: str
    verdict: Verdict
    standing: Standing
    missed: str = ""
    """The one clause that was not met, in words; empty unless `nearly`."""
    condition: tuple[Clause, ...] = ()
    place: str = ""
    """`file:line` of the rule, where it is known."""


class Explanation(Wire):
    """The decision, and the rows behind it, strictest first."""

    decision: Decision
    rows: tuple[RowExplained, ...]


def explain(engine: PolicyEngine, request: GateRequest) -> Explanation:
    """Decide, and say why. A malformed request has no rows: it never got as far."""
    decision = engine.decide(request)
    if decision.rule in (MALFORMED, GATE_FAULT):
        return Explanation(decision=decision, rows=())
    question = Question(request, engine.environment, measure(request.arguments))
    held = engine.roles_of(request.principal)
    found: list[RowExplained] = []
    for rule in engine.rules.rules:
        missed = _missed(rule, request, held)
        if len(missed) > 1:
            continue
        clauses = _clauses(rule, question)
        if rule.when and not _holds(rule, question):
            missed.append("its condition does not hold")
        if len(missed) > 1:
            continue
        standing: Standing = "nearly" if missed else "decides" if rule.id == decision.rule else "matches"
        found.append(
            RowExplained(
                rule=rule.id, verdict=rule.verdict, standing=standing, missed="".join(missed), condition=clauses,
                place=engine.rules.places.get(rule.id, ""),
            )
        )  # fmt: skip
    rank = {"decides": 0, "matches": 1, "nearly": 2}
    found.sort(key=lambda row: (rank[row.standing], _ORDER[row.verdict], row.rule))
    return Explanation(decision=decision, rows=tuple(found))


def _missed(rule: Rule, request: GateRequest, held: frozenset[str]) -> list[str]:
    """Every clause but the condition that the call does not meet."""
    who, missed = request.principal, list[str]()
    if held.isdisjoint(rule.roles) and who.id not in rule.subjects:
        wanted = [*rule.roles, *rule.subjects]
        missed.append(f"the requester is none of {', '.join(wanted)}")
    if rule.tenant not in ("*", who.tenant):
        missed.append(f"the tenant is not {rule.tenant}")
    if not any_glob(request.automation, rule.automations):
        missed.append(f"the automation does not fit {', '.join(rule.automations)}")
    if not any_glob(request.tool, rule.tools):
        missed.append(f"the tool does not fit {', '.join(rule.tools)}")
    if request.effect not in rule.effects:
        missed.append(f"the effect is not {' or '.join(rule.effects)}")
    return missed


def _holds(rule: Rule, question: Question) -> bool:
    """As the engine reads it: an error holds where the rule restricts."""
    try:
        return condition(rule.when).holds_for(question)
    except ExpressionError:
        return rule.verdict is not Verdict.ALLOW


def _clauses(rule: Rule, question: Question) -> tuple[Clause, ...]:
    found: list[Clause] = []
    for text in conjuncts(rule.when):
        try:
            found.append(Clause(text=text, holds=Condition(text).holds_for(question)))
        except ExpressionError as problem:
            found.append(Clause(text=text, holds=None, problem=str(problem)[:300]))
    return tuple(found)


_TOKEN = re.compile(r""""(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|&&|\|\||[()\[\]{}?]|[^"'&|()\[\]{}?]+|.""", re.DOTALL)


def conjuncts(text: str) -> list[str]:
    """The parts of `a && b && c`; the whole where `&&` is not the outermost operator. Empty for no condition."""
    parts, depth = [""], 0
    for piece in _TOKEN.findall(text):
        depth += (piece in "([{") - (piece in ")]}") if len(piece) == 1 else 0
        if depth == 0 and piece in ("||", "?"):
            return [text.strip()]
        if depth == 0 and piece == "&&":
            parts.append("")
        else:
            parts[-1] += piece
    return [part.strip() for part in parts if part.strip()]
