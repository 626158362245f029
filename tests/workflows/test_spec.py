"""The automation's model: strict, immutable, and under a digest that covers every part."""

import pytest
from pydantic import ValidationError

from tools.catalog import load_tools
from tools.contract import JsonObject, ToolSpec
from workflows.contracts import RunRequest
from workflows.spec import AutomationFile, AutomationSpec, RuleThen, resolve

TOOLS = {name: tool.spec for name, tool in load_tools().items()}
FILE = AutomationFile.model_validate(
    {
        "apiVersion": "gatehouse/v1", "name": "own", "version": "1.2", "description": "d", "owner": "o",
        "instructions": "i", "inputs": {"type": "object"}, "tools": ["list_files"], "output": {"type": "object"},
        "rules": [{"id": "r", "when": "true", "then": {"calls": [{"id": "c", "tool": "list_files"}]}}],
    }
)  # fmt: skip


def resolved(definition: AutomationFile = FILE, *tools: ToolSpec) -> AutomationSpec:
    return resolve(definition, tools or (TOOLS["list_files"],))


CHANGES: list[JsonObject] = [
    {"apiVersion": "gatehouse/v2"}, {"name": "Own"}, {"name": "own\n"}, {"name": ""}, {"version": "1.2.3.4"},
    {"version": "v1"}, {"tools": []}, {"instructions": ""}, {"unknown": 1}, {"budgets": {"steps": 0}},
    {"budgets": {"stepz": 1}}, {"approvals": {"deadline_s": 0}}, {"description": "x" * 501},
    {"rules": [{"id": "r", "when": "", "then": {"answer": {}}}]},
]  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
def test_strict(change: JsonObject) -> None:
    with pytest.raises(ValidationError):
        AutomationFile.model_validate(FILE.model_dump() | change)


def test_a_rule_does_something() -> None:
    with pytest.raises(ValidationError, match="calls"):
        RuleThen()


def test_immutable() -> None:
    with pytest.raises(ValidationError):
        FILE.name = "other"  # pyright: ignore[reportAttributeAccessIssue]


def test_optional_parts_of_a_rule_call_have_defaults() -> None:
    call = FILE.rules[0].then.calls[0]
    assert (call.optional, call.when, call.args) == (False, None, {})


def test_the_digest_covers_definition_and_tools() -> None:
    tool = TOOLS["list_files"]
    digests = {
        resolved().digest,
        resolved(FILE.model_copy(update={"instructions": "j"})).digest,
        resolved(FILE.model_copy(update={"rules": ()})).digest,
        resolved(FILE, tool.model_copy(update={"program_sha256": "0" * 64})).digest,
        resolved(FILE, tool, tool).digest,
    }
    assert len(digests) == 5
    assert resolved().digest == resolved(AutomationFile.model_validate_json(FILE.model_dump_json())).digest


def test_a_spec_survives_the_wire_and_a_newer_field() -> None:
    spec = resolved()
    assert AutomationSpec.model_validate_json(spec.model_dump_json()) == spec
    assert AutomationSpec.model_validate(spec.model_dump() | {"added_later": 1}) == spec
    assert "automation" in RunRequest.model_fields


def test_a_tool_outside_the_automation_is_none() -> None:
    spec = resolved()
    assert spec.tool("list_files") == TOOLS["list_files"]
    assert spec.tool("delete_files") is None
