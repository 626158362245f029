"""Conditions of rows: what they see, what is refused, and that an error restricts and never allows."""

from datetime import UTC, datetime

import pytest
from pydantic import JsonValue

from policies.condition import VARIABLES, condition
from policies.decision import ArgumentFact, Decision, Facts, GateRequest, Verdict
from policies.engine import PolicyEngine
from policies.expression import ExpressionError
from tests.policies.making import request, rule, ruleset

FACTS = Facts(
    tainted=False, lasting=False, calls_made=4, calls_of_tool=2, budget_left_usd=1.5,
    now=datetime(2026, 11, 22, 13, 5, tzinfo=UTC),
    arguments=(
        ArgumentFact(path="path", role="target", origin="untrusted"),
        ArgumentFact(path="other", role="target", origin="operator"),
        ArgumentFact(path="text", role="content", origin="own"),
    ),
)  # fmt: skip


def asked(facts: Facts | None = FACTS, **arguments: JsonValue) -> GateRequest:
    return request(arguments={"path": "in/a.log", "n": 3, **arguments}).model_copy(update={"facts": facts})


def decide(when: str, verdict: str, asking: GateRequest) -> Decision:
    return PolicyEngine(ruleset(rule("r", verdict, when=when))).decide(asking)


@pytest.mark.parametrize(
    "text",
    [
        "args.path == 'in/a.log' && args.n < 4",
        "has(args.path) && !has(args.nope)",
        "re(args.path, '^in/[a-z]+[.]log$')",
        "effect == 'read' && tool == 'read_file' && tenant == 'default' && automation == 'log-triage'",
        "principal.id == 'olga' && principal.kind == 'person' && 'operator' in principal.roles",
        "environment == 'staging'",
        "now > timestamp('2026-01-01T00:00:00Z') && hour == 13 && weekday == 7",
        "run.calls == 4 && run.calls_of_tool == 2 && run.budget_left_usd > 1.0",
        "!tainted && !lasting && unlisted_target",
        "origins['path'] == 'untrusted' && origins.text == 'own'",
        "worst.target == 'untrusted' && worst.content == 'own' && worst.handle == 'operator'",
        "principal.roles.exists(r, r.startsWith('oper'))",
    ],
)
def test_what_a_condition_sees(text: str) -> None:
    engine = PolicyEngine(ruleset(rule("r", "allow", when=text)), environment="staging")
    decision = engine.decide(asked(FACTS.model_copy(update={"unlisted_target": True})))
    assert (decision.verdict, decision.rule) == (Verdict.ALLOW, "r"), decision.reason
    assert condition(f"!({text})").used == condition(text).used <= VARIABLES.keys()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("args.path.matches('x')", "matches"),
        ("args.list.map(x, x)[0]", "map"),
        ("args.list.filter(x, x).size() > 0", "filter"),
        ("args.a.exists(x, args.b.exists(y, x == y))", "more than one"),
        ("argz.path == 'x'", "unknown variable 'argz'"),
        ("open('/etc/passwd')", "unknown function 'open'"),
        ("args.__class__.x()", "unknown function"),
        ("tainted and lasting", "syntax"),
        ("tainted" + " || tainted" * 100, "longer"),
        ("(" * 60 + "tainted" + ")" * 60, "nested deeper"),
        ("(" * 100_000, "longer"),
    ],
)
def test_what_a_condition_may_not_say(text: str, says: str) -> None:
    with pytest.raises(ExpressionError, match=says.replace("(", r"\(")):
        condition(text)
    with pytest.raises(ValueError, match="when"):
        rule("r", "deny", when=text)


@pytest.mark.parametrize(
    "text",
    [
        "args.nope == 'x'", "args.n > 'x'", "args.path", "args.n / 0 == 1", "origins['nope'] == 'own'",
        "re(args.n, 'x')", "re(args.path, '(')", "worst.nope == 'own'", "size(args.n) > 1",
    ],
)  # fmt: skip
def test_an_error_restricts_and_says_so(text: str) -> None:
    for verdict, expected in (("deny", ("deny", "r")), ("ask", ("ask", "r")), ("allow", ("deny", "default-deny"))):
        decision = decide(text, verdict, asked())
        assert (decision.verdict.value, decision.rule) == expected
        assert "condition of rule r could not be evaluated" in decision.reason


def test_missing_facts_are_the_most_distrustful() -> None:
    distrustful = "tainted && lasting && run.calls > 1000000 && run.budget_left_usd == 0.0 && worst.target == 'unknown'"
    assert decide(distrustful, "allow", asked(None)).verdict is Verdict.ALLOW
    for needs_time in ("hour >= 0", "weekday >= 0", "now > timestamp('2000-01-01T00:00:00Z')"):
        assert decide(needs_time, "allow", asked(None)).verdict is Verdict.DENY
        assert decide(needs_time, "deny", asked(None)).rule == "r"


def test_a_time_without_a_zone_is_no_time() -> None:
    naive = FACTS.model_copy(update={"now": datetime(2026, 11, 22, 13, 5)})  # noqa: DTZ001
    assert decide("hour >= 0", "allow", asked(naive)).verdict is Verdict.DENY


def test_too_many_arguments_cannot_be_looked_through() -> None:
    many: list[JsonValue] = [1] * 30_000
    assert decide("args.all.exists(x, x == 2)", "deny", asked(all=many)).rule == "r"
    assert decide("size(args.all) > 1", "allow", asked(all=many)).rule == "default-deny"


def test_a_condition_that_panics_restricts(monkeypatch: pytest.MonkeyPatch) -> None:
    class PanicException(BaseException):
        pass

    class Panics:
        def execute(self, _: object) -> object:
            raise PanicException

    for verdict, expected in (("deny", "r"), ("allow", "default-deny")):
        engine = PolicyEngine(ruleset(rule("r", verdict, when="tainted || lasting")))
        monkeypatch.setattr(condition("tainted || lasting"), "_program", Panics())
        decision = engine.decide(asked())
        assert (decision.verdict, decision.rule) == (Verdict.DENY, expected)
        assert "gave up" in decision.reason


def test_an_integer_no_condition_could_see_is_refused() -> None:
    assert decide("args.big > 0", "allow", asked(big=2**63)).rule == "malformed-request"


def test_edited_arguments_are_judged_as_new() -> None:
    engine = PolicyEngine(ruleset(rule("small", "allow", when="args.n <= 10"), rule("big", "ask", when="args.n > 10")))
    assert engine.decide(asked(n=5)).rule == "small"
    assert engine.decide(asked(n=50)).rule == "big"
    assert engine.decide(asked(n=5)) == PolicyEngine(engine.rules).decide(asked(n=5))


def test_subjects_match_by_id() -> None:
    engine = PolicyEngine(
        ruleset(rule("hers", "allow", roles=[], subjects=["olga"]), rule("x", "ask", roles=["admin"]))
    )
    assert engine.decide(asked()).rule == "hers"
    other = asked().model_copy(update={"principal": asked().principal.model_copy(update={"id": "оlga"})})
    assert engine.decide(other).rule == "default-deny", "a look-alike is somebody else"
    with pytest.raises(ValueError, match="subjects"):
        rule("r", "deny", roles=[], subjects=["оlga"])
