"""Arguments against their schema: the official suite for draft 2020-12, and what must never happen while checking."""

import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from pydantic import JsonValue

from tools.contract import JsonObject
from tools.schemas import MAX_DEPTH, SchemaError, compiled, problems

SUITE = Path(__file__).parents[3] / "shared" / "evals" / "json_schema_suite" / "draft2020-12.json"
ELSEWHERE = "http://localhost:1234/"
"""Where the suite's remote schemas stand: documents of others, which are refused."""
OWN_VOCABULARY = "schema that uses custom metaschema with with no validation vocabulary"

Group = dict[str, Any]


def _groups() -> Iterator[tuple[str, Group]]:
    if not SUITE.is_file():
        return
    files = cast("dict[str, list[Group]]", json.loads(SUITE.read_text())["files"])
    for file, groups in files.items():
        for group in groups:
            yield file, group


@pytest.mark.skipif(not SUITE.is_file(), reason=f"the JSON Schema suite is not at {SUITE}")
@pytest.mark.parametrize("optional", [False, True], ids=["mandatory", "formats"])
def test_the_official_suite_passes(optional: bool) -> None:
    wrong: list[str] = []
    checked = refused = 0
    for file, group in _groups():
        if file.startswith("optional/") is not optional or group["description"] == OWN_VOCABULARY:
            continue
        try:
            validator = compiled(group["schema"], formats=optional)
        except SchemaError:
            assert ELSEWHERE in json.dumps(group["schema"]) or ELSEWHERE in str(group), group["description"]
            refused += 1
            continue
        for case in group["tests"]:
            checked += 1
            if validator.is_valid(case["data"]) is not case["valid"]:
                wrong.append(f"{file}: {group['description']}: {case['description']}")
    assert not wrong
    assert checked > (700 if optional else 1000)
    assert refused <= 20


@pytest.mark.parametrize("scheme", ["file", "http", "https"])
def test_a_schema_can_open_nothing(scheme: str, tmp_path: Path) -> None:
    (tmp_path / "other.json").write_text("{}")
    with socket.create_server(("127.0.0.1", 0)) as server:
        asked = threading.Event()
        server.settimeout(0.5)

        def listen() -> None:
            try:
                server.accept()
                asked.set()
            except TimeoutError:
                return

        listener = threading.Thread(target=listen)
        listener.start()
        at = tmp_path / "other.json" if scheme == "file" else f"127.0.0.1:{server.getsockname()[1]}/x"
        problem = problems({"$ref": f"{scheme}://{at}"}, {}, "arguments")
        listener.join()
    assert problem is not None
    assert "another document" in problem
    assert not asked.is_set()


@pytest.mark.parametrize(
    ("schema", "value", "said"),
    [
        ({"type": "object", "required": ["a"]}, {}, "arguments: 'a' is a required property"),
        (
            {"properties": {"a": {"items": {"type": "string"}}}},
            {"a": ["x", 3]},
            "arguments.a[1]: 3 is not of type 'string'",
        ),
        ({"properties": {"a": {"format": "email"}}}, {"a": "nobody"}, "arguments.a: 'nobody' is not a 'email'"),
        ({"type": "objct"}, {}, "its schema is not a JSON Schema"),
        ({"$ref": "#/$defs/none"}, {}, "its schema is not a JSON Schema"),
        ({"properties": {"a": {"type": "number"}}}, {"a": float("nan")}, "arguments.a"),
    ],
)
def test_a_problem_names_its_field(schema: JsonObject, value: JsonValue, said: str) -> None:
    found = problems(schema, value, "arguments")
    assert found is not None
    assert said in found


def test_many_problems_are_cut_short() -> None:
    found = problems({"items": {"type": "string"}}, list(range(100)), "arguments")
    assert found is not None
    assert found.endswith("and 95 more")


def test_a_pattern_that_never_ends_is_given_up() -> None:
    schema: JsonObject = {"properties": {"a": {"pattern": r"^(?=(a+)+$)(a|aa)+\1z$"}}}
    assert problems(schema, {"a": "a" * 20_000 + "b"}, "arguments") is not None


@pytest.mark.parametrize("depth", [99, 1_000, 100_000])
def test_deep_nesting_ends_in_an_answer(depth: int) -> None:
    value: JsonValue = []
    for _ in range(depth):
        value = [value]
    schema: JsonObject = {"$defs": {"n": {"type": "array", "items": {"$ref": "#/$defs/n"}}}, "$ref": "#/$defs/n"}
    found = problems(schema, value, "arguments")
    assert found == (None if depth < MAX_DEPTH else f"arguments: nested deeper than {MAX_DEPTH} levels")
