"""A tool as written is checked before anything uses it; every complaint names file, field and remedy."""

import hashlib
import re
import shutil
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tools.catalog import BUILT_IN, BUILT_IN_NAMES, LoadedTool, load_tool, load_tools
from tools.contract import Effect, Repeat
from tools.errors import ToolError

GOOD = """
name: mine
version: "1"
description: Does it.
effect: read
parameters: {type: object, properties: {path: {type: string}}}
"""


def write(home: Path, manifest: str = GOOD, program: str = "print(1)", name: str = "mine") -> Path:
    folder = home / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tool.yaml").write_text(manifest)
    (folder / "run.py").write_text(program)
    return folder


@pytest.fixture(scope="module")
def built_in() -> dict[str, LoadedTool]:
    return load_tools()


def test_built_in_tools_are_exactly_the_listed_ones(built_in: dict[str, LoadedTool]) -> None:
    assert tuple(built_in) == BUILT_IN_NAMES
    assert {path.parent.name for path in BUILT_IN.glob("*/tool.yaml")} == set(BUILT_IN_NAMES)
    for tool in built_in.values():
        assert tool.spec.program_sha256 == hashlib.sha256(tool.program).hexdigest()
        assert tool.spec.parameters["additionalProperties"] is False


def test_effects_that_policy_relies_on(built_in: dict[str, LoadedTool]) -> None:
    """Only delete_files can remove what is not its own, so no other tool may write where the inputs are."""
    effects = {name: tool.spec.effect for name, tool in built_in.items()}
    assert effects["delete_files"] is Effect.DESTRUCTIVE
    assert effects["http_request"] is Effect.SEND
    assert built_in["http_request"].spec.egress
    assert {name for name, tool in built_in.items() if tool.spec.workspace == "write"} == {"write_file", "delete_files"}
    once = {name for name, tool in built_in.items() if tool.spec.repeat is Repeat.AT_MOST_ONCE}
    assert once == {"delete_files", "http_request"}


@pytest.mark.parametrize("name", BUILT_IN_NAMES)
def test_programs_use_the_standard_library_only(name: str) -> None:
    imports = re.findall(r"^(?:import|from) ([a-z_]+)", (BUILT_IN / name / "run.py").read_text(), re.MULTILINE)
    assert set(imports) <= sys.stdlib_module_names


def test_user_tools_join_the_built_in_ones(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "notes").mkdir()
    tools = load_tools([BUILT_IN, tmp_path, tmp_path / "not there"])
    assert list(tools)[-1] == "mine"
    assert tools["mine"].spec.repeat is Repeat.SAFE
    assert tools["mine"].spec.limits.timeout_s == 30


@pytest.mark.parametrize(
    ("change", "field", "remedy"),
    [
        (('version: "1"', "version: 1"), "version", "quotes"),
        (("effect: read", "effect: harmless"), "effect", "Correct"),
        (("effect: read", ""), "effect", "Add it"),
        (("effect: read", "effect: read\nprivileged: true"), "privileged", "known are"),
        (("effect: read", "effect: read\neffect: write"), "line", "syntax"),
        (("effect: read", "effect: read\nlimits: {timeout_s: 0}"), "limits.timeout_s", "Correct"),
        (("effect: read", "effect: read\nlimits: {memory: 1}"), "limits.memory", "Remove"),
        (("effect: read", "effect: read\negress: ['http://x']"), "egress.0", "Correct"),
        (("effect: read", "effect: read\negress: ['127.0.0.1']"), "egress.0", "Correct"),
        (("effect: read", "effect: read\negress: ['api.example.org:22']"), "egress.0", "Correct"),
        (("effect: read", "effect: read\negress: ['*.*.example.org']"), "egress.0", "Correct"),
        (("effect: read", "effect: read\negress: ['localhost']"), "egress.0", "Correct"),
        (
            ("effect: read", "effect: read\negress_credentials: [{host: a.example.org, secret: x}]"),
            "egress_credentials.0.host",
            "Name the host",
        ),
        (
            (
                "effect: read",
                "effect: read\negress: [a.org]\negress_credentials: [{host: a.org, secret: x, header: Host}]",
            ),
            "egress_credentials.0.header",
            "another header",
        ),
        (("effect: read", "effect: read\nsecrets: [../x]"), "secrets.0", "Correct"),
        (("effect: read", "effect: read\nsecrets: [x]\nworkspace: write"), "secrets", "egress_credentials"),
        (("name: mine", "name: other"), "name", "one name"),
        (("name: mine", "name: ../mine"), "name", "Correct"),
        (("type: object,", "type: array,"), "parameters.type", "object"),
        (("type: string", "type: text"), "parameters.properties.path.type", "Correct"),
        (("type: string", "$ref: 'file:///etc/x'"), "parameters", "within the schema"),
        (("description: Does it.", "description: ["), "line", "syntax"),
    ],
)
def test_a_bad_manifest_names_field_and_remedy(
    tmp_path: Path, change: tuple[str, str], field: str, remedy: str
) -> None:
    assert change[0] in GOOD
    folder = write(tmp_path, GOOD.replace(*change))
    with pytest.raises(ToolError) as caught:
        load_tool(folder)
    assert caught.value.file == folder / "tool.yaml"
    assert caught.value.field.startswith(field)
    assert remedy in caught.value.remedy
    assert str(folder) in str(caught.value)


def test_a_bad_program_names_its_line(tmp_path: Path) -> None:
    folder = write(tmp_path, program="x = 1\nif x\n")
    with pytest.raises(ToolError) as caught:
        load_tool(folder)
    assert (caught.value.file, caught.value.field) == (folder / "run.py", "line 2")


def test_a_missing_program(tmp_path: Path) -> None:
    folder = write(tmp_path)
    (folder / "run.py").unlink()
    with pytest.raises(ToolError, match=r"tool\.yaml and run\.py"):
        load_tools([tmp_path])


def test_sizes_are_bounded(tmp_path: Path) -> None:
    with pytest.raises(ToolError, match="larger than"):
        load_tool(write(tmp_path, program="#" * (300 << 10)))
    with pytest.raises(ToolError, match="larger than"):
        load_tool(write(tmp_path, GOOD + "#" * (70 << 10)))


def test_no_tool_replaces_another(tmp_path: Path) -> None:
    shutil.copytree(BUILT_IN / "read_file", tmp_path / "read_file")
    with pytest.raises(ToolError, match="exists already"):
        load_tools([BUILT_IN, tmp_path])


@given(text=st.text(max_size=200))
def test_any_text_is_a_tool_error(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    folder = tmp_path_factory.getbasetemp() / "any" / "mine"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tool.yaml").write_text(text, errors="replace")
    with pytest.raises(ToolError):
        load_tool(folder)


def test_a_program_that_reconciles(tmp_path: Path) -> None:
    once = GOOD + "repeat: at_most_once\nreconcile: look.py\n"
    folder = write(tmp_path, once)
    (folder / "look.py").write_text("print('{}')")
    tool = load_tool(folder)
    assert tool.reconcile == b"print('{}')"
    assert tool.spec.reconcile_sha256 == hashlib.sha256(tool.reconcile).hexdigest()
    assert load_tool(write(tmp_path / "without")).spec.reconcile_sha256 is None


@pytest.mark.parametrize(
    ("manifest", "content", "problem"),
    [
        ("repeat: safe\nreconcile: look.py\n", "pass", "beside `repeat: safe`"),
        ("repeat: at_most_once\nreconcile: other.py\n", "pass", "No such file"),
        ("repeat: at_most_once\nreconcile: run.py\n", "pass", "own program"),
        ("repeat: at_most_once\nreconcile: look.py\n", "if", "not Python"),
        ("repeat: at_most_once\nreconcile: look.py\n", "", "is empty"),
        ("repeat: at_most_once\nreconcile: ../look.py\n", "pass", "pattern"),
        ("repeat: at_most_once\nreconcile: /etc/passwd\n", "pass", "pattern"),
    ],
)
def test_programs_that_cannot_reconcile(tmp_path: Path, manifest: str, content: str, problem: str) -> None:
    folder = write(tmp_path, GOOD + manifest)
    (folder / "look.py").write_text(content)
    with pytest.raises(ToolError, match=problem):
        load_tool(folder)
