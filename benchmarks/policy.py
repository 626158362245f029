"""How long the gate takes: one decision at 10 to 10,000 rules with the full model, beside plain Casbin, Cedar and Rego
on the same decisions; a reload of 10,000 rows and the decisions made meanwhile; a whole passage of the gate.

`python -m benchmarks.policy`; the last line is one JSON object: name, medians (µs unless the name says otherwise),
ratios, load. Informational on a shared machine: exit status 1 only for a wrong verdict.
"""

import gc
import json
import os
import random
import statistics
import sys
import threading
import time
from collections.abc import Callable, Sequence

from benchmarks._policy_peers import ROLES, WHEN, Peer, cedar, plain_casbin, rego
from policies.decision import ArgumentFact, Facts, GateRequest, Principal
from policies.engine import PolicyEngine
from policies.rules import Rule, RuleSet
from policies.snapshot import load_snapshot
from policies.taint import Trail
from tools.catalog import BUILT_IN, load_tools
from tools.contract import Effect, JsonObject, ToolCall
from workflows.schemas import problems

SIZES = (10, 100, 1_000, 10_000)
ASKED = 1_500


def make_rules(count: int) -> RuleSet:
    """The same mix at every size: a third of each verdict, tenants, roles, globs; half of the rows have a condition."""
    order = random.Random(count)
    conditions = list(WHEN)
    rows = [
        Rule.model_validate(
            {
                "id": f"r-{n}",
                "roles": [order.choice(["viewer", "operator", "admin"])],
                "tenant": order.choice(["*", f"tenant-{n % 20}"]),
                "tools": [order.choice([f"tool_{n // 8}_*", f"tool_{n // 8}_read", f"tool_{n // 8}_send"])],
                "effects": [order.choice(list(Effect)).value, "read"],
                "when": order.choice(conditions) if order.random() < 0.6 else "",
                "verdict": ("allow", "ask", "deny")[n % 3],
            }
        )
        for n in range(count)
    ]
    return RuleSet(rules=tuple(rows), roles=ROLES)


def make_requests(rules: RuleSet, count: int) -> list[GateRequest]:
    order = random.Random(7)
    asked: list[GateRequest] = []
    for _ in range(count):
        rule = order.choice(rules.rules)
        origin = order.choice(["operator", "own", "untrusted"])
        target = ArgumentFact.model_validate({"path": "path", "role": "target", "origin": origin})
        tenant = f"tenant-{order.randrange(20)}" if rule.tenant == "*" else rule.tenant
        asked.append(
            GateRequest(
                principal=Principal(id="bench", tenant=tenant, roles=(order.choice(["admin", "operator"]),)),
                automation="bench",
                tool=rule.tools[0].replace("*", "read"),
                effect=Effect.READ,
                arguments={"path": "in/app.log", "limit": order.randrange(100), "note": "x" * 200},
                facts=Facts(tainted=order.random() < 0.5, arguments=(target,), calls_made=order.randrange(40)),
            )
        )
    return asked


def timed(call: Callable[[GateRequest], object], asked: Sequence[GateRequest], rounds: int = 1) -> tuple[float, float]:
    """Median and 99th percentile in µs; of several rounds the quietest."""
    best = (float("inf"), float("inf"))
    for _ in range(rounds):
        times: list[float] = []
        gc.collect()
        gc.disable()
        for q in asked:
            started = time.perf_counter()
            call(q)
            times.append((time.perf_counter() - started) * 1e6)
        gc.enable()
        times.sort()
        best = min(best, (statistics.median(times), times[int(len(times) * 0.99)]))
    return best


def disagreements(engine: PolicyEngine, peer: Peer, asked: Sequence[GateRequest]) -> int:
    return sum(engine.decide(q).verdict.value != peer(q) for q in asked)


def compare(size: int, medians: dict[str, float], ratios: dict[str, float]) -> int:
    """One size; returns how many verdicts were wrong."""
    rules = make_rules(size)
    engine = PolicyEngine(rules)
    asked = make_requests(rules, ASKED)
    cold = timed(engine.decide, asked)
    p50, p99 = timed(engine.decide, asked, rounds=8)
    medians |= {f"decide_{size}": round(p50, 1), f"decide_{size}_p99": round(p99, 1)}
    medians[f"decide_{size}_new_caller"] = round(cold[0], 1)
    few = asked[: max(20, min(300, 200_000 // size))]
    wrong = sum(engine.decide(q) != engine.decide_over_all_rows(q) for q in few)
    line = f"{size:>6} rules: p50 {p50:7.1f} µs, p99 {p99:7.1f} µs, new caller {cold[0]:7.1f} µs, {wrong} wrong"
    for name, make in (("plain_casbin", plain_casbin), ("cedarpy", cedar), ("regopy", rego)):
        peer = make(rules.rules)
        differ = disagreements(engine, peer, few[:60]) if name != "plain_casbin" else 0
        theirs, _ = timed(peer, few)
        medians[f"{name}_{size}"] = round(theirs, 1)
        ratios[f"{name}_{size}_to_decide"] = round(theirs / p50, 1)
        line += f"; {name} {theirs:,.0f} µs ({theirs / p50:,.0f}x{f', {differ} differ' if differ else ''})"
        wrong += differ
    print(line, flush=True)
    return wrong


def reload(medians: dict[str, float]) -> int:
    """10,000 rows from the store's form to an engine in force, while another thread decides; wrong verdicts."""
    bodies = [make_rules(10_000).body, make_rules(9_999).body]
    current = load_snapshot(bodies[0])
    asked = make_requests(current.rules, 300)
    expected = {load_snapshot(b).version for b in bodies}
    alone, edited, known = list[float](), list[float](), current
    for n in range(7):
        started = time.perf_counter()
        load_snapshot(bodies[n % 2])
        alone.append((time.perf_counter() - started) * 1e3)
        started = time.perf_counter()
        load_snapshot(bodies[0], before=known)
        edited.append((time.perf_counter() - started) * 1e3)
    stop, waits, unknown = threading.Event(), list[float](), [0]

    def ask() -> None:
        order = random.Random(1)
        while not stop.is_set():
            q = order.choice(asked)
            started = time.perf_counter()
            unknown[0] += current.decide(q).policy_version not in expected
            waits.append((time.perf_counter() - started) * 1e3)

    asking = threading.Thread(target=ask)
    asking.start()
    for n in range(4):
        current = load_snapshot(bodies[n % 2])
    stop.set()
    asking.join()
    waits.sort()
    medians["reload_10000_ms"] = round(statistics.median(alone), 1)
    medians["reload_10000_best_ms"] = round(min(alone), 1)
    medians["reload_10000_same_rows_ms"] = round(statistics.median(edited), 1)
    medians["decide_while_reloading_p99_ms"] = round(waits[int(len(waits) * 0.99)], 2)
    print(
        f"reload of 10,000 rows: median {statistics.median(alone):.0f} ms, best {min(alone):.0f} ms, "
        f"of known rows {statistics.median(edited):.0f} ms; {len(waits):,} decisions meanwhile, "
        f"p50 {statistics.median(waits):.2f} ms, p99 {waits[int(len(waits) * 0.99)]:.2f} ms, longest {waits[-1]:.1f} ms"
    )
    return unknown[0]


def whole_gate(medians: dict[str, float]) -> None:
    """Validate the arguments, find where each value comes from in 100 kB of history, decide among 10,000 rules."""
    tool = load_tools([BUILT_IN])["write_file"].spec
    engine = PolicyEngine(make_rules(10_000))
    order = random.Random(3)
    trail = Trail(["Write the summary of in/app.log to out/report.md, for ticket 4711."], ())
    reader = load_tools([BUILT_IN])["read_file"].spec
    for n in range(50):
        lines = [
            f"{order.randrange(10**9):09} host-{order.randrange(500)} user{n}@example.com GET /item/{n}"
            for _ in range(40)
        ]
        trail.saw(reader, {"path": f"in/app.{n}.log"}, "\n".join(lines))
    who = Principal(id="bench", tenant="tenant-1", roles=("operator",))
    calls: list[JsonObject] = [
        {"path": f"out/{n}.md", "content": f"user{n % 50}@example.com, ticket 4711 " * 8} for n in range(200)
    ]

    def passage(arguments: JsonObject) -> object:
        problem = problems(tool.parameters, arguments, "arguments")
        facts = trail.facts(tool, ToolCall(id="c", tool=tool.name, arguments=arguments))
        return problem, engine.decide(
            GateRequest(
                principal=who, automation="bench", tool=tool.name, effect=tool.effect, arguments=arguments, facts=facts
            )
        )

    best = (float("inf"), float("inf"))
    for _ in range(5):
        times: list[float] = []
        for arguments in calls:
            started = time.perf_counter()
            passage(arguments)
            times.append((time.perf_counter() - started) * 1e6)
        times.sort()
        best = min(best, (statistics.median(times), times[int(len(times) * 0.99)]))
    medians |= {"whole_gate": round(best[0], 1), "whole_gate_p99": round(best[1], 1)}
    print(f"whole gate over 100 kB of history: p50 {best[0]:.0f} µs, p99 {best[1]:.0f} µs")


def main() -> int:
    medians: dict[str, float] = {}
    ratios: dict[str, float] = {}
    wrong = sum(compare(size, medians, ratios) for size in SIZES)
    wrong += reload(medians)
    whole_gate(medians)
    result = {"name": "policy", "medians": medians, "ratios": ratios, "wrong": wrong, "load": os.getloadavg()[0]}
    print(json.dumps(result))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
