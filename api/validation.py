"""Checks a JSON object of a request against a JSON Schema and names every field that does not fit."""

import copy
from typing import Annotated

from pydantic import AfterValidator, JsonValue

from api.errors import FieldProblem
from tools.contract import JsonObject, canonical_json
from tools.schemas import Fault, faults

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
    """What of `value` does not fit, at most MAX_PROBLEMS; `field` is the path of `value` in the request."""
    return [_field_problem(fault, field) for fault in faults(schema, value)[:MAX_PROBLEMS]]


def _field_problem(fault: Fault, field: str) -> FieldProblem:
    path = ".".join([field, *(str(part) for part in fault.path)])
    if fault.rule == "required":
        return FieldProblem(field=f"{path}.{fault.expected}", problem="is required", remedy="give this field")
    expected = " or ".join(map(str, fault.expected)) if isinstance(fault.expected, list) else fault.expected
    remedy = {
        "": "correct it; what cannot be checked is refused",
        "additionalProperties": "remove the field the schema does not know",
        "type": f"give a value of type {expected}",
        "enum": f"give one of {expected}",
        "pattern": f"give a text that matches {expected}",
        "minimum": f"give at least {expected}",
        "maximum": f"give at most {expected}",
        "minLength": f"give at least {expected} characters",
        "maxLength": f"give at most {expected} characters",
    }.get(fault.rule, f"see `{fault.rule}` in the schema")
    return FieldProblem(field=path, problem=fault.message, remedy=remedy[:500])


def _has_canonical_form(value: JsonObject) -> JsonObject:
    try:
        canonical_json(value)
    except ValueError as error:
        raise ValueError("holds a number or a text that JSON cannot carry (NaN, infinity, half a character)") from error
    return value


JsonIn = Annotated[JsonObject, AfterValidator(_has_canonical_form)]
"""A JSON object from outside. Python's parser lets NaN and lone surrogates through, which nothing can store."""
