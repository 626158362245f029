"""A policy as a rules file, whole: what `policy export` prints, and what a suggestion would make."""

import yaml
from pydantic import JsonValue
from typing_extensions import override

from policies.decision import Verdict
from policies.rules import Rule, RuleSet


class _Dumper(yaml.SafeDumper):
    """Without aliases, which the strict reader of rules files refuses."""

    @override
    def ignore_aliases(self, data: object) -> bool:
        return True


def as_yaml(rules: RuleSet) -> str:
    """One file that says all of the policy; loading it alone gives the same version."""
    whole: dict[str, JsonValue] = {"apiVersion": "gatehouse/v1"}
    if rules.roles:
        whole["roles"] = {name: list[JsonValue](inherited) for name, inherited in rules.roles}
    whole["rules"] = [_written(rule) for rule in rules.rules]
    if rules.rights:
        whole["rights"] = [right.model_dump(mode="json") for right in rules.rights]
    return yaml.dump(whole, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)


def _written(rule: Rule) -> JsonValue:
    """Only what differs from what a row says by itself."""
    fields: dict[str, JsonValue] = rule.model_dump(mode="json", exclude_defaults=True)
    if rule.verdict is Verdict.ALLOW:
        fields["effects"] = [effect.value for effect in rule.effects]
    return fields
