"""Checks a JSON object of a request against a JSON Schema and names every field that does not fit."""

import copy
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, cast

from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError
from pydantic import AfterValidator, JsonValue
from referencing import Registry

from api.errors import FieldProblem
from tools.contract import JsonObject, canonical_json

MAX_PROBLEMS = 20


def with_defaults(value: JsonObject, schema: JsonObject) -> JsonObject:
    """The object with the schema's top-level defaults filled in, so that the record shows what was really asked for."""
    properties = schema.get("properties")
    if not isinstance(properties, dict):
        return value
    filled = {
        name: copy.deepcopy(rule["default"])
        for name, rule in properties.items()
        if isinstance(rule, dict) and "default" in rule and name not in value
    }
    return {**value, **filled}


def schema_problems(value: JsonValue, schema: JsonObject, field: str) -> list[FieldProblem]:
    """What of `value` does not fit, at most MAX_PROBLEMS; `field` is the path of `value` in the request. References are
    resolved inside the schema only: an empty registry keeps a schema from fetching anything."""
    validator = Draft202012Validator(cast("Mapping[str, Any]", schema), registry=Registry())
    found = cast("Iterable[ValidationError]", validator.iter_errors(value))  # pyright: ignore[reportUnknownMemberType]
    problems = [_field_problem(error, field) for error, _ in zip(found, range(MAX_PROBLEMS), strict=False)]
    return sorted(problems, key=lambda p: p.field)


def _field_problem(error: ValidationError, field: str) -> FieldProblem:
    path = ".".join([field, *(str(part) for part in error.absolute_path)])
    rule = str(cast(object, error.validator))
    expected = cast(object, error.validator_value)
    if rule == "required" and isinstance(expected, list):
        given = cast(object, error.instance)
        names = [str(n) for n in cast("list[object]", expected) if isinstance(given, dict) and n not in given]
        missing = next((n for n in names if f"'{n}' is a required" in error.message), names[0] if names else "")
        return FieldProblem(field=f"{path}.{missing}", problem="is required", remedy="give this field")
    remedy = {
        "additionalProperties": "remove the field the schema does not know",
        "type": f"give a value of type {expected}",
        "enum": f"give one of {expected}",
        "pattern": f"give a text that matches {expected}",
        "minimum": f"give at least {expected}",
        "maximum": f"give at most {expected}",
        "minLength": f"give at least {expected} characters",
        "maxLength": f"give at most {expected} characters",
    }.get(rule, f"see `{rule}` in the schema")
    return FieldProblem(field=path, problem=error.message[:500], remedy=remedy[:500])


def _has_canonical_form(value: JsonObject) -> JsonObject:
    try:
        canonical_json(value)
    except ValueError as error:
        raise ValueError("holds a number or a text that JSON cannot carry (NaN, infinity, half a character)") from error
    return value


JsonIn = Annotated[JsonObject, AfterValidator(_has_canonical_form)]
"""A JSON object from outside. Python's parser lets NaN and lone surrogates through, which nothing can store."""
