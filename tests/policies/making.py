"""Builds requests, rules and policies for the tests of the gate."""

from pathlib import Path

from pydantic import JsonValue

from policies.decision import Facts, GateRequest, Principal
from policies.rules import BUILT_IN, Rule, RuleSet, load_rules
from tools.contract import Effect

TOOLS = ("list_files", "read_file", "search_text", "run_python", "write_file", "delete_files", "http_request")
ROLES = (("admin", ("approver", "operator")), ("approver", ()), ("operator", ("viewer",)), ("viewer", ()))


def request(
    tool: str = "read_file",
    effect: str = "read",
    *,
    roles: tuple[str, ...] = ("operator",),
    tenant: str = "default",
    automation: str = "log-triage",
    arguments: dict[str, JsonValue] | None = None,
    facts: Facts | None = None,
) -> GateRequest:
    return GateRequest(
        principal=Principal(id="olga", tenant=tenant, roles=roles),
        automation=automation,
        tool=tool,
        effect=Effect(effect),
        arguments=arguments or {},
        facts=facts,
    )


def rule(id: str, verdict: str, **fields: object) -> Rule:  # noqa: A002
    return Rule.model_validate({"id": id, "roles": ["*"], "effects": list(Effect), "verdict": verdict} | fields)


def ruleset(*rules: Rule) -> RuleSet:
    return RuleSet(rules=rules, roles=ROLES)


def built_in(*more: Path) -> RuleSet:
    return load_rules([BUILT_IN, *more], TOOLS)
