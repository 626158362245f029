"""What a run has read and done, as the gate needs to know it: taint, the origin of each argument, counts. Pure.

A `Trail` lives in workflow memory. It is a function of what the operator wrote and of the calls with their results, in
their order, so replay builds the same one; a continued part builds it again from the conversation it carries, and takes
over what cannot be read from there (`Carry`).
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from pydantic import Field, JsonValue

from policies.decision import ORIGINS, ArgumentFact, Facts, Origin
from policies.provenance import Sources
from policies.quantities import moment, number
from policies.words import MAX_LINKS, is_plain, links, plain, words
from tools.contract import ArgumentRole, Effect, JsonObject, ToolCall, ToolSpec, Wire

MAX_VALUES = 500
"""Values of one call that are looked at; a call with more counts as unknown in every role."""

MAX_TEXT = 200_000
"""Characters of one text that are looked through; a longer one counts as unknown, and so do links that may be in it."""

Leaf = tuple[str, str, str, JsonValue]
"""Path, role path (lists left out), last name, value."""


_KINDS = frozenset(("type", "kind"))
"""Fields that say what sort of thing an id beside them names; a word there is no id."""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")


class Carry(Wire):
    """What a continued part cannot read from the conversation."""

    tainted: bool = False
    calls: dict[str, int] = Field(default_factory=dict)
    """Tool -> calls made."""


class Trail:
    """One run's taint and provenance."""

    def __init__(self, said: Iterable[str], targets: Sequence[str] = (), carry: Carry | None = None) -> None:
        """`said` is all that the operator wrote; `targets` the automation's list of allowed targets (patterns)."""
        self._sources = Sources()
        self._sources.operator_said(*said)
        self._targets = tuple(plain(target) for target in targets)
        self._sources.tainted = bool(carry and carry.tainted)
        self._calls: Counter[str] = Counter(carry.calls if carry else {})

    @property
    def tainted(self) -> bool:
        """Whether content that anybody may have written was read. Never turns false again."""
        return self._sources.tainted

    def carry(self) -> Carry:
        """What the next part of the run needs besides the conversation."""
        return Carry(tainted=self.tainted, calls=dict(self._calls))

    def others(self, tool: ToolSpec) -> dict[str, int]:
        """Tool -> calls so far, without the one of this tool that is on its way."""
        left = self._calls - Counter([tool.name])
        return {name: left[name] for name in sorted(left)}

    def count(self, tool: str) -> tuple[int, int]:
        """A call is asked for: how many were before it, and how many of this tool. Refused ones count, too."""
        before = self._calls.total(), self._calls[tool]
        self._calls[tool] += 1
        return before

    def saw(self, tool: ToolSpec | None, arguments: JsonObject, content: str) -> None:
        """The program of a tool gave something back. A tool that is not known counts as untrusted."""
        trust = tool.results if tool else "untrusted"
        self._sources.result(trust, content, [value for *_, value in _leaves(arguments)])

    def facts(
        self,
        tool: ToolSpec,
        call: ToolCall,
        *,
        before: tuple[int, int] | None = None,
        budget_left_usd: float | None = None,
        now: datetime | None = None,
    ) -> Facts:
        """What the gate is told about a call; `before` is what `count` said of it."""
        arguments, unlisted = self.origins(tool, call.arguments)
        made, made_of_tool = before or (self._calls.total(), self._calls[tool.name])
        return Facts(
            tainted=self.tainted,
            arguments=arguments,
            lasting=_lasting(tool),
            unlisted_target=unlisted,
            calls_made=made,
            calls_of_tool=made_of_tool,
            budget_left_usd=budget_left_usd,
            now=now,
        )

    def origins(self, tool: ToolSpec, arguments: JsonObject) -> tuple[tuple[ArgumentFact, ...] | None, bool]:
        """The origin of each value, None when there are too many; and whether a target is not among those listed."""
        leaves = _leaves(arguments)
        if len(leaves) > MAX_VALUES:
            return None, bool(self._targets)
        fixed = _fixed(tool.parameters)
        facts: list[ArgumentFact] = []
        unlisted = False
        for path, at, name, value in leaves:
            role = role_of(tool.roles, at)
            if role == "handle" and name in _KINDS and isinstance(value, str) and value.isalpha():
                role = "content"
            if value is None or isinstance(value, bool) or value == "" or (isinstance(value, str) and value in fixed):
                continue
            if role == "target":
                listed = self._listed(value)
                unlisted = unlisted or not listed
                origin: Origin = "operator" if listed and self._targets else self._sources.origin(role, value, name)
                facts.append(ArgumentFact(path=path, role=role, origin=origin))
            elif role == "content":
                facts += self._content(path, value)
            else:
                facts.append(ArgumentFact(path=path, role=role, origin=self._sources.origin(role, value, name)))
        return tuple(facts), unlisted

    def _content(self, path: str, value: JsonValue) -> list[ArgumentFact]:
        """Text by its words; what in it leads somewhere is a target. A bare date or number says nothing by itself."""
        text = value if isinstance(value, str) else str(value)
        if len(text) > MAX_TEXT:
            roles: tuple[ArgumentRole, ...] = ("content", "target")
            return [ArgumentFact(path=path, role=role, origin="unknown") for role in roles]
        found = links(text)
        if not found and (number(value) is not None or moment(text) is not None or not words(plain(text))):
            return []
        facts = [ArgumentFact(path=path, role="content", origin=self._sources.origin("content", text))]
        for link in found[:MAX_LINKS]:
            origin: Origin = (
                "operator" if self._targets and self._listed(link) else self._sources.origin("target", link)
            )
            facts.append(ArgumentFact(path=f"{path}~{link[:200]}", role="target", origin=origin))
        if len(found) > MAX_LINKS:
            facts.append(ArgumentFact(path=f"{path}~", role="target", origin=ORIGINS[-1]))
        return facts

    def _listed(self, value: JsonValue) -> bool:
        """Whether the automation lists this target; one without a list leaves targets to the other facts."""
        if not self._targets:
            return True
        if not isinstance(value, str) or not is_plain(value):
            return False
        text = plain(value)
        return any(_fits(text, pattern) for pattern in self._targets)


def role_of(roles: Mapping[str, ArgumentRole], at: str) -> ArgumentRole:
    """The role of an argument path: its own, its nearest parent's, or target, the most careful."""
    while True:
        if at in roles:
            return roles[at]
        at, dot, _ = at.rpartition(".")
        if not dot:
            return "target"


def _lasting(tool: ToolSpec) -> bool:
    """Whether the tool can change anything outside the run's own workspace."""
    passing = tool.effect is Effect.READ or (tool.effect is Effect.WRITE and tool.workspace == "write")
    return not passing or bool(tool.egress)


def _fits(text: str, pattern: str) -> bool:
    """A listed target: `*` stands for any characters but `@`, `/` and a space: a pattern cannot be stretched."""
    return re.fullmatch("[^@/\\s]*".join(re.escape(part) for part in pattern.split("*")), text) is not None


def _leaves(arguments: JsonObject) -> list[Leaf]:
    """Every scalar, without recursion. A field's name that is no plain word is a value too: `{"a@b.c": "r"}`."""
    found: list[Leaf] = []
    stack: list[tuple[str, str, str, JsonValue]] = [(k, k, k, v) for k, v in reversed(list(arguments.items()))]
    while stack and len(found) <= MAX_VALUES:
        path, at, name, value = stack.pop()
        if isinstance(value, list):
            stack += [(f"{path}[{i}]", at, name, item) for i, item in reversed(list(enumerate(value)))]
        elif isinstance(value, dict):
            stack += [(f"{path}.{k}", f"{at}.{k}", k, v) for k, v in reversed(list(value.items()))]
            found += [(f"{path}.{k}", at, name, k) for k in value if not _NAME.fullmatch(k)]
        else:
            found.append((path, at, name, value))
    return found


def _fixed(schema: JsonObject) -> frozenset[str]:
    """Texts that the tool's own schema lists (`enum`, `const`): the author's words, not the model's."""
    found: set[str] = set()
    stack: list[JsonValue] = [schema]
    while stack:
        item = stack.pop()
        if isinstance(item, list):
            stack.extend(item)
        elif isinstance(item, dict):
            for key, inner in item.items():
                if key == "enum" and isinstance(inner, list):
                    found.update(value for value in inner if isinstance(value, str))
                elif key == "const" and isinstance(inner, str):
                    found.add(inner)
                else:
                    stack.append(inner)
    return frozenset(found)
