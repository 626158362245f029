"""Can a condition ever hold? Tried out, not proved: what only looks at closed vocabularies is tried with every value,
and comparisons of one argument with numbers are held against each other. "Cannot hold" is always right; the opposite is
not promised.
"""

import itertools
import re
from collections.abc import Collection, Iterator
from functools import lru_cache

from policies.condition import Condition, Question
from policies.decision import ORIGINS, ArgumentFact, Facts, GateRequest, Principal
from policies.explain import conjuncts
from policies.expression import ExpressionError
from tools.contract import ROLES, Effect

MOST_TRIED = 20_000

_CLOSED = frozenset({"effect", "tainted", "lasting", "unlisted_target", "worst", "hour", "weekday", "tool"})
_WORST = re.compile(r"\bworst\s*(?:\.\s*(\w+)|\[\s*['\"](\w+)['\"]\s*\])")
_BOUND = re.compile(r"\s*([A-Za-z_][\w.]*)\s*(<=|>=|==|<|>)\s*(-?\d+(?:\.\d+)?)\s*")


def cannot_hold(text: str, tools: Collection[str], effects: Collection[Effect]) -> str | None:
    """Why the condition can never be true for calls of these tools and effects; None when it may be."""
    return _cannot_hold(text, tuple(sorted(tools)), tuple(sorted(effects)))


@lru_cache(maxsize=4096)
def _cannot_hold(text: str, tools: tuple[str, ...], effects: tuple[Effect, ...]) -> str | None:
    parts = conjuncts(text)
    closed: list[str] = []
    for part in parts:
        used = Condition(part).used
        if used <= _CLOSED:
            closed.append(part)
    if closed and (tried := _try_all(closed, tools, effects)):
        return tried
    return _empty_interval(parts)


def always_holds(text: str) -> bool:
    """Whether the condition reads nothing and is true: then it says nothing."""
    found = Condition(text)
    return not found.used and _holds(found, next(_questions(frozenset(), (), ("any",), (Effect.READ,))))


def _try_all(parts: list[str], tools: Collection[str], effects: Collection[Effect]) -> str | None:
    conditions = [Condition(part) for part in parts]
    used = frozenset[str]().union(*(c.used for c in conditions))
    named = {a or b for part in parts for a, b in _WORST.findall(part)}
    if strange := sorted(named - set(ROLES)):
        return f"`worst` has no {strange[0]!r}: the roles are {', '.join(ROLES)}"
    roles = sorted(named) if named else list(ROLES) if "worst" in used else []
    names = sorted(tools) if "tool" in used and tools else ["any"]
    for tried, question in enumerate(_questions(used, tuple(roles), names, effects)):
        if tried >= MOST_TRIED or all(_holds(c, question) for c in conditions):
            return None
    return f"`{' && '.join(parts)}` is false for every value it can see"


def _questions(
    used: frozenset[str], roles: tuple[str, ...], tools: Collection[str], effects: Collection[Effect]
) -> Iterator[Question]:
    def either(name: str) -> tuple[bool, ...]:
        return (False, True) if name in used else (True,)

    hours = range(24) if "hour" in used else (12,)
    days = range(1, 8) if "weekday" in used else (1,)
    for tool, effect, hour, day, tainted, lasting, unlisted in itertools.product(
        tools, effects if "effect" in used else (Effect.READ,), hours, days,
        either("tainted"), either("lasting"), either("unlisted_target"),
    ):  # fmt: skip
        for origins in itertools.product(ORIGINS, repeat=len(roles)):
            given = tuple(
                ArgumentFact.model_validate({"path": role, "role": role, "origin": origin})
                for role, origin in zip(roles, origins, strict=True)
            )
            facts = Facts.model_validate(
                {
                    "tainted": tainted, "lasting": lasting, "unlisted_target": unlisted, "arguments": given,
                    # 2024-01-01 was a Monday.
                    "now": f"2024-01-{day:02}T{hour:02}:00:00Z",
                }
            )  # fmt: skip
            request = GateRequest(
                principal=Principal(id="x"), automation="x", tool=tool, effect=effect, arguments={}, facts=facts
            )
            yield Question(request, "default", 1)


def _holds(condition: Condition, question: Question) -> bool:
    """An error counts as holding: it may, where the rule restricts."""
    try:
        return condition.holds_for(question)
    except ExpressionError:
        return True


def _empty_interval(parts: list[str]) -> str | None:
    """Two comparisons of one value with numbers that no number meets, such as `args.n > 5 && args.n < 3`."""
    bounds: dict[str, tuple[float, bool, float, bool]] = {}
    for part in parts:
        match = _BOUND.fullmatch(part)
        if match is None:
            continue
        path, sign, number = match[1], match[2], float(match[3])
        low, low_open, high, high_open = bounds.get(path, (float("-inf"), False, float("inf"), False))
        if sign in (">", ">=", "==") and (number, sign == ">") > (low, low_open):
            low, low_open = number, sign == ">"
        if sign in ("<", "<=", "==") and (number, sign != "<") < (high, not high_open):
            high, high_open = number, sign == "<"
        if low > high or (low == high and (low_open or high_open)):
            return f"no number meets every comparison of `{path}`"
        bounds[path] = low, low_open, high, high_open
    return None
