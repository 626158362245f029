"""A call's arguments as people read them: one line for each value, where it comes from, and what an edit changes."""

import difflib
import json
from collections.abc import Iterator, Sequence
from typing import Literal

from pydantic import JsonValue

from policies.decision import ArgumentFact
from tools.contract import JsonObject, Wire

Change = Literal["same", "changed", "added", "removed"]

ORIGINS: dict[str, str] = {
    "operator": "named by the requester",
    "own_named": "own data, in the record the requester named",
    "own": "own data",
    "named": "outside data, in the record the requester named",
    "vendor": "a known supplier's data",
    "untrusted": "outside data anybody may have written",
    "unknown": "made up by the model, found nowhere",
}
"""What each origin means to a reviewer."""


class Value(Wire):
    """One value of the arguments."""

    path: str
    text: str
    """As it is, a string without quotes."""
    kind: str
    """`text`, `number`, `yes or no`, `nothing`, `empty list`, `empty object`."""
    role: str = ""
    origin: str = ""
    inner: tuple[ArgumentFact, ...] = ()
    """Facts about what stands inside a text, such as a link."""


class Difference(Wire):
    """One value before and after an edit."""

    path: str
    change: Change
    before: str = ""
    after: str = ""
    lines: tuple[tuple[str, str], ...] = ()
    """For long texts: (`same`, `removed` or `added`; line)."""


def values_of(arguments: JsonObject, facts: Sequence[ArgumentFact] = ()) -> list[Value]:
    """Every value, in the order of the arguments, with what is known of it."""
    known = {fact.path: fact for fact in facts}
    found: list[Value] = []
    for path, value in _leaves(arguments, ""):
        fact = known.get(path)
        inner = tuple(f for f in facts if f.path.startswith(f"{path}~"))
        found.append(
            Value(
                path=path, text=_text(value), kind=_kind(value), role=fact.role if fact else "",
                origin=fact.origin if fact else "", inner=inner,
            )
        )  # fmt: skip
    return found


def differences(before: JsonObject, after: JsonObject) -> list[Difference]:
    """What an edit changes, value by value; unchanged values are listed too, for they run as well."""
    old, new = dict(_leaves(before, "")), dict(_leaves(after, ""))
    found: list[Difference] = []
    for path in [*old, *(p for p in new if p not in old)]:
        if path not in new:
            found.append(Difference(path=path, change="removed", before=_text(old[path])))
        elif path not in old:
            found.append(Difference(path=path, change="added", after=_text(new[path])))
        elif json.dumps(old[path]) == json.dumps(new[path]):  # 1 and true, 1 and 1.0 are not the same call
            found.append(Difference(path=path, change="same", before=_text(old[path]), after=_text(new[path])))
        else:
            a, b = _text(old[path]), _text(new[path])
            lines = tuple(_line_diff(a, b)) if "\n" in a or "\n" in b else ()
            found.append(Difference(path=path, change="changed", before=a, after=b, lines=lines))
    return found


def pairs(value: JsonValue) -> list[tuple[str, str]]:
    """Any JSON as a list to be read: where each value stands, and the value."""
    return [(path, _text(leaf)) for path, leaf in _leaves(value, "")]


def _leaves(value: JsonValue, path: str) -> Iterator[tuple[str, JsonValue]]:
    if isinstance(value, dict) and (value or not path):
        for name, inner in value.items():
            yield from _leaves(inner, f"{path}.{name}" if path else name)
    elif isinstance(value, list) and value:
        for index, inner in enumerate(value):
            yield from _leaves(inner, f"{path}[{index}]")
    else:
        yield path, value


def _text(value: JsonValue) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _kind(value: JsonValue) -> str:
    match value:
        case bool():
            return "yes or no"
        case None:
            return "nothing"
        case str():
            return "text"
        case list():
            return "empty list"
        case dict():
            return "empty object"
        case _:
            return "number"


def _line_diff(before: str, after: str) -> Iterator[tuple[str, str]]:
    marks = {" ": "same", "-": "removed", "+": "added"}
    for line in difflib.ndiff(before.splitlines(), after.splitlines()):
        if line[0] in marks:
            yield marks[line[0]], line[2:]
