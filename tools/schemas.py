"""Checking JSON against a JSON Schema (draft 2020-12), with problems worded for a model or a person. Pure.

What is claimed: every mandatory test of the official suite for draft 2020-12 passes, and `format` is asserted (the
optional format tests pass, too). Not claimed: references to other documents, which are refused unread, so that no
schema can make the gate open a file or a connection; and vocabularies of metaschemas of one's own.
"""

from collections.abc import Sequence
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
    """A schema cannot be used: it is no JSON Schema, or refers to another document."""


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
    except ValueError as error:
        raise SchemaError(_first_line(str(error))) from error


def problems(schema: JsonObject, value: JsonValue, name: str) -> str | None:
    """What is wrong with `value`, naming each field (`arguments.path: 3 is not of type 'string'`), or None.

    A schema that is itself broken is a problem too, and so is a value that cannot be checked: nothing passes an
    unreadable check.
    """
    if _too_deep(value):
        return f"{name}: nested deeper than {MAX_DEPTH} levels"
    try:
        validator = compiled(schema)
        if validator.is_valid(value):
            return None
        found = sorted(validator.iter_errors(value), key=_place)
    except SchemaError as error:
        return f"{name}: its schema is not a JSON Schema: {error}"
    except (ValueError, RecursionError, OverflowError) as error:
        return f"{name}: cannot be checked: {_first_line(str(error))}"
    lines = [_line(name, error) for error in found[:MAX_PROBLEMS]]
    if len(found) > MAX_PROBLEMS:
        lines.append(f"and {len(found) - MAX_PROBLEMS} more")
    return "; ".join(lines) or f"{name}: does not fit its schema"


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


def _line(name: str, error: ValidationError) -> str:
    path: Sequence[str | int] = error.instance_path
    where = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    # Single quotes, as Python's validators word it: the message goes into JSON, where double ones are hard to read.
    return f"{name}{where}: {error.message[:MAX_PROBLEM_CHARS]}".replace('"', "'")


def _first_line(text: str) -> str:
    return text.partition("\n")[0][:MAX_PROBLEM_CHARS]
