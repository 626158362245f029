"""What an author of rules is told: lint, the case table, explain, diff."""

from pathlib import Path

import pytest

from policies.decision import Facts
from policies.diff import diff
from policies.engine import PolicyEngine
from policies.explain import conjuncts, explain
from policies.lint import Finding, lint
from policies.rules import Rule
from policies.satisfiable import cannot_hold
from policies.source import parse_document
from policies.testing import CaseError, cases_of, read_cases, run_cases
from tests.policies.making import built_in, request, rule, ruleset
from tools.catalog import BUILT_IN, load_tools
from tools.contract import Effect

SPECS = {name: tool.spec for name, tool in load_tools([BUILT_IN]).items()}
EFFECTS = {name: spec.effect for name, spec in SPECS.items()}


def found(*rules: Rule) -> list[tuple[str, str]]:
    return [(f.rule, f.kind) for f in lint(ruleset(*rules), SPECS)]


def test_the_built_in_policy_has_no_errors() -> None:
    errors: list[Finding] = [f for f in lint(built_in(), SPECS) if f.level == "error"]
    assert errors == []


def test_shadowed_and_duplicate_rows() -> None:
    deny = rule("a", "deny", tools=["delete_*"])
    assert found(deny, rule("b", "allow", tools=["delete_files"])) == [("b", "shadowed")]
    assert found(deny, rule("b", "deny", tools=["delete_files"])) == [("b", "duplicate")]
    assert found(deny, rule("b", "allow", tools=["read_file"])) == []
    assert found(deny.model_copy(update={"when": "tainted"}), rule("b", "allow", tools=["delete_files"])) == []
    assert found(rule("a", "ask", roles=["viewer"]), rule("b", "allow", roles=["admin"])) == [("b", "shadowed")]
    assert found(rule("a", "ask", roles=["admin"]), rule("b", "allow", roles=["viewer"])) == []
    assert found(rule("a", "deny", tenant="acme"), rule("b", "ask")) == []
    assert found(rule("a", "deny", tools=["delete_?iles"]), rule("b", "ask", tools=["delete_*"])) == []


@pytest.mark.parametrize(
    "when",
    [
        "effect == 'wirte'", "worst.target == 'untrustworthy'", "worst.tarket == 'own'", "hour > 24", "weekday == 0",
        "tainted && !tainted", "args.path == 'x' && tainted && !tainted", "args.limit > 5 && args.limit < 3",
        "args.limit == 3 && args.limit == 4", "tool == 'no_such_tool'", "hour < 8 && hour > 18", "false",
    ],
)  # fmt: skip
def test_conditions_that_cannot_be_true(when: str) -> None:
    assert ("a", "never_true") in found(rule("a", "deny", when=when))


@pytest.mark.parametrize(
    "when",
    [
        "effect == 'write'", "worst.target == 'untrusted' && tainted", "hour >= 18 || hour < 8",
        "args.limit > 3 && args.limit < 5",
        "args.limit >= 3 && args.limit <= 3", "tool == 'read_file'", "tainted || !tainted", "size(args.paths) > 5",
    ],
)  # fmt: skip
def test_conditions_that_may_be_true(when: str) -> None:
    assert cannot_hold(when, list(SPECS), list(Effect)) is None


def test_other_findings() -> None:
    assert found(rule("a", "deny", when="1 == 1")) == [("a", "always_true")]
    assert found(rule("a", "deny", tools=["read_file"], when="args.pth == 'x'")) == [("a", "unknown_argument")]
    assert found(rule("a", "deny", tools=["read_file"], effects=["send"])) == [("a", "unreachable")]
    assert found(rule("a", "allow")) == [("a", "wide_open")]
    assert found(rule("a", "deny", tools=["*_file"])) == [("a", "loose_pattern")]


TABLE = """
- {tool: read_file, arguments: {path: in/a}, verdict: allow, rule: read}
- {name: tainted, tool: read_file, facts: {tainted: true}, verdict: ask, rule: careful}
- {tool: delete_files, verdict: deny}
"""


def test_a_table_of_cases_passes_only_when_every_rule_is_hit() -> None:
    rows = rule("read", "allow", tools=["read_file"]), rule("careful", "ask", when="tainted", effects=["read"])
    table = TABLE.replace("{path: in/a}", "{path: in/a}, facts: {tainted: false}")
    cases = cases_of(parse_document(table, "cases.yaml", CaseError))
    assert cases[1][0] == "cases.yaml:3"
    report = run_cases(PolicyEngine(ruleset(*rows)), cases, EFFECTS)
    assert (report.passed, report.unhit) == (True, ())
    unhit = run_cases(PolicyEngine(ruleset(*rows, rule("more", "deny", tools=["write_file"]))), cases, EFFECTS)
    assert (unhit.passed, unhit.unhit) == (False, ("more",))
    wrong = run_cases(PolicyEngine(ruleset(rows[0])), cases, EFFECTS)
    assert [r.passed for r in wrong.results] == [True, False, True]


def test_a_mistake_in_a_table_is_named(tmp_path: Path) -> None:
    file = tmp_path / "cases.yaml"
    file.write_text(TABLE.replace("verdict: deny", "verdct: deny"))
    with pytest.raises(CaseError, match=r"cases\.yaml:4: .*verdct.*unknown field") as caught:
        read_cases(file)
    assert "did you mean 'verdict'" in str(caught.value)


def test_explain_names_what_matched_and_what_nearly_did() -> None:
    rows = (
        rule("b-allow", "allow", tools=["read_*"]),
        rule("a-ask", "ask", when="tainted && args.n > 3"),
        rule("near-tool", "deny", tools=["write_file"]),
        rule("far", "deny", tools=["write_file"], tenant="acme"),
        rule("unsure", "allow", when="args.nope == 1"),
    )
    asked = request(arguments={"n": 2}).model_copy(update={"facts": Facts(tainted=True)})
    told = explain(PolicyEngine(ruleset(*rows)), asked)
    assert told.decision.rule == "b-allow"
    assert [(r.rule, r.standing) for r in told.rows] == [
        ("b-allow", "decides"), ("near-tool", "nearly"), ("a-ask", "nearly"), ("unsure", "nearly"),
    ]  # fmt: skip
    assert told.rows[1].missed == "the tool does not fit write_file"
    assert [(c.text, c.holds) for c in told.rows[2].condition] == [("tainted", True), ("args.n > 3", False)]
    assert told.rows[3].condition[0].problem
    assert explain(PolicyEngine(ruleset(*rows)), request("bad name")).rows == ()


def test_conjuncts() -> None:
    assert conjuncts("a && (b && c) && 'x && y' == d") == ["a", "(b && c)", "'x && y' == d"]
    assert conjuncts("a && b || c") == ["a && b || c"]
    assert conjuncts("") == []


def test_diff_names_rows_fields_and_verdicts() -> None:
    before = PolicyEngine(
        ruleset(rule("a", "allow", tools=["read_*"], effects=["read"]), rule("gone", "deny", tools=["x"]))
    )
    after = PolicyEngine(
        ruleset(rule("a", "ask", tools=["read_*"], effects=["read"]), rule("new", "deny", tools=["write_file"]))
    )
    seen = diff(before, after, SPECS)
    assert (seen.added, seen.removed) == (("new",), ("gone",))
    assert [(c.id, [f.field for f in c.fields]) for c in seen.changed] == [("a", ["verdict"])]
    assert {(v.tool, v.before, v.after) for v in seen.verdicts} == {("read_file", "allow by a", "ask by a")}
    assert diff(before, before, SPECS).empty
