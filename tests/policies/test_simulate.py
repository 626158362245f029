"""Replaying: only what is wholly on record is asked again; the rest is counted, with the reason."""

from pydantic import JsonValue

from policies.decision import Facts
from policies.engine import PolicyEngine
from policies.simulate import Recorded, recorded, simulate
from tests.policies.making import request, rule, ruleset

DECIDED: JsonValue = {"verdict": "ask", "rule": "old", "policy_version": "0" * 64}


def record(**changes: JsonValue) -> Recorded:
    asked = request("write_file", "write", arguments={"path": "out/a"})
    question: dict[str, JsonValue] = {
        "principal": asked.principal.model_dump(mode="json"), "automation": asked.automation, "effect": "write",
        "arguments": asked.arguments, "exact": True, "facts": Facts(tainted=False).model_dump(mode="json"),
    }  # fmt: skip
    body: dict[str, JsonValue] = {"tool": "write_file", "call_id": "c", "digest": "d", "decision": DECIDED}
    return recorded("default", "run_1", body | {"request": question | changes})


def test_the_recorded_question_is_asked_again() -> None:
    clean = PolicyEngine(ruleset(rule("new", "allow", when="!tainted && args.path == 'out/a'")))
    found = simulate([record(), record(facts=None)], clean)
    assert (found.replayed, found.changed) == (2, 2)
    assert {(c.after, c.after_rule, c.looser) for c in found.changes} == {
        ("allow", "new", True), ("deny", "default-deny", False),
    }  # fmt: skip


def test_what_was_redacted_is_only_replayed_where_no_condition_looks_at_it() -> None:
    records = [record(arguments={"path": "[redacted]"}, exact=False), record(arguments=None, exact=False)]
    blind = PolicyEngine(ruleset(rule("new", "allow", when="!tainted")))
    assert simulate(records, blind).replayed == 2
    looking = PolicyEngine(ruleset(rule("new", "allow", when="args.path == 'out/a'"), rule("x", "deny", tools=["x"])))
    found = simulate(records, looking)
    assert found.replayed == 0
    assert list(found.not_replayable.values()) == [2]
    elsewhere = PolicyEngine(ruleset(rule("new", "allow", tools=["read_file"], when="args.path == 'out/a'")))
    assert simulate(records, elsewhere).replayed == 2, "the condition is of a row that cannot match"


def test_a_question_that_cannot_be_read_is_counted() -> None:
    found = simulate([record(effect="nonsense")], PolicyEngine(ruleset()))
    assert found.not_replayable == {"the recorded question cannot be read": 1}
