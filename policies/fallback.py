"""Expressions of fallback rules: restricted CEL, checked when an automation is loaded, evaluated in an activity.

CEL because it is strict (a missing key is an error, not false), typed, and cannot reach Python objects. What is refused
on top of the language, each measured: more than 1,000 characters (deep nesting panics the parser), `map`/`filter`
(quadratic, holding the interpreter lock), `matches` (own `re` on RE2 instead), more than one `exists`/`all`, unknown
names.

Own functions: `re(text, pattern)` whether RE2 finds the pattern; `join(list, separator)`; `first(list, n)`;
`pluck(list, name)` that field of each item;
`lines(list, template)` one line for each item, `{name}` standing for its field, `{}` for the item itself.
"""

import json
import math
import re
import sys
from collections.abc import Callable, Collection, Mapping
from functools import lru_cache
from types import ModuleType
from typing import TYPE_CHECKING, cast

import re2  # pyright: ignore[reportMissingTypeStubs]
from pydantic import JsonValue

MAX_EXPRESSION = 1000
MAX_BRACKETS = 40
MAX_VALUES = 20_000
"""Values (list items, fields) an expression may see or produce."""
MAX_CHARACTERS = 1_000_000

WHEN_VARIABLES = frozenset({"inputs", "files", "failure"})
THEN_VARIABLES = WHEN_VARIABLES | {"results"}

_GAP = r"(?:\s|//[^\n]*\n)*"
_BANNED = re.compile(rf"\.{_GAP}(map|filter|matches){_GAP}\(")
_MACRO = re.compile(rf"\.{_GAP}(?:exists|all|exists_one|existsOne){_GAP}\({_GAP}([A-Za-z_]\w*)")
_FUNCTIONS = frozenset({"size", "contains", "startsWith", "endsWith", "int", "double", "string", "bool", "dyn"})
"""Of CEL's own; ours are added below."""
_SYNTAX = re.compile(r"Syntax error: (.*?)(?: expecting | \||$)")
_FIELD = re.compile(r"\{([A-Za-z_]\w*)?\}")


class ExpressionError(ValueError):
    """An expression cannot be compiled or evaluated. The message is for the automation's author."""


def _import_cel() -> ModuleType:
    """`import cel` pulls in its command line (typer, rich, prompt_toolkit): 0.7 s against 0.04 s without it."""
    unused_cli = "cel.cli"
    stubbed = unused_cli not in sys.modules
    if stubbed:
        sys.modules[unused_cli] = ModuleType(unused_cli)
    try:
        import cel  # noqa: PLC0415  (only here is the stub in place)
    finally:
        if stubbed:
            del sys.modules[unused_cli]
    return cel


if TYPE_CHECKING:
    import cel as _cel
else:
    _cel = _import_cel()


def _careful(what: str, run: Callable[[], object]) -> object:
    """Run a call into the CEL library. Its panics are BaseExceptions and are turned into an ExpressionError too."""
    try:
        return run()
    except Exception as error:
        detail = " ".join(str(error).split())
        if found := _SYNTAX.search(detail):  # the library goes on to list every token it would have liked
            detail = found[1]
        elif isinstance(error, KeyError):
            detail = f"no such key {detail}"
        raise ExpressionError(f"{what}: {detail[:300]}") from error
    except BaseException as panic:
        if type(panic).__name__ != "PanicException":
            raise
        raise ExpressionError(f"{what}: the expression engine gave up") from panic


class Expression:
    """One compiled CEL expression over a closed set of variables."""

    def __init__(self, text: str, variables: Collection[str]):
        """Compile and check. Raises ExpressionError naming what is wrong."""
        self.text = text
        _check_text(text)
        self._program = cast("_cel.Program", _careful("syntax", lambda: _cel.compile(text)))
        bound = set(_MACRO.findall(text))
        names = set(self._program.variables())
        unknown = sorted(names - set(variables) - bound)
        if unknown:
            raise ExpressionError(f"unknown variable {unknown[0]!r}; known are {', '.join(sorted(variables))}")
        known = _FUNCTIONS | _OWN.keys()
        functions = sorted(f for f in self._program.functions() if f[0].isalpha() and f not in known)
        if functions:
            raise ExpressionError(f"unknown function {functions[0]!r}; known are {', '.join(sorted(known))}")
        self._used = names & set(variables)

    def evaluate(self, values: Mapping[str, JsonValue]) -> JsonValue:
        """The value, as JSON. Raises ExpressionError: a missing key, wrong types, too much data, not a JSON value."""
        used = {name: values[name] for name in self._used if name in values}
        _cap(used, self.text)
        faults: list[str] = []
        own = {name: _guarded(function, faults) for name, function in _OWN.items()}
        result = _careful(repr(self.text), lambda: self._program.execute(_cel.Context(used, own)))
        if faults:
            raise ExpressionError(f"{self.text!r}: {faults[0]}")
        _cap(result, self.text)
        return cast("JsonValue", result)

    def holds(self, values: Mapping[str, JsonValue]) -> bool:
        """The value of a condition. Raises ExpressionError also when it is not true or false."""
        result = self.evaluate(values)
        if not isinstance(result, bool):
            raise ExpressionError(f"{self.text!r} is {type(result).__name__}, not true or false")
        return result


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
        _cap(rendered, "the rendered value")
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


def _check_text(text: str) -> None:
    if len(text) > MAX_EXPRESSION:
        raise ExpressionError(f"longer than {MAX_EXPRESSION} characters")
    depth = deepest = 0
    for char in text:
        depth += (char in "([{") - (char in ")]}")
        deepest = max(deepest, depth)
    if deepest > MAX_BRACKETS:
        raise ExpressionError(f"brackets nested deeper than {MAX_BRACKETS}")
    banned = _BANNED.search(text)
    if banned:
        instead = "use re(text, pattern)" if banned[1] == "matches" else "its time has no useful bound; use a tool"
        raise ExpressionError(f"`{banned[1]}` is not available: {instead}")
    if len(_MACRO.findall(text)) > 1:
        raise ExpressionError("more than one `exists`/`all` in one expression; split the rule")


def _guarded(function: Callable[..., object], faults: list[str]) -> Callable[..., object]:
    """The library prints what a function raises, and words it badly: note the fault instead, and fail afterwards."""

    def call(*arguments: object) -> object:
        try:
            return function(*arguments)
        except Exception as error:  # noqa: BLE001  (reported by the caller, whatever it is)
            faults.append(str(error))
            return None

    return call


def _strings(value: JsonValue) -> list[str]:
    if isinstance(value, str):
        return [value]
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [text for item in inner for text in _strings(item)]


def _text(value: JsonValue, source: str) -> str:
    if value is None:
        raise ExpressionError(f"{source!r} is null and cannot be put into text")
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _cap(value: object, source: str) -> None:
    """Refuse what is not JSON, what CEL would change silently (large integers), and what is too much."""
    count = characters = 0
    stack: list[object] = [value]
    while stack:
        item = stack.pop()
        count += 1
        if isinstance(item, str):
            characters += len(item)
        elif isinstance(item, dict):
            fields = cast("dict[object, object]", item)
            if not all(isinstance(k, str) for k in fields):
                raise ExpressionError(f"{source!r}: an object has a key that is not text")
            stack.extend(fields.values())
        elif isinstance(item, list):
            stack.extend(cast("list[object]", item))
        elif isinstance(item, int):
            if not -(2**63) <= item < 2**63:
                raise ExpressionError(f"{source!r}: an integer does not fit in 64 bits")
        elif isinstance(item, float):
            if not math.isfinite(item):
                raise ExpressionError(f"{source!r}: a number is not finite")
        elif item is not None:
            raise ExpressionError(f"{source!r}: {type(item).__name__} is not a JSON value")
        if count + len(stack) > MAX_VALUES or characters > MAX_CHARACTERS:
            raise ExpressionError(f"{source!r}: more than {MAX_VALUES} values or {MAX_CHARACTERS} characters")


@lru_cache(maxsize=256)
def _pattern(pattern: str) -> object:
    options = re2.Options()
    options.max_mem = 1 << 20
    options.log_errors = False
    try:
        return cast("object", re2.compile(pattern, options=options))  # pyright: ignore[reportUnknownMemberType]
    except re2.error as error:  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
        raise ValueError(f"re(): {pattern!r} is not a regular expression RE2 knows") from error


def _re(text: object, pattern: object) -> bool:
    if not isinstance(text, str) or not isinstance(pattern, str):
        raise TypeError("re() wants two texts")
    search = cast("Callable[[str], object]", getattr(_pattern(pattern), "search"))  # noqa: B009  (untyped library)
    return search(text) is not None


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


_OWN: dict[str, Callable[..., object]] = {"re": _re, "join": _join, "first": _first, "lines": _lines, "pluck": _pluck}
