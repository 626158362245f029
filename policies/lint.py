"""What is legal in a policy and still wrong: rows that can never decide, say nothing, or say it twice.

Errors of form (unknown names, role cycles, duplicate ids, conditions that do not compile) stop a policy from loading at
all and are reported by `policies.rules`; everything here is found in a policy that loads.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Literal

from policies.condition import condition
from policies.decision import Verdict
from policies.glob import any_glob, glob
from policies.rules import Rule, RuleSet, strictness
from policies.satisfiable import always_holds, cannot_hold
from tools.contract import ToolSpec, Wire

Kind = Literal[
    "unreachable",
    "shadowed",
    "duplicate",
    "never_true",
    "always_true",
    "unknown_argument",
    "wide_open",
    "loose_pattern",
]

_WILD = re.compile(r"[*?]")
_ARGUMENT = re.compile(r"\bargs\s*\.\s*([A-Za-z_]\w*)")


class Finding(Wire):
    """One thing about one rule."""

    level: Literal["error", "warning"]
    """An error makes lint fail: the row does not do what somebody wrote it for."""
    kind: Kind
    rule: str
    place: str = ""
    problem: str
    remedy: str

    def __str__(self) -> str:
        at = f"{self.place}: " if self.place else ""
        return f"{at}{self.level}: {self.rule}: {self.problem} ({self.remedy})"


def lint(rules: RuleSet, tools: Mapping[str, ToolSpec]) -> list[Finding]:
    """Everything found, in the order of the rules. `tools`: what is installed, by name."""
    closure = inherited(rules)
    stricter = _Stricter(rules, closure)
    found: list[Finding] = []
    for rule in rules.rules:
        found += _conditions(rule, tools)
        found += _reach(rule, tools)
        found += stricter.over(rule)
    places = rules.places
    return [f.model_copy(update={"place": places.get(f.rule, "")}) for f in found]


def inherited(rules: RuleSet) -> dict[str, frozenset[str]]:
    """Role -> every role that its holders hold, itself included."""
    direct = dict(rules.roles)

    def reach(role: str, seen: frozenset[str]) -> frozenset[str]:
        for other in direct.get(role, ()):
            if other not in seen:
                seen = reach(other, seen | {other})
        return seen

    return {role: reach(role, frozenset({role})) for role in direct}


def _conditions(rule: Rule, tools: Mapping[str, ToolSpec]) -> Iterable[Finding]:
    if not rule.when:
        return
    fitting = [spec for name, spec in tools.items() if any_glob(name, rule.tools)]
    why = cannot_hold(rule.when, [spec.name for spec in fitting], rule.effects)
    if why:
        yield _error("never_true", rule, f"the condition can never be true: {why}", "correct it, or remove the rule")
    elif always_holds(rule.when):
        yield _warning("always_true", rule, "the condition is always true", "leave it out")
    if fitting and "args" in condition(rule.when).used:
        known = {name for spec in fitting for name in _properties(spec)}
        for name in sorted(set(_ARGUMENT.findall(rule.when)) - known):
            yield _error(
                "unknown_argument", rule, f"no tool it fits has an argument {name!r}", "use a name of the tool's schema"
            )


def _properties(spec: ToolSpec) -> Iterable[str]:
    found = spec.parameters.get("properties")
    return found if isinstance(found, dict) else ()


def _reach(rule: Rule, tools: Mapping[str, ToolSpec]) -> Iterable[Finding]:
    fitting = [spec for name, spec in tools.items() if any_glob(name, rule.tools)]
    if tools and fitting and not any(spec.effect in rule.effects for spec in fitting) and "*" not in rule.tools:
        names = ", ".join(sorted(spec.name for spec in fitting)[:5])
        yield _error(
            "unreachable", rule, f"the tools it fits ({names}) have none of its effects", "correct `tools` or `effects`"
        )
    if rule.verdict is Verdict.ALLOW and "*" in rule.roles and "*" in rule.tools and not rule.when:
        yield _warning("wide_open", rule, "it allows every tool to everybody", "name roles, tools or a condition")
    for pattern in rule.tools:
        if len(pattern) > 1 and pattern[0] in "*?":
            yield _warning(
                "loose_pattern", rule, f"{pattern!r} fits whatever a later tool is called before its end",
                "start the pattern with letters",
            )  # fmt: skip


class _Stricter:
    """Finds, for a rule, one that is decided first and covers every call it fits."""

    def __init__(self, rules: RuleSet, closure: Mapping[str, frozenset[str]]) -> None:
        self._closure = closure
        self._found: dict[tuple[str, str], list[Rule]] = {}
        """By condition, and by tool: a name, or what stands before a pattern's first wildcard and `*`."""
        for rule in sorted(rules.rules, key=strictness):
            for name in {_start(pattern) for pattern in rule.tools}:
                self._found.setdefault((rule.when, name), []).append(rule)

    def over(self, rule: Rule) -> Iterable[Finding]:
        """At most one finding: shadowed by a stricter rule, or the duplicate of one."""
        for text in {"", rule.when}:
            # Whoever covers the rule covers its first pattern: by that very name, or by a pattern that starts alike.
            literal = _start(rule.tools[0]).rstrip("*")
            for name in {rule.tools[0], *(literal[:n] + "*" for n in range(len(literal) + 1))}:
                for other in self._found.get((text, name), ()):
                    if strictness(other) >= strictness(rule):
                        break
                    if self._covers(other, rule):
                        yield _shadow(rule, other)
                        return

    def _covers(self, over: Rule, rule: Rule) -> bool:
        return (
            over.tenant in ("*", rule.tenant)
            and _patterns_cover(over.tools, rule.tools)
            and set(rule.effects) <= set(over.effects)
            and _patterns_cover(over.automations, rule.automations)
            and self._people_cover(over, rule)
        )

    def _people_cover(self, over: Rule, rule: Rule) -> bool:
        if "*" in over.roles:
            return True
        reached = all(not self._closure.get(role, frozenset({role})).isdisjoint(over.roles) for role in rule.roles)
        return reached and set(rule.subjects) <= set(over.subjects)


def _start(pattern: str) -> str:
    wild = _WILD.search(pattern)
    return pattern if wild is None else pattern[: wild.start()] + "*"


def _shadow(rule: Rule, other: Rule) -> Finding:
    if (rule.verdict, rule.approvers, rule.approval) == (other.verdict, other.approvers, other.approval):
        return _error("duplicate", rule, f"{other.id!r} says the same of all its calls", "remove one of the two")
    return _error(
        "shadowed", rule, f"{other.id!r} ({other.verdict.value}) decides every call it fits",
        "narrow that rule, or remove this one",
    )  # fmt: skip


def _patterns_cover(over: tuple[str, ...], patterns: tuple[str, ...]) -> bool:
    """Whether everything that fits one of `patterns` fits one of `over`. A `?` only covers itself."""
    return all(any(wide == p or ("?" not in wide and glob(p, wide)) for wide in over) for p in patterns)


def _error(kind: Kind, rule: Rule, problem: str, remedy: str) -> Finding:
    return Finding(level="error", kind=kind, rule=rule.id, problem=problem, remedy=remedy)


def _warning(kind: Kind, rule: Rule, problem: str, remedy: str) -> Finding:
    return Finding(level="warning", kind=kind, rule=rule.id, problem=problem, remedy=remedy)
