"""The `when:` of a policy row: restricted CEL over the call, who asks, the run so far, and where its values come from.

A condition that cannot be evaluated (a missing argument, wrong types, a fact nobody supplied) is an error, never false:
the engine lets a deny or ask row hold then, and an allow row fail. Facts that are missing altogether count as the most
distrustful ones.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache
from typing import cast

from pydantic import JsonValue

from policies.decision import Facts, GateRequest
from policies.expression import MAX_VALUES, NATIVE_FUNCTIONS, Expression, ExpressionError, Function, found

UNCOUNTED = 2**31
"""What `run.calls` and `run.calls_of_tool` are when nobody counted: beyond every limit a rule sets."""

VARIABLES: dict[str, str] = {
    "args": "The arguments of the call: `args.path`, `has(args.path)`.",
    "effect": "What the tool does to the world: read, write, send, financial, destructive, access.",
    "tool": "The tool's name.",
    "tenant": "The tenant of the run.",
    "automation": "The automation's name.",
    "principal": "Who started the run: `principal.id`, `principal.kind` (person, service), `principal.roles`.",
    "environment": "The installation's setting `environment`.",
    "now": "When the call was made, a timestamp.",
    "hour": "Hour of `now` in UTC, 0 to 23.",
    "weekday": "Day of the week of `now` in UTC, 1 Monday to 7 Sunday.",
    "run": "The run so far: `run.calls`, `run.calls_of_tool`, `run.budget_left_usd`.",
    "tainted": "Whether the run has read content that anybody may have written.",
    "origins": "Where each value stands, by its path: operator, own, vendor, untrusted, unknown.",
    "worst": "The least trusted origin by role: `worst.target`, `worst.handle`, `worst.quantity`, `worst.content`.",
    "lasting": "Whether the call changes something that outlives the run.",
    "unlisted_target": "Whether the automation lists its targets and the call names another one.",
}
"""Name -> meaning."""

_NATIVE = NATIVE_FUNCTIONS | {"has", "duration", "timestamp", "uint", "getHours", "getMinutes", "getDayOfWeek"}
_OWN: dict[str, Function] = {"re": found}


class Condition(Expression):
    """One compiled condition. Immutable; may be evaluated by many threads at once."""

    def __init__(self, text: str) -> None:
        """Compile and check. Raises ExpressionError naming what is wrong."""
        super().__init__(text, VARIABLES, _OWN, _NATIVE)

    def holds_for(self, question: "Question") -> bool:
        """Whether the call meets it. Raises ExpressionError when that cannot be said."""
        result = self.execute({name: question.value(name) for name in self.used})
        if result is True or result is False:
            return result
        raise ExpressionError(f"{self.text!r} is {type(result).__name__}, not true or false")


class Question:
    """One call as conditions see it. Values are built when first asked for; belongs to one thread."""

    def __init__(self, request: GateRequest, environment: str, values: int) -> None:
        """`values`: how many values the arguments hold; beyond MAX_VALUES conditions may not look at them."""
        self.request = request
        self.environment = environment
        self.faults: list[tuple[str, str]] = []
        """Rule id and reason, of each condition that could not be evaluated."""
        self._count = values
        self._built: dict[str, object] = {}

    def value(self, name: str) -> object:
        """The value of one variable. Raises ExpressionError for one that nobody supplied."""
        if name not in self._built:
            self._built[name] = _BUILDERS[name](self)
        return self._built[name]

    def arguments(self) -> dict[str, JsonValue]:
        """`args`, unless they are too many to look through."""
        if self._count > MAX_VALUES:
            raise ExpressionError(f"the arguments hold more than {MAX_VALUES} values")
        return self.request.arguments

    def moment(self, part: Callable[[Facts], object]) -> object:
        """Something about `now`."""
        facts = self.request.facts
        if facts is None or facts.now is None or facts.now.tzinfo is None:
            raise ExpressionError("the time of the call is not known")
        return part(facts)


def _utc(facts: Facts) -> datetime:
    return cast("datetime", facts.now).astimezone(UTC)


def _principal(q: Question) -> object:
    who = q.request.principal
    return {"id": who.id, "kind": who.kind, "roles": list(who.roles)}


def _run(q: Question) -> object:
    facts = q.request.facts
    if facts is None:
        return {"calls": UNCOUNTED, "calls_of_tool": UNCOUNTED, "budget_left_usd": 0.0}
    budget = 0.0 if facts.budget_left_usd is None else float(facts.budget_left_usd)
    return {"calls": facts.calls_made, "calls_of_tool": facts.calls_of_tool, "budget_left_usd": budget}


_UNKNOWN = Facts()

_BUILDERS: dict[str, Callable[[Question], object]] = {
    "args": Question.arguments,
    "effect": lambda q: q.request.effect.value,
    "tool": lambda q: q.request.tool,
    "tenant": lambda q: q.request.principal.tenant,
    "automation": lambda q: q.request.automation,
    "principal": _principal,
    "environment": lambda q: q.environment,
    "now": lambda q: q.moment(_utc),
    "hour": lambda q: q.moment(lambda f: _utc(f).hour),
    "weekday": lambda q: q.moment(lambda f: _utc(f).isoweekday()),
    "run": _run,
    "tainted": lambda q: (q.request.facts or _UNKNOWN).tainted,
    "origins": lambda q: (q.request.facts or _UNKNOWN).origins,
    "worst": lambda q: (q.request.facts or _UNKNOWN).worst,
    "lasting": lambda q: (q.request.facts or _UNKNOWN).lasting,
    "unlisted_target": lambda q: (q.request.facts or _UNKNOWN).unlisted_target,
}


@lru_cache(maxsize=16_384)
def condition(text: str) -> Condition:
    """As Condition(), compiled once for each text, also over reloads."""
    return Condition(text)
