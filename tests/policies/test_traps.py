# pyright: reportPrivateUsage=false, reportMissingTypeStubs=false, reportUnknownMemberType=false
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false, reportAttributeAccessIssue=false, reportOptionalSubscript=false
# casbin ships no types, and here it is used as anybody would use it first.
"""Each trap of a plain Casbin set-up: the naive use falls into it, the gate does not.

A test whose first half stops failing to protect says that casbin changed: then the guard may be reconsidered.
"""

import threading
import time

import casbin
import pytest
from casbin.core_enforcer import EnforceContext
from casbin.util import glob_match, key_match

from policies.decision import Principal, Verdict
from policies.engine import SENTINEL, PolicyEngine
from policies.fallback import ExpressionError, expression
from policies.glob import glob
from policies.rules import Rule
from tests.policies.making import request, rule, ruleset

BASIC = """
[request_definition]
r = sub, obj
[policy_definition]
p = sub, obj, eft
[policy_effect]
e = {effect}
[matchers]
m = {matcher}
"""
DENY_OVERRIDE = "some(where (p.eft == allow)) && !some(where (p.eft == deny))"


def naive(
    matcher: str, effect: str = "some(where (p.eft == allow))", rows: list[list[str]] | None = None
) -> casbin.Enforcer:
    model = casbin.Model()
    model.load_model_from_text(BASIC.format(effect=effect, matcher=matcher))
    enforcer = casbin.Enforcer(model)
    for row in rows or []:
        enforcer.add_policy(*row)
    return enforcer


def test_1_empty_policy_fails_open() -> None:
    assert naive('r.obj != "secret"').enforce("mallory", "anything") is True
    ours = PolicyEngine(ruleset())
    assert ours.decide(request()).rule == "default-deny"
    assert ours._gate.model["p"]["p"].policy == [SENTINEL], "the sentinel keeps the policy from ever being empty"


def test_1_without_the_sentinel_a_matcher_error_is_still_a_deny() -> None:
    ours = PolicyEngine(ruleset())
    ours._gate.model["p"]["p"].policy.clear()
    ours._callers._index.candidates = lambda *_: ()  # type: ignore[method-assign]
    assert ours.decide(request()).verdict is Verdict.DENY


def test_2_eval_injection_grants_to_everybody() -> None:
    injected = "False) or (True"
    enforcer = naive("eval(p.sub) && r.obj == p.obj", rows=[[injected, "data", "allow"]])
    assert enforcer.enforce("mallory", "data") is True
    # No row of ours is ever evaluated as code: a row's fields are patterns and words, and nothing else is accepted.
    for field in ("tools", "automations", "roles", "tenant"):
        with pytest.raises(ValueError, match=r"pattern|Input should"):
            rule("a", "allow", **{field: injected})
    with pytest.raises(ValueError, match="when"):
        rule("a", "allow", when=injected)
    assert "eval" not in PolicyEngine(ruleset())._gate.model["m"]["m"].value


def test_3_operators_inside_text_are_rewritten() -> None:
    enforcer = naive(
        "eval(p.sub) && r.obj == p.obj", DENY_OVERRIDE, [['r.sub == "a&&b"', "data", "deny"], ["True", "data", "allow"]]
    )
    assert enforcer.enforce("a&&b", "data") is True, "the deny row silently does not fire"
    assert expression('failure == "a&&b!"', frozenset({"failure"})).holds({"failure": "a&&b!"})
    for word in ("a&&b", "hi!", "p.sub", "r.example.com", "x || y", "!"):
        ours = PolicyEngine(ruleset(rule("a", "allow"), rule("b", "deny", when=f"args.word == '{word}'")))
        assert ours.decide(request(arguments={"word": word})).rule == "b"
        assert ours.decide(request(arguments={"word": word + "x"})).rule == "a"


def test_4_the_matcher_calls_methods_of_request_objects() -> None:
    class Context:
        wiped = False

        def wipe(self) -> bool:
            self.wiped = True
            return True

    context = Context()
    naive("r.sub.wipe() && r.obj == p.obj", rows=[["x", "data", "allow"]]).enforce(context, "data")
    assert context.wiped
    # What we pass is text and sets of text; the arguments of a call do not reach casbin at all.
    seen: list[object] = []
    ours = PolicyEngine(ruleset(rule("a", "allow")))
    ours._gate.enforce_ex = lambda *values: (seen.extend(values), (False, []))[1]  # type: ignore[method-assign]
    ours.decide(request(arguments={"path": "x"}))
    assert {type(value) for value in seen} == {str, frozenset}


def test_5_a_pattern_takes_for_ever() -> None:
    naive_pattern, text = r"(a+)+$", "a" * 25 + "!"
    started = time.thread_time()
    casbin.util.regex_match(text, naive_pattern)
    slow = time.thread_time() - started
    started = time.thread_time()
    assert not glob("a" * 48 + "!", "*a" * 24 + "*b")
    assert not expression("re(failure, '(a+)+$')", frozenset({"failure"})).holds({"failure": "a" * 10_000 + "!"})
    assert time.thread_time() - started < slow, "quadratic at worst, on a thousand times the text"


def test_6_unknown_effect_is_ignored() -> None:
    rows = [["alice", "data", "Deny"], ["alice", "data", "allow"]]
    assert naive("r.sub == p.sub && r.obj == p.obj", DENY_OVERRIDE, rows).enforce("alice", "data") is True
    for verdict in ("Deny", "approve", "DENY", "", None):
        with pytest.raises(ValueError, match="verdict"):
            Rule.model_validate({"id": "a", "roles": ["*"], "verdict": verdict})


def test_7_one_broken_row_poisons_the_decision() -> None:
    enforcer = naive(
        "eval(p.sub) && r.obj == p.obj", rows=[["r.nothing.x", "data", "allow"], ["True", "data", "allow"]]
    )
    with pytest.raises(Exception, match="nothing"):
        enforcer.enforce("alice", "data")
    ours = PolicyEngine(ruleset(rule("a", "allow"), rule("b", "allow", tenant="acme")))
    ours._gate.model["p"]["p"].policy[0][1] = 7
    assert ours.decide(request()).rule == "gate-fault", "a deny, with a name, and no exception"
    broken = rule("broken", "allow", when="args.nothing.x == 1"), rule("fine", "allow")
    assert PolicyEngine(ruleset(*broken)).decide(request()).rule == "fine", "a condition that errs spoils no other row"


def test_8_an_enforce_context_ignores_its_effect() -> None:
    text = BASIC.format(effect="some(where (p.eft == allow))", matcher="r.sub == p.sub && r.obj == p.obj")
    text = text.replace("[matchers]", f"e2 = {DENY_OVERRIDE}\n[matchers]")
    model = casbin.Model()
    model.load_model_from_text(text)
    enforcer = casbin.Enforcer(model)
    enforcer.add_policies([["alice", "data", "allow"], ["alice", "data", "deny"]])
    context = EnforceContext("r", "p", "e2", "m")
    assert enforcer.enforce(context, "alice", "data") is True, "deny-override asked for and not applied"
    ours = PolicyEngine(ruleset())
    assert ours._gate is not ours._rights
    assert set(ours._gate.model["e"]) == set(ours._rights.model["e"]) == {"e"}


def test_9_added_rows_are_not_sorted_by_priority() -> None:
    text = BASIC.format(effect="priority(p.eft) || deny", matcher="r.sub == p.sub && r.obj == p.obj")
    model = casbin.Model()
    model.load_model_from_text(text.replace("p = sub", "p = priority, sub"))
    enforcer = casbin.Enforcer(model)
    for row in (["10", "alice", "data", "allow"], ["1", "alice", "data", "deny"]):
        enforcer.add_policy(*row)
    assert enforcer.enforce("alice", "data") is True, "the deny of priority 1 came second"
    for rows in ([rule("b", "allow"), rule("a", "deny")], [rule("a", "deny"), rule("b", "allow")]):
        policy = PolicyEngine(ruleset(*rows))._gate.model["p"]["p"].policy
        assert [row[-1] for row in policy] == ["a", "b", "sentinel"]


def test_10_key_match_stops_at_the_first_star() -> None:
    assert key_match("fs/delete", "*/read") is True
    assert not glob("fs_delete", "*_read")
    assert glob("fs_read", "*_read")


def test_11_glob_match_misses_dotfiles() -> None:
    assert glob_match("/ws/.env", "/ws/*") is False, "a deny on the folder misses the file"
    assert glob(".env", "*")
    assert glob("/ws/.env", "/ws/*")


def test_12_unknown_names_grow_the_role_manager() -> None:
    text = BASIC.format(effect="some(where (p.eft == allow))", matcher="g(r.sub, p.sub) && r.obj == p.obj")
    model = casbin.Model()
    model.load_model_from_text(text.replace("[policy_effect]", "[role_definition]\ng = _, _\n[policy_effect]"))
    enforcer = casbin.Enforcer(model)
    enforcer.add_policy("admin", "data", "allow")
    enforcer.add_grouping_policy("alice", "admin")
    for n in range(300):
        enforcer.enforce(f"stranger-{n}", "data")
    assert len(enforcer.rm_map["g"].all_roles) > 300, "each stranger is kept for good"
    ours = PolicyEngine(ruleset(rule("a", "ask", roles=["operator"])))
    ours_manager = ours._gate.model["g"]["g"].rm
    before = len(ours_manager.all_roles)
    for n in range(500):
        ours.decide(request(roles=(f"stranger-{n}",), tenant=f"tenant-{n}"))
        ours.may(Principal(id="x", roles=(f"stranger-{n}",), tenant=f"tenant-{n}"), "runs", "read")
    assert len(ours_manager.all_roles) == before


def test_13_threads_do_not_see_each_others_request() -> None:
    ours = PolicyEngine(ruleset(rule("a", "allow", tools=["read_*"]), rule("b", "ask", tools=["delete_*"])))
    wrong: list[object] = []

    def work(tool: str, expected: str) -> None:
        wrong.extend(tool for _ in range(1500) if ours.decide(request(tool)).rule != expected)

    jobs = [("read_file", "a"), ("delete_files", "b"), ("write_file", "default-deny")] * 2
    threads = [threading.Thread(target=work, args=job) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_15_a_matcher_that_gives_an_integer_raises() -> None:
    enforcer = naive("r.sub == p.sub && 1", rows=[["alice", "data", "allow"]])
    with pytest.raises(RuntimeError, match="matcher result"):
        enforcer.enforce("alice", "data")


def test_expression_that_panics_is_an_error_of_ours() -> None:
    for text in ("(" * 100_000 + "1" + ")" * 100_000, "(" * 400 + "1" + ")" * 400):
        with pytest.raises(ExpressionError):
            expression(text, frozenset())
