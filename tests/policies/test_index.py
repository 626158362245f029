# pyright: reportPrivateUsage=false
"""The index only narrows: indexed, full Casbin and a plain reading of the rules agree, across threads and reloads."""

import gc
import random
import threading
import weakref

from hypothesis import given, settings
from hypothesis import strategies as st

from policies.condition import Question, condition
from policies.decision import ArgumentFact, Facts, GateRequest, Principal, Verdict
from policies.engine import PolicyEngine
from policies.expression import ExpressionError
from policies.rules import Rule, RuleSet
from policies.snapshot import load_snapshot
from tests.policies.making import ROLES, request
from tools.contract import Effect

TENANTS = ("default", "acme", "other")
AUTOMATIONS = ("log-triage", "log-rotate", "disk-cleanup")
TOOLS = ("read_file", "read_files", "read", "write_file", "delete_files", "mail_send", "x")
WHEN = (
    "", "", "", "tainted", "!tainted && args.n > 2", "args.missing == 1", "worst.target == 'untrusted'",
    "re(args.path, '^in/')", "run.calls > 3 || effect == 'send'", "has(args.n) && args.n == 3",
    "principal.id == 'olga'",
)  # fmt: skip
GLOBS = ("*", "read*", "read_*", "*_file", "read_file", "?ead_file", "delete_*", "x", "*e*", "mail_send", "write_?ile")
STRICTNESS = {Verdict.DENY: 0, Verdict.ASK: 1, Verdict.ALLOW: 2}


def make_rules(order: random.Random, count: int) -> RuleSet:
    def some(options: tuple[str, ...], most: int = 2) -> list[str]:
        return order.sample(options, order.randint(1, most))

    rows = [
        Rule.model_validate(
            {
                "id": f"r-{n}",
                "roles": some(("*", "viewer", "operator", "approver", "admin")) if order.random() < 0.9 else [],
                "subjects": ["olga"] if order.random() < 0.1 else ["petra"],
                "tenant": order.choice(("*", *TENANTS)),
                "automations": some(("*", "log-*", *AUTOMATIONS)),
                "tools": some(GLOBS),
                "effects": some(tuple(Effect), 3),
                "when": order.choice(WHEN),
                "verdict": order.choice(("allow", "ask", "deny")),
            }
        )
        for n in range(count)
    ]
    return RuleSet(rules=tuple(rows), roles=ROLES)


def make_request(order: random.Random) -> GateRequest:
    origin = order.choice(("operator", "own", "untrusted"))
    facts = Facts(
        tainted=order.random() < 0.5,
        calls_made=order.randrange(8),
        arguments=(ArgumentFact.model_validate({"path": "path", "role": "target", "origin": origin}),),
    )
    asked = request(
        order.choice(TOOLS),
        order.choice(list(Effect)).value,
        roles=tuple(order.sample(("viewer", "operator", "approver", "admin", "unknown"), order.randrange(3))),
        tenant=order.choice(TENANTS),
        automation=order.choice(AUTOMATIONS),
        arguments={"path": order.choice(("in/a", "out/b")), "n": order.randrange(5)},
    )
    who = asked.principal.model_copy(update={"id": order.choice(("olga", "petra", "ben"))})
    return asked.model_copy(update={"principal": who, "facts": order.choice((facts, facts, None))})


def fits(name: str, pattern: str) -> bool:
    """Globs by recursion, as one would say it; nothing in common with the real one."""
    if not pattern:
        return not name
    if pattern[0] == "*":
        return fits(name, pattern[1:]) or (bool(name) and fits(name[1:], pattern))
    return bool(name) and pattern[0] in ("?", name[0]) and fits(name[1:], pattern[1:])


INHERITS = {
    "admin": {"approver", "operator", "viewer"},
    "operator": {"viewer"},
    "approver": set[str](),
    "viewer": set[str](),
}


def plain_reading(rules: RuleSet, asked: GateRequest) -> tuple[Verdict, set[str]]:
    """The verdict, and the rules that may be named for it."""
    who = asked.principal
    held = {"*"}.union(*({r} | INHERITS.get(r, set()) for r in who.roles))
    matching: list[Rule] = []
    for rule in rules.rules:
        if not (held & set(rule.roles) or who.id in rule.subjects):
            continue
        if rule.tenant not in ("*", who.tenant) or asked.effect not in rule.effects:
            continue
        if not any(fits(asked.tool, g) for g in rule.tools) or not any(
            fits(asked.automation, g) for g in rule.automations
        ):
            continue
        try:
            holds = not rule.when or condition(rule.when).holds_for(Question(asked, "default", 2))
        except ExpressionError:
            holds = rule.verdict is not Verdict.ALLOW
        if holds:
            matching.append(rule)
    verdict = min((r.verdict for r in matching), key=STRICTNESS.__getitem__, default=Verdict.DENY)
    return verdict, {r.id for r in matching if r.verdict is verdict} or {"default-deny"}


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32), count=st.integers(0, 40))
def test_indexed_full_and_plain_reading_agree(seed: int, count: int) -> None:
    order = random.Random(seed)
    engine = PolicyEngine(make_rules(order, count))
    for _ in range(25):
        asked = make_request(order)
        decision = engine.decide(asked)
        assert decision == engine.decide_over_all_rows(asked)
        verdict, named = plain_reading(engine.rules, asked)
        assert decision.verdict is verdict
        assert decision.rule in named


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_candidates_are_the_rows_that_fit_and_the_sentinel(seed: int) -> None:
    order = random.Random(seed)
    engine = PolicyEngine(make_rules(order, 60))
    asked = make_request(order)
    held, rows = engine._callers.narrow(
        asked.principal.roles, None, asked.principal.tenant, asked.automation, asked.tool, asked.effect.value
    )
    names = [str(row[-1]) for row in rows]
    everything = [str(row[-1]) for row in engine._rows]
    assert names[-1] == "sentinel"
    assert names == [name for name in everything if name in names], "in the policy's order"
    unconditional = RuleSet(
        rules=tuple(r.model_copy(update={"when": "", "subjects": ()}) for r in engine.rules.rules if r.roles),
        roles=ROLES,
    )
    verdict, named = plain_reading(unconditional, asked)
    assert "*" in held
    assert named == {"default-deny"} or named <= set(names), verdict


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_a_deny_row_never_allows_more_and_order_is_nothing(seed: int) -> None:
    order = random.Random(seed)
    rules = make_rules(order, 15)
    deny = make_rules(order, 1).rules[0].model_copy(update={"id": "extra", "verdict": Verdict.DENY})
    shuffled = RuleSet(rules=tuple(order.sample(rules.rules, len(rules.rules))), roles=ROLES)
    engines = (
        PolicyEngine(rules),
        PolicyEngine(RuleSet(rules=(*rules.rules, deny), roles=ROLES)),
        PolicyEngine(shuffled),
    )
    for _ in range(10):
        asked = make_request(order)
        before, after, again = (engine.decide(asked) for engine in engines)
        assert STRICTNESS[after.verdict] <= STRICTNESS[before.verdict]
        assert again == before


def test_8_threads_while_the_policy_is_reloaded() -> None:
    """Each decision is the one its own snapshot gives; snapshots are swapped all the while."""
    order = random.Random(4)
    snapshots = [PolicyEngine(make_rules(random.Random(n), 200)) for n in range(3)]
    asked = [make_request(order) for _ in range(60)]
    expected = {e.version: [e.decide_over_all_rows(q) for q in asked] for e in snapshots}
    current, stop = [snapshots[0]], threading.Event()
    wrong: list[object] = []
    counts = [0] * 8

    def work(n: int) -> None:
        mine = random.Random(n)
        while not stop.is_set():
            for _ in range(50):
                at, engine = mine.randrange(len(asked)), current[0]
                counts[n] += 1
                if engine.decide(asked[at]) != expected[engine.version][at]:
                    wrong.append(asked[at])

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    reloads = 0
    while reloads < 30 or sum(counts) < 20_000:
        current[0] = load_snapshot(snapshots[reloads % 3].rules.body, before=current[0])
        reloads += 1
    stop.set()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_the_index_forgets_no_more_than_it_may_keep() -> None:
    engine = PolicyEngine(make_rules(random.Random(1), 10))
    for n in range(20_000):
        engine._narrowed((), None, "default", "log-triage", f"tool_{n}", "read")
    assert engine._narrowed.cache_info().currsize <= engine._narrowed.cache_info().maxsize  # type: ignore[operator]


def test_an_engine_is_freed_without_the_garbage_collector() -> None:
    engine = load_snapshot(make_rules(random.Random(1), 20).body)
    engine.decide(make_request(random.Random(2)))
    gone, rows = weakref.ref(engine), weakref.ref(engine._rows)
    gc.disable()
    try:
        del engine
        assert gone() is None
        assert rows() is None
    finally:
        gc.enable()


def test_a_body_is_the_whole_policy() -> None:
    rules = make_rules(random.Random(9), 50)
    again = RuleSet.from_body(rules.body)
    assert again.body == rules.body
    assert PolicyEngine(again).version == PolicyEngine(rules).version
    assert PolicyEngine(RuleSet.from_body(RuleSet().body)).decide(request()).verdict is Verdict.DENY
    asker = Principal(id="olga", roles=("admin",))
    assert PolicyEngine(again).roles_of(asker) == PolicyEngine(rules).roles_of(asker)
