"""Two policies side by side: which rows differ in what, and for which calls the verdict would be another.

The calls are made up from the rows that differ: each tool, role and effect they fit, clean and tainted. So the verdict
changes are examples, complete over rows without conditions on arguments; `policies.simulate` asks about real calls.
"""

from collections.abc import Iterable, Iterator, Mapping

from pydantic import JsonValue

from policies.decision import ORIGINS, ArgumentFact, Facts, GateRequest, Principal
from policies.engine import PolicyEngine
from policies.glob import any_glob
from policies.rules import Rule, RuleSet
from tools.contract import ROLES, Effect, ToolSpec, Wire

MOST_CALLS = 20_000
"""Made-up calls tried at most; beyond it the list of verdict changes says that it is cut."""


class FieldChange(Wire):
    """One field of one row, before and after."""

    field: str
    before: JsonValue
    after: JsonValue


class RowChange(Wire):
    """A row that both policies have, with other content."""

    id: str
    fields: tuple[FieldChange, ...]


class VerdictChange(Wire):
    """A kind of call that would be decided otherwise."""

    tool: str
    effect: Effect
    roles: tuple[str, ...]
    tenant: str
    automation: str
    tainted: bool
    before: str
    """Verdict and rule: `ask by send-needs-approval`."""
    after: str


class PolicyDiff(Wire):
    """What differs. Empty when the two policies say the same in the same words."""

    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    changed: tuple[RowChange, ...] = ()
    roles: tuple[str, ...] = ()
    """Roles that were added, removed, or inherit others than before."""
    verdicts: tuple[VerdictChange, ...] = ()
    cut: bool = False
    """More calls would have to be tried than were."""

    @property
    def empty(self) -> bool:
        """No row and no role differs."""
        return not (self.added or self.removed or self.changed or self.roles)


def diff(before: PolicyEngine, after: PolicyEngine, tools: Mapping[str, ToolSpec]) -> PolicyDiff:
    """Rows by id, roles, and the verdicts of made-up calls. `tools`: what is installed, by name."""
    rows = _row_diff(before.rules, after.rules)
    touched = [*_touched(before.rules, rows), *_touched(after.rules, rows)]
    if rows.roles:
        touched = [*before.rules.rules, *after.rules.rules]
    changes: list[VerdictChange] = []
    seen: set[tuple[object, ...]] = set()
    for tried, request in enumerate(_calls(touched, tools)):
        if tried >= MOST_CALLS:
            return rows.model_copy(update={"verdicts": tuple(changes), "cut": True})
        old, new = before.decide(request), after.decide(request)
        if (old.verdict, old.demands) == (new.verdict, new.demands):
            continue
        facts = request.facts
        change = VerdictChange(
            tool=request.tool, effect=request.effect, roles=request.principal.roles, tenant=request.principal.tenant,
            automation=request.automation, tainted=facts is not None and facts.tainted,
            before=f"{old.verdict.value} by {old.rule}", after=f"{new.verdict.value} by {new.rule}",
        )  # fmt: skip
        if (key := tuple(change.model_dump().values())) not in seen:
            seen.add(key)
            changes.append(change)
    return rows.model_copy(update={"verdicts": tuple(changes)})


def _row_diff(before: RuleSet, after: RuleSet) -> PolicyDiff:
    old = {row.id: row.model_dump(mode="json") for row in (*before.rules, *before.rights)}
    new = {row.id: row.model_dump(mode="json") for row in (*after.rules, *after.rights)}
    changed = [
        RowChange(id=name, fields=tuple(_fields(old[name], new[name])))
        for name in sorted(old.keys() & new.keys())
        if old[name] != new[name]
    ]
    # Merged files may name what a role inherits in another order than one file does.
    roles = {name for name, _ in _hierarchy(before) ^ _hierarchy(after)}
    return PolicyDiff(
        added=tuple(sorted(new.keys() - old.keys())), removed=tuple(sorted(old.keys() - new.keys())),
        changed=tuple(changed), roles=tuple(sorted(roles)),
    )  # fmt: skip


def _hierarchy(rules: RuleSet) -> set[tuple[str, frozenset[str]]]:
    return {(name, frozenset(inherited)) for name, inherited in rules.roles}


def _fields(old: Mapping[str, JsonValue], new: Mapping[str, JsonValue]) -> Iterator[FieldChange]:
    for name in sorted(old.keys() | new.keys()):
        if old.get(name) != new.get(name):
            yield FieldChange(field=name, before=old.get(name), after=new.get(name))


def _touched(rules: RuleSet, rows: PolicyDiff) -> list[Rule]:
    names = {*rows.added, *rows.removed, *(c.id for c in rows.changed)}
    return [rule for rule in rules.rules if rule.id in names]


def _calls(rules: Iterable[Rule], tools: Mapping[str, ToolSpec]) -> Iterator[GateRequest]:
    """Calls that fit the rows: each installed tool with its effect; a made-up one for a pattern without any."""
    for rule in rules:
        fitting = [(name, spec.effect) for name, spec in tools.items() if any_glob(name, rule.tools)]
        fitting = [(name, effect) for name, effect in fitting if effect in rule.effects]
        if not fitting:
            fitting = [(_example(pattern), effect) for pattern in rule.tools for effect in rule.effects]
        tenant = "default" if rule.tenant == "*" else rule.tenant
        who = [("somebody", (role,)) for role in rule.roles if role != "*"]
        who += [("somebody", ())] if "*" in rule.roles else []
        who += [(subject, ()) for subject in rule.subjects]
        for name, effect in fitting:
            for principal, roles in who:
                for automation in map(_example, rule.automations):
                    asker = Principal(id=principal, tenant=tenant, roles=roles)
                    for facts in _facts():
                        yield GateRequest(
                            principal=asker, automation=automation.replace("_", "-"), tool=name, effect=effect,
                            arguments={}, facts=facts,
                        )  # fmt: skip


def _example(pattern: str) -> str:
    """A name that fits the pattern."""
    name = pattern.replace("*", "x").replace("?", "x")
    return name if name[:1].isalpha() else f"x{name[1:]}" if pattern[:1] == "*" else name


def _facts() -> tuple[Facts, ...]:
    """A clean run whose values are all the operator's, and a tainted one whose values are not."""

    def of(tainted: bool, origin: int) -> Facts:
        given = tuple(
            ArgumentFact.model_validate({"path": role, "role": role, "origin": ORIGINS[origin]}) for role in ROLES
        )
        return Facts(tainted=tainted, arguments=given)

    return of(False, 0), of(True, 0), of(True, ORIGINS.index("untrusted"))
