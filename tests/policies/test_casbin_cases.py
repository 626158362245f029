"""Casbin's own recorded requests, answered alike wherever our model can say the same; where it cannot, why not.

Each Casbin model and policy becomes rules: a subject is a subject or a role, an object and an action are arguments that
conditions look at. The cases lie beside the repository; without them there is nothing to check.
"""

import csv
import json
import re
from collections import defaultdict
from pathlib import Path
from typing import Any, cast

import pytest

from policies.decision import GateRequest, Principal, Verdict
from policies.engine import PolicyEngine
from policies.rules import Rule, RuleSet
from tools.contract import Effect

DATA = Path(__file__).parents[3] / "shared" / "evals" / "casbin_cases" / "enforce.json"

BY_ORDER = "the first row of the file wins: here the strictest verdict does, whatever the order"
BY_CLOCK = "a role is held for a time: here the clock is a condition of the rule, not of the role"
OTHERWISE = {
    "priority_model.conf": BY_ORDER,
    "priority_model_explicit.conf": BY_ORDER,
    "subject_priority_model.conf": BY_ORDER,
    "subject_priority_model_with_domain.conf": BY_ORDER,
    "rbac_with_temporal_roles_model.conf": BY_CLOCK,
    "rbac_with_domain_temporal_roles_model.conf": BY_CLOCK,
    "rbac_with_not_deny_model.conf": "allows what no row denies: here no row is a deny",
    "ipmatch_model.conf": "compares addresses: conditions have no such function",
    "multiple_policy_definitions_model.conf": "two matchers, chosen by the caller",
    "rbac_with_domain_pattern_model.conf": "a role is granted for a pattern of tenants: a principal is of one",
}
"""Model -> why our model says something else, on purpose."""

Case = dict[str, Any]


def cases() -> list[Case]:
    if not DATA.is_file():
        return []
    return json.loads(DATA.read_text())["cases"]


def files() -> dict[str, str]:
    return json.loads(DATA.read_text())["files"]


EXPRESSIBLE = [case for case in cases() if case["model"] not in OTHERWISE]


@pytest.mark.skipif(not EXPRESSIBLE, reason="the recorded cases are not beside the repository")
@pytest.mark.parametrize("case", EXPRESSIBLE, ids=lambda c: f"{c['model']}-{c['request']}")
def test_answered_alike(case: Case) -> None:
    rules, links = translated(case["model"], case["policy"])
    decision = PolicyEngine(rules).decide(asked(case, links))
    assert (decision.verdict is Verdict.ALLOW) is case["expected"], decision
    assert decision.rule not in ("gate-fault", "malformed-request")


@pytest.mark.skipif(not EXPRESSIBLE, reason="the recorded cases are not beside the repository")
def test_every_model_is_translated_or_explained() -> None:
    models = {case["model"] for case in cases()}
    assert models >= OTHERWISE.keys()
    assert len(EXPRESSIBLE) > 100


Links = dict[tuple[str, str], list[str]]
"""(Member, tenant) -> roles it was given there; tenant `default` where the model has none."""


def translated(model: str, policy: str | None) -> tuple[RuleSet, Links]:
    text = files()[policy] if policy else ""
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    rows = [[cell.strip() for cell in row] for row in csv.reader(lines)]
    columns = declared(files()[model])
    links: Links = defaultdict(list)
    groups: dict[str, list[str]] = defaultdict(list)
    for row in rows:
        if row[0] == "g":
            links[row[1], row[3] if len(row) > 3 else "default"].append(role_name(row[2]))
        elif row[0] == "g2":
            groups[row[2]].append(row[1])
    holders = {role for given in links.values() for role in given}
    rules = [rule_of(n, dict(zip(columns, row[1:], strict=False)), model, holders, groups)
             for n, row in enumerate(rows) if row[0] == "p"]  # fmt: skip
    rules += extra(model)
    roles = {name: tuple(sorted(set(links.get((name.replace("-", "_"), "default"), [])))) for name in holders}
    return RuleSet(rules=tuple(rules), roles=tuple(sorted(roles.items()))), links


def declared(model: str) -> list[str]:
    found = re.search(r"^p\s*=\s*(.*)$", model, re.MULTILINE)
    assert found
    return [column.strip() for column in found[1].split(",")]


def rule_of(n: int, row: dict[str, str], model: str, holders: set[str], groups: dict[str, list[str]]) -> Rule:
    subject = row.get("sub")
    who: Case = {"roles": ["*"]} if subject is None else {"subjects": [subject]}
    if subject is not None and role_name(subject) in holders:
        who["roles"] = [role_name(subject)]
    by_pattern = "regexMatch(r.act" in files()[model]
    conditions = [anchored("act", row["act"], end=False) if by_pattern else f"args.act == {quoted(row['act'])}"]
    if "obj" in row:
        names = [row["obj"], *groups[row["obj"]]]
        conditions.append("(" + " || ".join(object_is(name, model) for name in names) + ")")
    rules = [row[column] for column in ("sub_rule", "sub_rule2") if column in row]
    conditions += [rule.replace("r.sub.", "args.sub.").replace('""', '"').strip() for rule in rules]
    verdict = "deny" if row.get("eft") == "deny" else "allow"
    return Rule.model_validate(
        {"id": f"row-{n}", "tenant": row.get("dom", "*"), "effects": ["read"], "verdict": verdict,
         "when": " && ".join(conditions), **who}
    )  # fmt: skip


def extra(model: str) -> list[Rule]:
    """What a matcher says besides its rows."""
    base = {"id": "matcher", "effects": ["read"], "verdict": "allow"}
    more: dict[str, Case] = {
        "basic_with_root_model.conf": {"subjects": ["root"]},
        "rbac_model_matcher_using_in_op_bracket.conf": {"roles": ["*"], "when": "args.obj in ['data2', 'data3']"},
        "abac_model.conf": {"roles": ["*"], "when": "principal.id == args.obj.Owner"},
    }
    return [Rule.model_validate(base | more[model])] if model in more else []


def object_is(name: str, model: str) -> str:
    text = files()[model]
    if "keyMatch(" in text or "globMatch(" in text:
        pattern = re.sub(r"\[!", "[^", name).replace("?", "[^/]").replace("*", ".*" if "keyMatch(" in text else "[^/]*")
        return anchored("obj", pattern)
    if "keyMatch2(" in text or re.search(r"/:|\{", name):
        return anchored("obj", re.sub(r":\w+|\{\w+\}", "[^/]+", name))
    return f"args.obj == {quoted(name)}"


def anchored(argument: str, pattern: str, *, end: bool = True) -> str:
    return f"re(args.{argument}, {quoted(f'^(?:{pattern})' + ('$' if end else ''))})"


def quoted(text: str) -> str:
    return json.dumps(text)


def role_name(name: str) -> str:
    return name.replace("_", "-")


def asked(case: Case, links: Links) -> GateRequest:
    names = re.search(r"^r\s*=\s*(.*)$", files()[case["model"]], re.MULTILINE)
    assert names
    given = [plain(value) for value in case["request"]]
    request: Case = dict(zip([name.strip() for name in names[1].split(",")], given, strict=True))
    subject, tenant = request.get("sub", "anybody"), str(request.get("dom", "default"))
    who = subject if isinstance(subject, str) else "somebody"
    arguments: Case = {name: request[name] for name in ("obj", "act") if name in request} | {"sub": subject}
    asker = Principal(id=who, tenant=tenant, roles=tuple(links.get((who, tenant), ())))
    return GateRequest(
        principal=asker, automation="recorded", tool="thing", effect=Effect.READ, arguments=arguments
    )  # fmt: skip


def plain(value: Any) -> Any:
    """Recorded objects and dicts as what they hold."""
    return next(iter(cast("Case", value).values())) if isinstance(value, dict) else value
