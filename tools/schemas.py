"""Checking JSON against a JSON Schema (draft 2020-12), with problems worded for a model or a person. Pure.

What is claimed: every mandatory test of the official suite for draft 2020-12 passes, and `format` is asserted (the
optional format tests pass, too). Not claimed: references to other documents, which are refused unread, so that no
schema can make the gate open a file or a connection; and vocabularies of metaschemas of one's own.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

from jsonschema_rs import Draft202012Validator, FancyRegexOptions, ValidationError
from pydantic import JsonValue

from tools.contract import JsonObject

MAX_PROBLEMS = 5
MAX_PROBLEM_CHARS = 300
BACKTRACKS = 100_000
"""Steps a pattern with look-around or back-references may go back; one that needs more does not match."""


MAX_DEPTH = 100
"""Levels of nesting in a value or a schema. The library walks by recursion in native code: a value nested 100,000 deep
would end the process."""


class SchemaError(ValueError):
    """A schema cannot be used: it is no JSON Schema, or refers to another document. `path` is the place inside it."""

    def __init__(self, message: str, path: Sequence[str | int] = ()) -> None:
        super().__init__(message)
        self.path = tuple(path)


@dataclass(frozen=True)
class Fault:
    """One thing in a value that does not fit its schema."""

    path: tuple[str | int, ...]
    rule: str
    """The keyword that is not met (`type`, `required`, ...); "" where the value cannot be checked at all."""
    expected: JsonValue
    """What the keyword asks for; for `required` the missing name."""
    message: str


def compiled(schema: JsonObject, *, formats: bool = True) -> Draft202012Validator:
    """A schema ready to check values with. Raises SchemaError."""
    if _too_deep(schema):
        raise SchemaError(f"nested deeper than {MAX_DEPTH} levels")
    try:
        return Draft202012Validator(
            schema,
            validate_formats=formats,
            retriever=_refused,
            pattern_options=FancyRegexOptions(backtrack_limit=BACKTRACKS),
        )
    except ValidationError as error:
        raise SchemaError(_worded(error), error.instance_path) from error
    except ValueError as error:
        # A refused reference comes back wrapped in the library's own words; ours say it better.
        raise SchemaError(_first_line(str(error).rpartition("ValueError: ")[2])) from error


def faults(schema: JsonObject, value: JsonValue) -> list[Fault]:
    """Everything in `value` that does not fit, in the order of the fields; empty when it fits.

    A schema that is itself broken is a fault too, and so is a value that cannot be checked: nothing passes an
    unreadable check.
    """
    if _too_deep(value):
        return [Fault((), "", None, f"nested deeper than {MAX_DEPTH} levels")]
    try:
        validator = compiled(schema)
        if validator.is_valid(value):
            return []
        found = sorted(validator.iter_errors(value), key=_place)
    except SchemaError as error:
        return [Fault((), "", None, f"its schema is not a JSON Schema: {error}")]
    except (ValueError, RecursionError, OverflowError) as error:
        return [Fault((), "", None, f"cannot be checked: {_first_line(str(error))}")]
    return [Fault(tuple(e.instance_path), e.kind.name, e.kind.value, _worded(e)) for e in found] or [
        Fault((), "", None, "does not fit its schema")
    ]


def problems(schema: JsonObject, value: JsonValue, name: str) -> str | None:
    """What is wrong with `value`, naming each field (`arguments.path: 3 is not of type 'string'`), or None."""
    found = faults(schema, value)
    lines = [_line(name, fault) for fault in found[:MAX_PROBLEMS]]
    if len(found) > MAX_PROBLEMS:
        lines.append(f"and {len(found) - MAX_PROBLEMS} more")
    return "; ".join(lines) or None


def _too_deep(value: JsonValue) -> bool:
    """Level by level, without recursion."""
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [
            inner
            for item in level
            if isinstance(item, dict | list)
            for inner in (item.values() if isinstance(item, dict) else item)
        ]
        if not level:
            return False
    return any(isinstance(item, dict | list) for item in level)


def _refused(uri: str) -> NoReturn:
    raise ValueError(f"refers to {uri!r}, another document")


def _place(error: ValidationError) -> list[str]:
    return [str(part) for part in error.instance_path]


def _line(name: str, fault: Fault) -> str:
    where = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in fault.path)
    return f"{name}{where}: {fault.message}"


def _worded(error: ValidationError) -> str:
    # Single quotes, as Python's validators word it: the message goes into JSON, where double ones are hard to read.
    return error.message[:MAX_PROBLEM_CHARS].replace('"', "'")


def _first_line(text: str) -> str:
    return text.partition("\n")[0][:MAX_PROBLEM_CHARS]
