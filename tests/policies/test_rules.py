"""Rules files: what is wrong is said with file, line, field and remedy, and a policy is loaded whole or not at all."""

from pathlib import Path

import pytest

from policies.decision import Facts
from policies.engine import PolicyEngine
from policies.rules import BUILT_IN, RuleError, load_rules, rule_paths
from tests.policies.making import TOOLS, request

GOOD = """\
apiVersion: gatehouse/v1
rules:
  - id: own-rule
    roles: [operator]
    tools: [write_*]
    effects: [write]
    verdict: ask
    approvers: approver
    reason: Ours.
"""


def problem(tmp_path: Path, text: str) -> RuleError:
    file = tmp_path / "own.yaml"
    file.write_text(text)
    with pytest.raises(RuleError) as caught:
        load_rules([BUILT_IN, file], TOOLS)
    assert caught.value.file.endswith("own.yaml")
    assert caught.value.problem
    assert caught.value.remedy
    return caught.value


@pytest.mark.parametrize(
    ("old", "new", "line", "field", "says"),
    [
        ("verdict: ask", "verdict: allowed", 7, "rules.0.verdict", "'allow', 'ask' or 'deny'"),
        ("verdict: ask", "verdct: ask", 7, "rules.0.verdct", "did you mean 'verdict'?"),
        ("effects: [write]", "effects: [wirte]", 6, "rules.0.effects.0", "'read', 'write'"),
        ("tools: [write_*]", "tools: [wrte_file]", 5, "rules.0.tools.0", "did you mean 'write_file'?"),
        ("tools: [write_*]", "tools: [mail_*]", 5, "rules.0.tools.0", "fits no installed tool"),
        ("tools: [write_*]", "tools: ['write_[fg]ile']", 5, "rules.0.tools.0", "pattern"),
        ("tools: [write_*]", "tools: ['wrіte_file']", 5, "rules.0.tools.0", "pattern"),
        ("tools: [write_*]", "tools: []", 5, "rules.0.tools", "at least 1"),
        ("roles: [operator]", "roles: [operater]", 4, "rules.0.roles.0", "did you mean 'operator'?"),
        ("roles: [operator]", "roles: []", 3, "rules.0", "must name its `roles`"),
        ("reason: Ours.", "when: argz.x == 1", 9, "rules.0.when", "unknown variable 'argz'"),
        ("reason: Ours.", "when: tainted &&", 9, "rules.0.when", "syntax"),
        ("approvers: approver", "approvers: boss", 8, "rules.0.approvers", "unknown role 'boss'"),
        ("id: own-rule", "id: read-workspace", 3, "rules.0.id", "default.yaml"),
        ("id: own-rule", "id: default-deny", 3, "rules.0", "reserved"),
        ("id: own-rule", "id: Own Rule", 3, "rules.0.id", "pattern"),
        ("  - id: own-rule\n    roles", "  - roles", 3, "rules.0.id", "missing"),
        ("    verdict: ask\n", "", 3, "rules.0.verdict", "missing"),
        (
            "    effects: [write]\n    verdict: ask\n    approvers: approver\n",
            "    verdict: allow\n",
            3,
            "rules.0",
            "`effects`",
        ),
        ("verdict: ask", "verdict: deny", 3, "rules.0", "`approvers`"),
        ("gatehouse/v1", "gatehouse/v2", 1, "apiVersion", "gatehouse/v1"),
        ("reason: Ours.", "reason: 7", 9, "rules.0.reason", "quotes"),
        ("reason: Ours.", "reason: Ours.\n    reason: Theirs.", 10, "rules.0.reason", "given twice"),
        ("reason: Ours.", "reason: &a Ours.\n    tenant: *a", 9, "rules.0.tenant", "alias"),
        ("reason: Ours.", "reason: !!python/object:os.system x", 9, "rules.0.reason", "cannot read"),
        ("reason: Ours.", "reason: a: b", 9, "", "not valid YAML"),
        ("rules:", "roles: {lead: [leed]}\nrules:", 2, "roles.lead.0", "did you mean 'lead'?"),
        ("rules:", "roles: {operator: []}\nrules:", 2, "roles.operator", "declared twice"),
        ("rules:", "roles: {one: [two], two: [one]}\nrules:", 2, "roles.one", "inherits itself"),
    ],
)
def test_a_mistake_is_named(tmp_path: Path, old: str, new: str, line: int, field: str, says: str) -> None:
    assert old in GOOD
    error = problem(tmp_path, GOOD.replace(old, new, 1))
    assert (line, field) in [(p.line, p.field) for p in error.problems], str(error)
    assert says in str(error)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "empty"),
        ("# only a comment\n", "empty"),
        ("- a\n- b\n", "not a mapping"),
        ("apiVersion: gatehouse/v1\n", "holds no"),
        ("apiVersion: gatehouse/v1\nrules: []\n", "holds no"),
        ("apiVersion: gatehouse/v1\nrules:\n", "valid"),
        ("a: b\n---\nc: d\n", "not valid YAML"),
        ("\x00", "not valid YAML"),
        ("[" * 5000, "not valid YAML"),
        ("a: " + "[" * 60 + "]" * 60, "nested too deeply"),
    ],
)
def test_a_file_that_says_nothing_is_an_error(tmp_path: Path, text: str, says: str) -> None:
    assert says in str(problem(tmp_path, text))


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_bytes(b"\xff\xfe\x00")
    for path in (tmp_path / "own.yaml", tmp_path / "missing.yaml"):
        with pytest.raises(RuleError, match=r"cannot be read") as caught:
            load_rules([BUILT_IN, path], TOOLS)
        assert caught.value.file == str(path)


def test_every_mistake_of_a_file_is_told_at_once(tmp_path: Path) -> None:
    error = problem(tmp_path, GOOD.replace("verdict: ask", "verdict: no").replace("id: own-rule", "id: X"))
    assert [p.line for p in error.problems] == [3, 7]


def test_no_rule_at_all(tmp_path: Path) -> None:
    with pytest.raises(RuleError, match="no rule at all"):
        load_rules([tmp_path], TOOLS)


def test_one_broken_file_loads_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(GOOD)
    (tmp_path / "b.yaml").write_text(GOOD.replace("verdict: ask", "verdict: maybe"))
    with pytest.raises(RuleError, match=r"b\.yaml:7"):
        load_rules([BUILT_IN, tmp_path], TOOLS)


def test_rules_of_the_user_are_added_and_the_strictest_still_wins(tmp_path: Path) -> None:
    (tmp_path / "rules").mkdir()
    (tmp_path / "rules" / "own.yml").write_text(
        GOOD
        + """\
  - {id: loosen, roles: ["*"], tools: delete_files, effects: destructive, verdict: allow}
"""
    )
    engine = PolicyEngine(load_rules(rule_paths(tmp_path), TOOLS))
    assert engine.decide(request("write_file", "write", facts=Facts(lasting=False))).rule == "own-rule"
    assert engine.decide(request("delete_files", "destructive")).rule == "destructive-needs-approval"
    assert engine.decide(request("read_file", "read")).rule == "read-workspace"
    assert engine.version != PolicyEngine(load_rules(rule_paths(None), TOOLS)).version


def test_a_role_of_the_user_inherits_and_approves(tmp_path: Path) -> None:
    (tmp_path / "rules").mkdir()
    (tmp_path / "rules" / "own.yaml").write_text(
        GOOD.replace("approvers: approver", "approvers: sre-lead").replace(
            "rules:", "roles: {sre-lead: [operator, approver]}\nrules:"
        )
    )
    engine = PolicyEngine(load_rules(rule_paths(tmp_path), TOOLS))
    assert engine.decide(request("write_file", "write", roles=("sre-lead",))).approvers == "sre-lead"
    assert engine.decide(request("read_file", "read", roles=("sre-lead",))).verdict == "allow"


def test_words_that_yaml_would_bend_stay_words(tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    file.write_text(GOOD.replace("reason: Ours.", "reason: on").replace("id: own-rule", "id: no"))
    rules = {r.id: r for r in load_rules([BUILT_IN, file], TOOLS).rules}
    assert rules["no"].reason == "on"


def test_an_empty_folder_of_the_user_is_the_built_in_policy(tmp_path: Path) -> None:
    assert rule_paths(tmp_path) == [BUILT_IN]
    (tmp_path / "rules").mkdir()
    assert load_rules(rule_paths(tmp_path), TOOLS) == load_rules([BUILT_IN], TOOLS)
