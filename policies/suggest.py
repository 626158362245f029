"""Rules proposed from answers: calls that people approved again and again, and never denied.

A suggestion is the narrowest change that would have allowed exactly those calls: an allow row for their very arguments,
requesters, tenant and automation, and an exception for them in each row that asked. It is never applied by itself; it
comes with its simulated effect, and a person proposes it like any other change.
"""

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from policies.condition import condition
from policies.decision import GateRequest, Verdict
from policies.engine import PolicyEngine
from policies.expression import MAX_EXPRESSION, ExpressionError
from policies.rules import Rule, RuleSet
from policies.simulate import Recorded, Simulation, simulate
from tools.contract import JsonObject, Wire, canonical_json

TIMES = 3
"""How often people must have approved a call before it is suggested."""
_MOST_ASKING = 8


@dataclass(frozen=True)
class Answered:
    """One call that the gate asked people about, and what they said."""

    record: Recorded
    approved: bool
    """Without changing the arguments; anything else is no approval of this call."""
    by: str


class Suggestion(Wire):
    """A change somebody may want to propose."""

    id: str
    rule: JsonObject
    """The new row."""
    amended: tuple[JsonObject, ...]
    """The rows that asked, with their exception."""
    tool: str
    automation: str
    tenant: str
    approvals: int
    approved_by: tuple[str, ...]
    runs: tuple[str, ...]
    simulation: Simulation


def suggestions(
    answered: Sequence[Answered], records: Sequence[Recorded], current: PolicyEngine, *, times: int = TIMES
) -> list[tuple[Suggestion, RuleSet]]:
    """Suggestions and the whole policy each would make, most approvals first.

    `records`: all decisions on record, for the simulated effect. Calls approved fewer than `times` times, denied by
    anybody, or not wholly on record are left out.
    """
    found: list[tuple[Suggestion, RuleSet]] = []
    for calls in _groups(answered, times).values():
        proposal = _proposal(calls, current)
        if proposal is None:
            continue
        rule, amended, rules = proposal
        first = calls[0].record
        effect = simulate(records, PolicyEngine(rules, environment=current.environment))
        suggestion = Suggestion(
            id=rule.id, rule=_written(rule), amended=tuple(map(_written, amended)), tool=first.tool,
            automation=_asked(first).automation, tenant=first.tenant, approvals=len(calls),
            approved_by=tuple(sorted({c.by for c in calls})), runs=tuple(sorted({c.record.run_id for c in calls})),
            simulation=effect,
        )  # fmt: skip
        found.append((suggestion, rules))
    return sorted(found, key=lambda pair: (-pair[0].approvals, pair[0].id))


def _groups(answered: Iterable[Answered], times: int) -> Mapping[tuple[str, ...], list[Answered]]:
    """Approved calls by tool, tenant and automation; each call's arguments approved often enough."""
    by_call: defaultdict[tuple[str, ...], list[Answered]] = defaultdict(list)
    for answer in answered:
        record = answer.record
        if record.request is None or not record.exact or record.request.facts is None:
            continue
        by_call[record.tool, record.tenant, record.request.automation, record.digest].append(answer)
    groups: defaultdict[tuple[str, ...], list[Answered]] = defaultdict(list)
    for (*group, _), answers in by_call.items():
        if len(answers) >= times and all(answer.approved for answer in answers):
            groups[tuple(group)] += answers
    return groups


def _proposal(calls: Sequence[Answered], current: PolicyEngine) -> tuple[Rule, list[Rule], RuleSet] | None:
    """The new row, the amended ones, the whole policy. None when no such change exists, or is not needed any more."""
    requests = [_asked(call.record) for call in calls]
    if all(current.decide(q).verdict is Verdict.ALLOW for q in requests):
        return None
    when, exception = _conditions(requests)
    first = requests[0]
    name = hashlib.sha256(canonical_json({"when": exception})).hexdigest()[:12]
    try:
        rule = Rule.model_validate(
            {
                "id": f"approved-{name}", "subjects": sorted({q.principal.id for q in requests}),
                "tenant": first.principal.tenant, "automations": [first.automation], "tools": [first.tool],
                "effects": [first.effect.value], "when": when, "verdict": "allow",
                "reason": f"People approved exactly this {len(calls)} times.",
            }
        )  # fmt: skip
    except ValueError:
        return None
    rules = replace(current.rules, rules=(*current.rules.rules, rule), places={})
    amended: dict[str, Rule] = {}
    for _ in range(_MOST_ASKING):
        engine = PolicyEngine(_fresh(rules), environment=current.environment)
        asking = [d for q in requests if (d := engine.decide(q)).verdict is not Verdict.ALLOW]
        if not asking:
            return rule, list(amended.values()), engine.rules
        blocking = asking[0]
        old = next((r for r in rules.rules if r.id == blocking.rule), None)
        if old is None or blocking.verdict is Verdict.DENY or old.id in amended:
            return None
        text = f"({old.when}) && !({exception})" if old.when else f"!({exception})"
        if not _compiles(text):
            return None
        amended[old.id] = old.model_copy(update={"when": text})
        rules = replace(rules, rules=tuple(amended.get(r.id, r) for r in rules.rules))
    return None


def _conditions(requests: Sequence[GateRequest]) -> tuple[str, str]:
    """What holds for exactly these calls: for the allow row, and, with all else that row says, for the exceptions."""
    first = requests[0]
    texts = sorted({json.dumps(q.arguments, sort_keys=True) for q in requests})
    clean = all(q.facts is not None and not q.facts.tainted for q in requests)
    when = (["!tainted"] if clean else []) + [f"args in [{', '.join(texts)}]"]
    people = ", ".join(json.dumps(person) for person in sorted({q.principal.id for q in requests}))
    scope = [
        f"tool == {json.dumps(first.tool)}", f"effect == {json.dumps(first.effect.value)}",
        f"tenant == {json.dumps(first.principal.tenant)}", f"automation == {json.dumps(first.automation)}",
        f"principal.id in [{people}]",
    ]  # fmt: skip
    return " && ".join(when), " && ".join([*scope, *when])


def _compiles(text: str) -> bool:
    if len(text) > MAX_EXPRESSION:
        return False
    try:
        condition(text)
    except ExpressionError:
        return False
    return True


def _fresh(rules: RuleSet) -> RuleSet:
    """Without what an older set had worked out about itself."""
    return RuleSet(rules=rules.rules, rights=rules.rights, roles=rules.roles)


def _asked(record: Recorded) -> GateRequest:
    if record.request is None:
        raise ValueError("the question is not on record")
    return record.request


def _written(rule: Rule) -> JsonObject:
    return rule.model_dump(mode="json", exclude_unset=True)
