"""Checking JSON against a JSON Schema (draft 2020-12), with problems worded for a model or a person. Pure."""

from collections.abc import Iterator

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError, ValidationError
from pydantic import JsonValue

from tools.contract import JsonObject

MAX_PROBLEMS = 5
MAX_PROBLEM_CHARS = 300


def problems(schema: JsonObject, value: JsonValue, name: str) -> str | None:
    """What is wrong with `value`, naming each field (`arguments.path: 3 is not of type 'string'`), or None.

    A schema that is itself broken is a problem too: nothing passes an unreadable check.
    """
    try:
        Draft202012Validator.check_schema(schema)
        found = sorted(_errors(schema, value), key=lambda e: [str(p) for p in e.absolute_path])
    except SchemaError as error:
        return f"{name}: its schema is not a JSON Schema: {error.message[:MAX_PROBLEM_CHARS]}"
    if not found:
        return None
    lines = [_line(name, error) for error in found[:MAX_PROBLEMS]]
    if len(found) > MAX_PROBLEMS:
        lines.append(f"and {len(found) - MAX_PROBLEMS} more")
    return "; ".join(lines)


def _errors(schema: JsonObject, value: JsonValue) -> Iterator[ValidationError]:
    # The stubs call the instance's type unknown; what comes back is documented.
    return Draft202012Validator(schema).iter_errors(value)  # pyright: ignore[reportUnknownMemberType]


def _line(name: str, error: ValidationError) -> str:
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in error.absolute_path)
    return f"{name}{path}: {error.message[:MAX_PROBLEM_CHARS]}"
