"""Restricted CEL: what every expression a person writes into a policy or an automation is held to.

CEL because it is strict (a missing key is an error, not false), typed, and cannot reach Python objects. What is refused
on top of the language, each measured: more than 1,000 characters (deep nesting panics the parser), `map`/`filter`
(quadratic, holding the interpreter lock), `matches` (own `re(text, pattern)` on RE2 instead), more than one
`exists`/`all`, unknown names. The only importer of the CEL library.
"""

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

Function = Callable[..., object]

_GAP = r"(?:\s|//[^\n]*\n)*"
_BANNED = re.compile(rf"\.{_GAP}(map|filter|matches){_GAP}\(")
_MACRO = re.compile(rf"\.{_GAP}(?:exists|all|exists_one|existsOne){_GAP}\({_GAP}([A-Za-z_]\w*)")
NATIVE_FUNCTIONS = frozenset({"size", "contains", "startsWith", "endsWith", "int", "double", "string", "bool", "dyn"})
"""Of CEL's own functions, those that may be called."""
_SYNTAX = re.compile(r"Syntax error: (.*?)(?: expecting | \||$)")


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
    """One compiled CEL expression over a closed set of variables and functions."""

    def __init__(
        self,
        text: str,
        variables: Collection[str],
        functions: Mapping[str, Function],
        native: Collection[str] = NATIVE_FUNCTIONS,
    ):
        """Compile and check. `functions` are ours, `native` those of CEL's own that may be called. Raises
        ExpressionError naming what is wrong."""
        self.text = text
        _check_text(text)
        self._program = cast("_cel.Program", _careful("syntax", lambda: _cel.compile(text)))
        bound = set(_MACRO.findall(text))
        names = set(self._program.variables())
        unknown = sorted(names - set(variables) - bound)
        if unknown:
            raise ExpressionError(f"unknown variable {unknown[0]!r}; known are {', '.join(sorted(variables))}")
        called = {f for f in self._program.functions() if f[0].isalpha()}
        known = {*native, *functions}
        if strange := sorted(called - known):
            raise ExpressionError(f"unknown function {strange[0]!r}; known are {', '.join(sorted(known))}")
        self.used = frozenset(names & set(variables))
        """The variables it reads."""
        self._own = {name: functions[name] for name in sorted(called & functions.keys())}

    def execute(self, values: Mapping[str, object]) -> object:
        """Whatever it gives, over values that the caller has checked with `cap`. Raises ExpressionError."""
        if not self._own:
            return _careful(repr(self.text), lambda: self._program.execute(_cel.Context(dict(values))))
        faults: list[str] = []
        own = {name: _guarded(function, faults) for name, function in self._own.items()}
        result = _careful(repr(self.text), lambda: self._program.execute(_cel.Context(dict(values), own)))
        if faults:
            raise ExpressionError(f"{self.text!r}: {faults[0]}")
        return result

    def evaluate(self, values: Mapping[str, JsonValue]) -> JsonValue:
        """The value, as JSON. Raises ExpressionError: a missing key, wrong types, too much data, not a JSON value."""
        used = {name: values[name] for name in self.used if name in values}
        cap(used, self.text)
        result = self.execute(used)
        cap(result, self.text)
        return cast("JsonValue", result)

    def holds(self, values: Mapping[str, JsonValue]) -> bool:
        """The value of a condition. Raises ExpressionError also when it is not true or false."""
        result = self.evaluate(values)
        if not isinstance(result, bool):
            raise ExpressionError(f"{self.text!r} is {type(result).__name__}, not true or false")
        return result


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


def _guarded(function: Function, faults: list[str]) -> Function:
    """The library prints what a function raises, and words it badly: note the fault instead, and fail afterwards."""

    def call(*arguments: object) -> object:
        try:
            return function(*arguments)
        except Exception as error:  # noqa: BLE001  (reported by the caller, whatever it is)
            faults.append(str(error))
            return None

    return call


def cap(value: object, source: str) -> None:
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


def found(text: object, pattern: object) -> bool:
    """`re(text, pattern)`: whether RE2 finds the pattern in the text. Linear in the text, whatever the pattern."""
    if not isinstance(text, str) or not isinstance(pattern, str):
        raise TypeError("re() wants two texts")
    search = cast("Callable[[str], object]", getattr(_pattern(pattern), "search"))  # noqa: B009  (untyped library)
    return search(text) is not None
