"""How long the gate takes for one decision, beside plain Casbin on as many rows, in the same run. Informational.

`python -m benchmarks.gate`; the last line is one JSON object: name, medians (µs), ratios, load.
"""

import json
import os
import random
import statistics
import time
from collections.abc import Callable

import casbin

from policies.decision import GateRequest, Principal
from policies.engine import PolicyEngine
from policies.rules import Rule, RuleSet
from tools.contract import Effect

SIZES = (10, 100, 1000)
ROLES = (("admin", ("operator",)), ("operator", ("viewer",)), ("viewer", ()))
PLAIN = """
[request_definition]
r = sub, dom, obj, act
[policy_definition]
p = sub, dom, obj, act, eft
[role_definition]
g = _, _
[policy_effect]
e = some(where (p.eft == allow)) && !some(where (p.eft == deny))
[matchers]
m = g(r.sub, p.sub) && (p.dom == "*" || r.dom == p.dom) && keyMatch(r.obj, p.obj) && r.act == p.act
"""


def rows(count: int) -> list[Rule]:
    """The same mix at every size: a third of each verdict, tenants, globs; one request in two finds a row."""
    order = random.Random(count)
    verdicts = ["allow", "ask", "deny"]
    return [
        Rule.model_validate(
            {
                "id": f"r-{n}",
                "roles": [order.choice(["viewer", "operator", "admin"])],
                "tenant": order.choice(["*", f"tenant-{n % 20}"]),
                "tools": [order.choice([f"tool_{n}_*", f"tool_{n}", f"tool_{n}_read"])],
                "effects": [order.choice(list(Effect))],
                "verdict": verdicts[n % 3],
            }
        )
        for n in range(count)
    ]


def requests(rules: list[Rule], count: int) -> list[GateRequest]:
    order = random.Random(7)
    asked: list[GateRequest] = []
    for _ in range(count):
        rule = order.choice(rules)
        tool = rule.tools[0].replace("*", "x") if order.random() < 0.5 else f"other_{order.randrange(1000)}"
        asked.append(
            GateRequest(
                principal=Principal(id="bench", tenant=f"tenant-{order.randrange(20)}", roles=("admin",)),
                automation="bench",
                tool=tool,
                effect=rule.effects[0],
                arguments={"path": "in/app.log", "limit": 100},
            )
        )
    return asked


def plain(rules: list[Rule]) -> Callable[[GateRequest], object]:
    """Casbin as its documentation starts: a model in text, rows by the API, one enforce."""
    model = casbin.Model()
    model.load_model_from_text(PLAIN)  # pyright: ignore[reportUnknownMemberType]
    enforcer = casbin.Enforcer(model)
    for r in rules:
        eft = "deny" if r.verdict == "deny" else "allow"
        enforcer.add_policy(r.roles[0], r.tenant, r.tools[0], r.effects[0].value, eft)  # pyright: ignore[reportUnknownMemberType]
    for role, inherited in ROLES:
        for other in inherited:
            enforcer.add_grouping_policy(role, other)  # pyright: ignore[reportUnknownMemberType]

    def enforce(q: GateRequest) -> object:
        return enforcer.enforce(q.principal.roles[0], q.principal.tenant, q.tool, q.effect.value)  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]

    return enforce


def median_us(call: Callable[[GateRequest], object], asked: list[GateRequest]) -> tuple[float, float]:
    """Median and 99th percentile in µs."""
    for q in asked[:5]:
        call(q)
    times: list[float] = []
    for q in asked:
        started = time.perf_counter()
        call(q)
        times.append((time.perf_counter() - started) * 1e6)
    times.sort()
    return statistics.median(times), times[int(len(times) * 0.99)]


def main() -> None:
    medians: dict[str, float] = {}
    ratios: dict[str, float] = {}
    for size in SIZES:
        rules = rows(size)
        started = time.perf_counter()
        engine = PolicyEngine(RuleSet(rules=tuple(rules), roles=ROLES))
        compiled_ms = (time.perf_counter() - started) * 1e3
        asked = requests(rules, max(60, 6000 // size))
        ours, slowest = median_us(engine.decide, asked)
        theirs, _ = median_us(plain(rules), asked)
        medians |= {f"decide_{size}_us": round(ours, 1), f"plain_casbin_{size}_us": round(theirs, 1)}
        ratios[f"decide_{size}_to_plain_casbin"] = round(ours / theirs, 3)
        print(
            f"{size:>5} rules: {ours:9.1f} µs (p99 {slowest:.1f}); plain {theirs:9.1f} µs; compile {compiled_ms:.1f} ms"
        )
    print(json.dumps({"name": "gate", "medians": medians, "ratios": ratios, "load": os.getloadavg()[0]}))


if __name__ == "__main__":
    main()
