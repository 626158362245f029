"""Expressions of fallback rules: restricted CEL, checked when an automation is loaded, evaluated in an activity.

The restrictions are those of `policies.expression`. Own functions: `re(text, pattern)` whether RE2 finds the pattern;
`join(list, separator)`; `first(list, n)`;
`pluck(list, name)` that field of each item;
`lines(list, template)` one line for each item, `{name}` standing for its field, `{}` for the item itself.
"""

import json
import re
from collections.abc import Collection, Mapping
from functools import lru_cache
from typing import cast

from pydantic import JsonValue

from policies import expression as restricted
from policies.expression import ExpressionError, Function, cap

WHEN_VARIABLES = frozenset({"inputs", "files", "failure"})
THEN_VARIABLES = WHEN_VARIABLES | {"results"}

_FIELD = re.compile(r"\{([A-Za-z_]\w*)?\}")


class Expression(restricted.Expression):
    """One expression of a fallback rule: the functions above are known to it."""

    def __init__(self, text: str, variables: Collection[str]):
        """Compile and check. Raises ExpressionError naming what is wrong."""
        super().__init__(text, variables, _OWN)


class Template:
    """A JSON value whose strings may hold `${CEL}`.

    A string that is exactly one `${...}` becomes the expression's value with its type; any other string has text put in
    its place (lists and objects as JSON; null is an error). `$${` stands for a literal `${`. Keys are not templates.
    """

    def __init__(self, value: JsonValue, variables: Collection[str]):
        """Compile every expression. Raises ExpressionError naming the place."""
        self._value = value
        self._parts: dict[str, list[str | Expression]] = {}
        for text in _strings(value):
            self._parts[text] = [p if isinstance(p, str) else Expression(p[0], variables) for p in split_template(text)]

    @property
    def expressions(self) -> list[Expression]:
        """Every expression, for checks at load."""
        return [p for parts in self._parts.values() for p in parts if isinstance(p, Expression)]

    def render(self, values: Mapping[str, JsonValue]) -> JsonValue:
        """The value with every expression replaced. Raises ExpressionError."""
        rendered = self._render(self._value, values)
        cap(rendered, "the rendered value")
        return rendered

    def _render(self, value: JsonValue, values: Mapping[str, JsonValue]) -> JsonValue:
        if isinstance(value, dict):
            return {k: self._render(v, values) for k, v in value.items()}
        if isinstance(value, list):
            return [self._render(v, values) for v in value]
        if not isinstance(value, str):
            return value
        parts = self._parts[value]
        if len(parts) == 1 and isinstance(parts[0], Expression):
            return parts[0].evaluate(values)
        return "".join(p if isinstance(p, str) else _text(p.evaluate(values), p.text) for p in parts)


@lru_cache(maxsize=512)
def expression(text: str, variables: frozenset[str]) -> Expression:
    """As Expression(), compiled once for each text."""
    return Expression(text, variables)


def split_template(text: str) -> list[str | tuple[str]]:
    """Literal pieces as str, expressions as a 1-tuple. Raises ExpressionError for an expression that does not end."""
    parts: list[str | tuple[str]] = []
    literal: list[str] = []
    at = 0
    while True:
        start = text.find("${", at)
        if start < 0:
            literal.append(text[at:])
            break
        if start > at and text[start - 1] == "$":
            literal.append(text[at : start - 1] + "${")
            at = start + 2
            continue
        literal.append(text[at:start])
        end = _end_of_expression(text, start + 2)
        if joined := "".join(literal):
            parts.append(joined)
        literal = []
        parts.append((text[start + 2 : end],))
        at = end + 1
    if (joined := "".join(literal)) or not parts:
        parts.append(joined)
    return parts


def _end_of_expression(text: str, at: int) -> int:
    depth, quote = 0, ""
    while at < len(text):
        char = text[at]
        if quote:
            if char == "\\":
                at += 1
            elif char == quote:
                quote = ""
        elif char in "\"'":
            quote = char
        elif char == "{":
            depth += 1
        elif char == "}":
            if depth == 0:
                return at
            depth -= 1
        at += 1
    raise ExpressionError("a `${` has no closing `}`; write `$${` for a literal one")


def _strings(value: JsonValue) -> list[str]:
    if isinstance(value, str):
        return [value]
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [text for item in inner for text in _strings(item)]


def _text(value: JsonValue, source: str) -> str:
    if value is None:
        raise ExpressionError(f"{source!r} is null and cannot be put into text")
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _join(items: object, separator: object) -> str:
    if not isinstance(items, list) or not isinstance(separator, str):
        raise TypeError("join() wants a list and a text")
    return separator.join(_plain(item) for item in cast("list[object]", items))


def _first(items: object, count: object) -> list[object]:
    if not isinstance(items, list) or not isinstance(count, int) or count < 0:
        raise TypeError("first() wants a list and a number")
    return cast("list[object]", items)[:count]


def _lines(items: object, template: object) -> str:
    if not isinstance(items, list) or not isinstance(template, str):
        raise TypeError("lines() wants a list and a text")
    return "\n".join(
        _FIELD.sub(lambda m, item=item: _plain(_field(item, m[1])), template) for item in cast("list[object]", items)
    )


def _pluck(items: object, name: object) -> list[object]:
    if not isinstance(items, list) or not isinstance(name, str):
        raise TypeError("pluck() wants a list and a text")
    return [_field(item, name) for item in cast("list[object]", items)]


def _field(item: object, name: str | None) -> object:
    if name is None:
        return item
    if not isinstance(item, dict) or name not in item:
        raise TypeError(f"an item has no field {name!r}")
    return cast("dict[str, object]", item)[name]


def _plain(item: object) -> str:
    return item if isinstance(item, str) else json.dumps(item, ensure_ascii=False)


_OWN: dict[str, Function] = {"re": restricted.found, "join": _join, "first": _first, "lines": _lines, "pluck": _pluck}
