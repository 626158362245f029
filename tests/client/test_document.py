"""Promises: the client has a method for every operation of the OpenAPI document, with every parameter and every field
of the body, of the same type and default; and its models have every field the API answers with, of the same type."""

import inspect
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from pathlib import Path
from typing import Any, cast, get_args, get_origin, get_type_hints

import pytest
from pydantic import TypeAdapter

from api.app import create_app, openapi
from gatehouse_client import Gatehouse
from gatehouse_client.models.runs import AuditRecord
from worker.settings import Settings

Json = dict[str, Any]

NOT_A_PARAMETER = {
    "cursor": "lists are iterators",
    "last-event-id": "`after` says the same, and reconnecting is the client's business",
    "if-none-match": "the client keeps no copies",
    "Range": "an artifact is streamed whole",
    "if-range": "an artifact is streamed whole",
}
OWN_DEFAULTS = {"limit": "all of them, over as many pages as it takes", "inputs": "an empty object"}
STREAMED = {"follow_run": AuditRecord, "get_artifact": bytes, "upload_file": None}
"""Their bodies or answers are no JSON documents."""


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> Json:
    """The document as `/api/openapi.json` serves it."""
    return openapi(create_app(Settings(data=tmp_path_factory.mktemp("document"))))


def operations(spec: Json) -> dict[str, Json]:
    return {op["operationId"]: op for path in spec["paths"].values() for op in path.values()}


def methods(spec: Json) -> list[tuple[str, Json, Callable[..., Any]]]:
    """Each operation that has a method, with it."""
    every = operations(spec).items()
    return [(name, operation, getattr(Gatehouse, name)) for name, operation in every if hasattr(Gatehouse, name)]


def shape(schema: Any, whole: Json, *, defaults: bool = False) -> Any:
    """What two schemas must agree in: structure, types, names of fields, known words; not prose, bounds, titles."""
    if schema is True or not isinstance(schema, dict):
        return "any"
    found = cast("Json", schema)
    if "$ref" in found:
        name = found["$ref"].rsplit("/", 1)[-1]
        return shape((whole.get("$defs") or whole["components"]["schemas"])[name], whole)
    if "anyOf" in found:
        parts = [shape(each, whole) for each in found["anyOf"]]
        if any(str(part).startswith("('words'") for part in parts):
            parts = [part for part in parts if part != "string"]  # a list of words that stays open for more
        return parts[0] if len(parts) == 1 else ("any of", *sorted(parts, key=str))
    if "enum" in found:
        return ("words", *sorted(found["enum"]))
    if "const" in found:
        return "string"
    if found.get("type") == "array":
        return ("list", shape(found.get("items", True), whole))
    if "properties" in found:
        return {name: shape(each, whole) for name, each in sorted(found["properties"].items())}
    if found.get("type") == "object":
        return ("map", shape(found.get("additionalProperties", True), whole))
    kind = found.get("type", "any")
    return f"{kind} date-time" if found.get("format") == "date-time" else kind


def typed(annotation: Any) -> Any:
    schema = TypeAdapter(annotation).json_schema()
    return shape(schema, schema)


def parameters(operation: Json, spec: Json) -> dict[str, tuple[Any, Any]]:
    """Name in Python -> (shape, default or `...`) of all the operation takes, from path, query, headers and body."""
    found: dict[str, tuple[Any, Any]] = {}
    for each in operation.get("parameters", []):
        if each["name"] not in NOT_A_PARAMETER:
            default = ... if each.get("required") else each["schema"].get("default")
            found[each["name"].replace("-", "_")] = (shape(each["schema"], spec), default)
    content = operation.get("requestBody", {}).get("content", {}).get("application/json")
    if content:
        ref = content["schema"].get("$ref", "").rsplit("/", 1)[-1]
        body = spec["components"]["schemas"].get(ref, {})
        for name, each in body.get("properties", {}).items():
            default = ... if name in body.get("required", []) else each.get("default")
            found[name] = (shape(each, spec), default)
    return found


def test_every_operation_has_a_method(spec: Json) -> None:
    missing = [name for name in operations(spec) if not hasattr(Gatehouse, name)]
    assert missing == [], "write them in gatehouse_client, beside their neighbours"


def test_every_parameter_is_there(spec: Json) -> None:
    wrong: list[str] = []
    for name, operation, method in methods(spec):
        wanted = parameters(operation, spec)
        if name in {"lint_policy", "simulate_policy"}:
            wanted = {"policy": (None, None)}  # the whole body is one model, which the methods beside them take too
        taken = inspect.signature(method).parameters
        for parameter, (_, default) in wanted.items():
            if parameter not in taken:
                wrong.append(f"{name}: no parameter `{parameter}`")
                continue
            own = taken[parameter].default
            needed = own is inspect.Parameter.empty
            if needed and default is not ...:
                wrong.append(f"{name}: `{parameter}` need not be given")
            elif parameter not in OWN_DEFAULTS and default is not ... and isinstance(default, str | int | float):
                wrong += [f"{name}: `{parameter}` defaults to {own!r}, not {default!r}"] * (own != default)
    assert wrong == []


def test_every_parameter_has_its_type(spec: Json) -> None:
    wrong: list[str] = []
    for name, operation, method in methods(spec):
        hints = get_type_hints(method)
        for parameter, (wanted, _) in parameters(operation, spec).items():
            if parameter not in hints:
                continue
            own = typed(hints[parameter])
            if _without_null(own) != _without_null(wanted):
                wrong.append(f"{name}({parameter}): {own} instead of {wanted}")
    assert wrong == []


def test_every_answer_has_its_fields(spec: Json) -> None:
    wrong: list[str] = []
    for name, operation, method in methods(spec):
        own = told(get_type_hints(method)["return"])
        if name in STREAMED and STREAMED[name] is not None:
            assert own is STREAMED[name]
            continue
        (status,) = [s for s in operation["responses"] if s.startswith("2")]
        content = operation["responses"][status].get("content", {}).get("application/json")
        if content is None:
            assert own is type(None), name
            continue
        wanted = shape(content["schema"], spec)
        if isinstance(wanted, dict) and "items" in wanted:
            wanted = cast("tuple[str, Any]", wanted["items"])[1]
        if typed(own) != wanted:
            wrong.append(f"{name}: {_differences(typed(own), wanted)}")
    assert wrong == []


def told(annotation: Any) -> Any:
    """What one item of the method's answer is."""
    if get_origin(annotation) in {AsyncIterator, AsyncGenerator, tuple}:
        return get_args(annotation)[0]
    return annotation


def _without_null(found: Any) -> Any:
    if isinstance(found, tuple) and found[0] == "any of":
        parts = [p for p in cast("tuple[Any, ...]", found)[1:] if p != "null"]
        return parts[0] if len(parts) == 1 else parts
    return cast("Any", found)


def _differences(own: Any, wanted: Any, at: str = "") -> str:
    if not (isinstance(own, dict) and isinstance(wanted, dict)):
        return f"{at or 'it'} is {own}, not {wanted}"
    mine, theirs = cast("Json", own), cast("Json", wanted)
    return "; ".join(
        _differences(mine.get(name, "missing"), theirs.get(name, "unknown to the API"), f"{at}.{name}")
        for name in sorted(mine.keys() | theirs.keys())
        if mine.get(name) != theirs.get(name)
    )


def test_the_check_sees_what_is_missing(spec: Json) -> None:
    """A field more on either side, another type, another word: each is a difference."""
    own = typed(AuditRecord)
    assert own == shape(spec["components"]["schemas"]["RecordOut"], spec)
    for name, other in (("more", "string"), ("seq", "string"), ("type", ("words", "a"))):
        assert _differences(own, own | {name: other})


def test_the_client_needs_nothing_of_ours(tmp_path: Path) -> None:
    """Copied alone to another folder, with the packages it says it needs, it is imported."""
    import shutil  # noqa: PLC0415
    import subprocess  # noqa: PLC0415
    import sys  # noqa: PLC0415

    import gatehouse_client  # noqa: PLC0415

    shutil.copytree(Path(gatehouse_client.__file__).parent, tmp_path / "gatehouse_client")
    probe = "import gatehouse_client, sys; print(*{m.partition('.')[0] for m in sys.modules})"
    done = subprocess.run([sys.executable, "-c", probe], cwd=tmp_path, capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert not loaded & {"api", "worker", "workflows", "policies", "tools", "fastapi", "temporalio", "sqlalchemy"}
