"""Automation files: loaded whole or not at all, and every mistake named with file, line, field and remedy."""

import json
from pathlib import Path

import pytest

from tools.catalog import load_tools
from worker.automations import (
    AutomationError,
    Catalog,
    automation_paths,
    json_schema,
    read_all,
    read_automation,
    validate,
)
from worker.store.blobs import Blobs

ROOT = Path(__file__).parents[2]
TOOLS = load_tools()
SPECS = {name: tool.spec for name, tool in TOOLS.items()}

GOOD = """\
apiVersion: gatehouse/v1
name: own
version: "1"
description: Does a thing.
owner: us
instructions: Do the thing.
inputs: {type: object}
tools: [list_files, write_file]
models: ["openai:gpt-5.2"]
rules:
  - id: only
    when: size(files) > 0
    then:
      calls:
        - id: listing
          tool: list_files
          args: {path: in}
        - id: report
          tool: write_file
          args: {path: out/a.md, content: "${results.listing.content}"}
      answer: {summary: "${failure}"}
output:
  type: object
  required: [summary]
  additionalProperties: false
  properties: {summary: {type: string}}
"""


def written(tmp_path: Path, text: str, name: str = "own.yaml") -> Path:
    file = tmp_path / "automations" / name
    file.parent.mkdir(exist_ok=True)
    file.write_text(text)
    return file


def test_the_built_in_automations_are_right() -> None:
    names = {a.name for a in read_all(automation_paths(None), SPECS)}
    assert names == {"log-triage", "disk-cleanup"}


def test_good_is_good(tmp_path: Path) -> None:
    assert validate(written(tmp_path, GOOD), SPECS) == []


@pytest.mark.parametrize(
    ("old", "new", "line", "field", "says"),
    [
        ("name: own", "name: other", 2, "name", "call the file other.yaml"),
        ("name: own", "name: Own", 2, "name", "pattern"),
        ('version: "1"', "version: 1", 3, "version", "quotes"),
        ("owner: us\n", "", 1, "owner", "missing"),
        ("owner: us", "owner: us\nownr: x", 6, "ownr", "did you mean 'owner'?"),
        ("[list_files, write_file]", "[list_file, write_file]", 8, "tools.0", "did you mean 'list_files'?"),
        ("[list_files, write_file]", "[list_files, list_files, write_file]", 8, "tools.1", "twice"),
        ("[list_files, write_file]", "[write_file]", 16, "rules.0.then.calls.0.tool", "not among the"),
        ("openai:gpt-5.2", "gpt-5.2", 9, "models.0", "provider:name"),
        ("inputs: {type: object}", "inputs: {type: objekt}", 7, "inputs.type", "not a JSON Schema"),
        ("inputs: {type: object}", "inputs: {type: array}", 7, "inputs.type", "object"),
        ("inputs: {type: object}", "inputs: {type: object, $ref: 'file:///x'}", 7, "inputs", "another document"),
        ("size(files) > 0", "size(files) >", 12, "rules.0.when", "rule 'only': syntax"),
        ("size(files) > 0", "size(file) > 0", 12, "rules.0.when", "unknown variable 'file'"),
        ("size(files) > 0", "results.x == 1", 12, "rules.0.when", "unknown variable 'results'"),
        ("size(files) > 0", "files.map(f, f) == files", 12, "rules.0.when", "`map`"),
        ("{path: in}", "{path: in, patern: x}", 17, "rules.0.then.calls.0.args.patern", "did you mean 'pattern'?"),
        ("{path: out/a.md, content", "{contents", 20, "rules.0.then.calls.1.args", "'path' is required"),
        ("results.listing.content", "results.report.content", 20, "rules.0.then.calls.1.args", "not an earlier call"),
        ("results.listing.content}", "results.listing.content", 20, "rules.0.then.calls.1.args", "closing"),
        ("- id: report", "- id: listing", 18, "rules.0.then.calls.1.id", "taken"),
        ("{summary: \"${failure}\"}", "{sumary: x}", 21, "rules.0.then.answer.sumary", "did you mean 'summary'?"),
        ("{summary: \"${failure}\"}", "{}", 21, "rules.0.then.answer", "'summary' is required"),
        ("args: {path: in}", "optional: perhaps", 17, "rules.0.then.calls.0.optional", "boolean"),
    ],
)  # fmt: skip
def test_a_mistake_is_named(tmp_path: Path, old: str, new: str, line: int, field: str, says: str) -> None:
    assert old in GOOD
    file = written(tmp_path, GOOD.replace(old, new, 1))
    problems = validate(file, SPECS)
    assert (str(file), line, field) in [(p.file, p.line, p.field) for p in problems], problems
    assert says in "\n".join(map(str, problems))
    assert all(p.problem and p.remedy for p in problems)


def test_all_mistakes_of_all_files_are_told(tmp_path: Path) -> None:
    files = [written(tmp_path, GOOD.replace("name: own", "name: x"), "a.yaml"), written(tmp_path, "", "b.yaml")]
    with pytest.raises(AutomationError) as caught:
        read_all(files, SPECS)
    assert {Path(p.file).name for p in caught.value.problems} == {"a.yaml", "b.yaml"}


def test_no_automation_replaces_another(tmp_path: Path) -> None:
    copy = written(tmp_path, (ROOT / "workflows/automations/log-triage.yaml").read_text(), "log-triage.yaml")
    with pytest.raises(AutomationError, match=r"is taken by .*workflows/automations/log-triage.yaml") as caught:
        read_all(automation_paths(tmp_path), SPECS)
    assert caught.value.file == str(copy)


async def test_catalog_resolves_and_stores_programs(tmp_path: Path) -> None:
    written(tmp_path, GOOD)
    blobs = Blobs(tmp_path / "blobs")
    catalog = await Catalog.load(tmp_path, blobs, TOOLS)
    assert list(catalog.automations) == ["disk-cleanup", "log-triage", "own"]
    own = catalog.get("own")
    assert own is not None
    assert [t.name for t in own.tools] == ["list_files", "write_file"]
    assert catalog.get("nope") is None
    for tool in own.tools:
        assert await blobs.read(tool.program_sha256) == TOOLS[tool.name].program
    again = await Catalog.load(tmp_path, blobs, TOOLS)
    assert {n: a.digest for n, a in again.automations.items()} == {n: a.digest for n, a in catalog.automations.items()}


async def test_a_broken_file_loads_nothing(tmp_path: Path) -> None:
    written(tmp_path, GOOD.replace("size(files)", "sise(files)"))
    with pytest.raises(AutomationError, match="unknown function 'sise'"):
        await Catalog.load(tmp_path, Blobs(tmp_path / "blobs"), TOOLS)


def test_the_schema_for_editors_is_current() -> None:
    stored = json.loads((ROOT / "docs/schemas/automation.schema.json").read_text())
    assert stored == json_schema(), "run: python -m worker.automations > docs/schemas/automation.schema.json"


def test_reading_is_strict_about_yaml(tmp_path: Path) -> None:
    with pytest.raises(AutomationError, match="given twice"):
        read_automation(written(tmp_path, GOOD + "owner: them\n"), SPECS)
