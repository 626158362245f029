"""The same rules and the same questions for plain Casbin, Cedar and Rego, each set up as its documentation advises.

Every peer is a function from a request to a verdict, so that the benchmark can hold its answers against ours.
"""

import importlib
import json
from collections.abc import Callable, Sequence
from typing import Any

import casbin

from policies.decision import Facts, GateRequest, Verdict
from policies.rules import Rule

Peer = Callable[[GateRequest], str]

WHEN = {
    "": ("true", "true"),
    "tainted": ("context.tainted", "input.tainted"),
    "worst.target == 'untrusted'": ('context.target == "untrusted"', 'input.target == "untrusted"'),
    "args.limit > 50": ("context.limit > 50", "input.limit > 50"),
    "run.calls > 20": ("context.calls > 20", "input.calls > 20"),
}
"""Our condition -> the same in Cedar and in Rego."""

ROLES = (("admin", ("operator",)), ("operator", ("viewer",)), ("viewer", ()))
_HELD = {"admin": ["admin", "operator", "viewer"], "operator": ["operator", "viewer"], "viewer": ["viewer"]}

CASBIN = """
[request_definition]
r = sub, dom, obj, act
[policy_definition]
p = sub, dom, obj, act, eft
[role_definition]
g = _, _
[policy_effect]
e = some(where (p.eft == allow)) && !some(where (p.eft == deny))
[matchers]
m = g(r.sub, p.sub) && (p.dom == "*" || r.dom == p.dom) && keyMatch(r.obj, p.obj) && r.act == p.act
"""


def plain_casbin(rules: Sequence[Rule]) -> Peer:
    """A model in text, rows by the API, one enforce: without conditions, and asks count as allows."""
    model = casbin.Model()
    model.load_model_from_text(CASBIN)  # pyright: ignore[reportUnknownMemberType]
    enforcer: Any = casbin.Enforcer(model)
    rows = [
        [r.roles[0], r.tenant, r.tools[0], effect.value, "deny" if r.verdict is Verdict.DENY else "allow"]
        for r in rules
        for effect in r.effects
    ]
    # The list itself: adding 10,000 rows by the API takes seconds.
    enforcer.model["p"]["p"].policy.extend(rows)
    for role, inherited in ROLES:
        for other in inherited:
            enforcer.add_grouping_policy(role, other)
    enforcer.logger.disabled = True

    def enforce(q: GateRequest) -> str:
        allowed = enforcer.enforce(q.principal.roles[0], q.principal.tenant, q.tool, q.effect.value)
        return "allow" if allowed else "deny"

    return enforce


def cedar(rules: Sequence[Rule]) -> Peer:
    """One parsed policy set and one entity graph, kept. A permit that is an ask says so by its name."""
    cedarpy: Any = importlib.import_module("cedarpy")  # untyped
    policies = cedarpy.PolicySet.from_str("\n".join(_cedar_policy(r) for r in rules))
    entities = cedarpy.Entities.from_json_str(
        json.dumps(
            [
                {"uid": {"type": "Role", "id": role}, "attrs": {},
                 "parents": [{"type": "Role", "id": other} for other in inherited]}
                for role, inherited in ROLES
            ]
        )
    )  # fmt: skip

    def ask(q: GateRequest) -> str:
        facts = q.facts or Facts()
        found = cedarpy.is_authorized(
            {
                "principal": {"type": "Role", "id": q.principal.roles[0]},
                "action": {"type": "Action", "id": q.effect.value},
                "resource": {"type": "Tool", "id": "t"},
                "context": {
                    "tenant": q.principal.tenant, "tool": q.tool, "tainted": facts.tainted,
                    "target": facts.worst["target"], "limit": q.arguments["limit"], "calls": facts.calls_made,
                },
            },
            policies, entities,
        )  # fmt: skip
        if not found.allowed:
            return "deny"
        asks = any(name.startswith("ask") for name in found.diagnostics.id_annotations_by_reason.values() if name)
        return "ask" if asks else "allow"

    return ask


def _cedar_policy(rule: Rule) -> str:
    effect = "forbid" if rule.verdict is Verdict.DENY else "permit"
    actions = ", ".join(f'Action::"{e.value}"' for e in rule.effects)
    tenant = "" if rule.tenant == "*" else f' && context.tenant == "{rule.tenant}"'
    return (
        f'@id("{rule.verdict.value}-{rule.id}") {effect} (principal in Role::"{rule.roles[0]}", '
        f"action in [{actions}], resource) when "
        f'{{ context.tool like "{rule.tools[0]}"{tenant} && {WHEN[rule.when][0]} }};'
    )


_REGO = """package gate
import rego.v1
rows contains r if { some role in input.roles; some t in [input.tenant, "*"]; some r in data.index[t][role]; fits(r) }
fits(r) if { r.exact == input.tool; input.effect in r.effects; holds(r.when) }
fits(r) if { r.prefix != ""; startswith(input.tool, r.prefix); input.effect in r.effects; holds(r.when) }
%s
verdicts contains r.verdict if { some r in rows }
default verdict := "deny"
verdict := "ask" if { not "deny" in verdicts; "ask" in verdicts }
verdict := "allow" if { not "deny" in verdicts; not "ask" in verdicts; "allow" in verdicts }
"""


def rego(rules: Sequence[Rule]) -> Peer:
    """Rows as data, indexed by tenant and role; a compiled bundle, kept."""
    regopy: Any = importlib.import_module("regopy")  # untyped
    index: dict[str, dict[str, list[dict[str, object]]]] = {}
    kinds = list(WHEN)
    for r in rules:
        pattern = r.tools[0]
        row: dict[str, object] = {
            "exact": "" if pattern.endswith("*") else pattern, "prefix": pattern[:-1] if pattern.endswith("*") else "",
            "effects": [e.value for e in r.effects], "when": kinds.index(r.when), "verdict": r.verdict.value,
            "id": r.id,
        }  # fmt: skip
        index.setdefault(r.tenant, {}).setdefault(r.roles[0], []).append(row)
    holds = "\n".join(f"holds(n) if {{ n == {n}; {WHEN[text][1]} }}" for n, text in enumerate(kinds))
    builder = regopy.Interpreter()
    builder.add_data({"index": index})
    builder.add_module("gate.rego", _REGO % holds)
    bundle = builder.build("v = data.gate.verdict")
    runner = regopy.Interpreter()

    def ask(q: GateRequest) -> str:
        facts = q.facts or Facts()
        runner.set_input(
            {
                "roles": _HELD[q.principal.roles[0]], "tenant": q.principal.tenant, "tool": q.tool,
                "effect": q.effect.value, "tainted": facts.tainted, "target": facts.worst["target"],
                "limit": q.arguments["limit"], "calls": facts.calls_made,
            }
        )  # fmt: skip
        output = runner.query_bundle(bundle)  # kept: its nodes are freed with it
        return str(output.binding("v")).strip('"')

    return ask
