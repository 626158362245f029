"""`rules.next`: the first rule that matches, its calls in order, its answer; anything unclear ends the rule, told."""

import json
import subprocess
import sys
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import cast

import pytest
from pydantic import JsonValue
from temporalio.testing import ActivityEnvironment

from tools.catalog import load_tools
from tools.contract import JsonObject, ToolCall
from worker.activities.rules import RuleActivities, next_step
from worker.automations import automation_paths, read_all
from workflows.contracts import RulesAnswer, RulesAsked
from workflows.schemas import problems
from workflows.spec import AutomationFile, AutomationSpec, FallbackRule, resolve

TOOLS = load_tools()
SPECS = {name: tool.spec for name, tool in TOOLS.items()}
BUILT_IN = {a.name: a for a in read_all(automation_paths(None), SPECS)}


def automation(*rules: Mapping[str, object]) -> AutomationSpec:
    base = BUILT_IN["log-triage"]
    return resolve(base.model_copy(update={"rules": tuple(FallbackRule.model_validate(r) for r in rules)}), ())


def ask(spec: AutomationSpec, rule: str | None = None, **results: JsonObject) -> RulesAnswer:
    return next_step(
        RulesAsked(automation=spec, inputs={"a": 1}, files=("app.log",), failure="down", rule=rule, results=results)
    )


def done(outcome: str = "succeeded", **data: JsonValue) -> JsonObject:
    return {"outcome": outcome, "content": json.dumps(data), "data": data}


CALLS: dict[str, object] = {
    "id": "two", "when": "true",
    "then": {
        "calls": [
            {"id": "one", "tool": "list_files", "args": {"path": "${files[0]}"}},
            {"id": "two", "tool": "delete_files", "args": {"paths": "${results.one.data.files}"}, "optional": True,
             "when": "size(results.one.data.files) > 0"},
        ],
        "answer": {"summary": "${has(results.two) ? results.two.outcome : 'skipped'}"},
    },
}  # fmt: skip


async def test_as_an_activity() -> None:
    asked = RulesAsked(automation=automation(CALLS), inputs={}, files=("app.log",), failure="down")
    (activity,) = RuleActivities().all()
    answer = await ActivityEnvironment().run(cast("Callable[[RulesAsked], Awaitable[RulesAnswer]]", activity), asked)
    assert answer == RulesAnswer(
        rule="two", call_id="one", call=ToolCall(id="two-one", tool="list_files", arguments={"path": "app.log"})
    )


def test_calls_in_order_then_the_answer() -> None:
    spec = automation(CALLS)
    second = ask(spec, "two", one=done(files=["x"]))
    assert second.call == ToolCall(id="two-two", tool="delete_files", arguments={"paths": ["x"]})
    assert ask(spec, "two", one=done(files=["x"]), two=done()).answer == {"summary": "succeeded"}


def test_a_call_that_is_not_wanted_is_skipped() -> None:
    assert ask(automation(CALLS), "two", one=done(files=[])).answer == {"summary": "skipped"}


@pytest.mark.parametrize("outcome", ["denied", "expired", "failed", "cancelled", "unknown"])
def test_only_an_optional_call_may_fail(outcome: str) -> None:
    spec = automation(CALLS)
    assert ask(spec, "two", one=done(files=["x"]), two=done(outcome)).answer == {"summary": outcome}
    ended = ask(spec, "two", one=done(outcome))
    assert (ended.call, ended.answer, ended.problem) == (None, None, f"rule two: call one: {outcome}")


def test_a_result_without_the_expected_data_ends_the_rule_or_skips_an_optional_call() -> None:
    assert ask(automation(CALLS), "two", one=done()).answer == {"summary": "skipped"}
    needed = json.loads(json.dumps(CALLS).replace('"optional": true', '"optional": false'))
    ended = ask(automation(needed), "two", one=done())
    assert ended.problem is not None
    assert "rule two: call two: " in ended.problem


def test_first_match_wins_and_a_rule_that_cannot_be_evaluated_does_not_apply(caplog: pytest.LogCaptureFixture) -> None:
    answer = {"answer": {"summary": "x"}}
    broken = {"id": "broken", "when": "inputs.missing > 1", "then": answer}
    no = {"id": "no", "when": "inputs.a == 2", "then": answer}
    yes = {"id": "yes", "when": "inputs.a == 1 && failure.contains('down')", "then": answer}
    later = {"id": "later", "when": "true", "then": answer}
    assert ask(automation(broken, no, yes, later)).rule == "yes"
    assert "broken" in caplog.text
    none = ask(automation(broken, no))
    assert none.rule is None
    assert none.problem is not None
    assert "rule broken: when: 'inputs.missing > 1': no such key" in none.problem
    assert ask(automation(no)) == RulesAnswer(rule=None)
    assert ask(automation()) == RulesAnswer(rule=None)


def test_an_answer_that_cannot_be_rendered_is_a_problem() -> None:
    spec = automation({"id": "r", "when": "true", "then": {"answer": {"summary": "${inputs.missing}"}}})
    assert "rule r: answer: " in (ask(spec).problem or "")


def test_a_rule_without_an_answer_goes_on_to_a_human() -> None:
    then = {"calls": [{"id": "one", "tool": "list_files"}]}
    assert ask(automation({"id": "r", "when": "true", "then": then}), "r", one=done()) == RulesAnswer(rule="r")


def test_a_rule_that_is_gone_is_a_problem() -> None:
    assert "no rule 'gone'" in (ask(automation(), "gone").problem or "")


# ------------------------------------------------- the built-in automations against the real programs


def run(call: ToolCall, workspace: Path) -> JsonObject:
    """Run the real program of a tool on a workspace made for this test, and give its result as rules read it."""
    assert problems(SPECS[call.tool].parameters, call.arguments, "arguments") is None
    program = TOOLS[call.tool].folder / "run.py"
    asked = json.dumps({"arguments": call.arguments, "key": "k", "call_id": call.id})
    ended = subprocess.run(
        [sys.executable, "-I", str(program)], input=asked, cwd=workspace, capture_output=True, text=True, check=False
    )
    if ended.returncode:
        return {"outcome": "failed", "content": ended.stderr, "data": None}
    return {"outcome": "succeeded", "content": ended.stdout, "data": json.loads(ended.stdout)}


def follow(
    definition: AutomationFile, workspace: Path, inputs: JsonObject, refuse: tuple[str, ...] = ()
) -> tuple[JsonObject, list[ToolCall]]:
    spec = resolve(definition, tuple(SPECS[t] for t in definition.tools))
    files = tuple(
        p.relative_to(workspace / "in").as_posix() for p in sorted((workspace / "in").rglob("*")) if p.is_file()
    )
    results: dict[str, JsonObject] = {}
    rule, made = None, list[ToolCall]()
    for _ in range(20):
        said = next_step(
            RulesAsked(automation=spec, inputs=inputs, files=files, failure="no model: 429", rule=rule, results=results)
        )
        assert said.problem is None
        rule = said.rule
        if said.call is None or said.call_id is None:
            assert said.answer is not None
            assert problems(definition.output, said.answer, "answer") is None
            return said.answer, made
        made.append(said.call)
        refused: JsonObject = {"outcome": "denied", "content": "no", "data": None}
        results[said.call_id] = refused if said.call.tool in refuse else run(said.call, workspace)
    raise AssertionError("the rule never ends")


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    return tmp_path


def test_log_triage_by_rules(workspace: Path) -> None:
    inside = workspace / "in"
    (inside / "app.log").write_text(
        "2026-05-04T12:00:00Z INFO up\n" + "2026-05-04T12:00:01Z ERROR disk `full` é ${x}\n" * 30
    )
    (inside / "app.log.1").write_text("2026-05-03T12:00:00Z FATAL out of memory\n")
    (inside / "app.log.2.gz").write_bytes(b"\x1f\x8b broken")
    answer, made = follow(BUILT_IN["log-triage"], workspace, {})
    assert [c.tool for c in made] == ["list_files", "search_text", "list_files", "write_file", "delete_files"]
    assert made[-1].arguments == {"paths": ["in/app.log.1", "in/app.log.2.gz"]}
    assert answer["matches"] == 31
    assert answer["deleted"] == ["in/app.log.1", "in/app.log.2.gz"]
    assert [p.name for p in inside.iterdir()] == ["app.log"]
    report = (workspace / "out/report.md").read_text()
    assert "31 of 32 lines match `ERROR|FATAL`" in report
    assert "- 30 times, first in `in/app.log` line 2: `2026-05-04T12:00:01Z ERROR disk `full` é ${x}`" in report
    assert "no model: 429" in report


def test_log_triage_by_rules_when_a_human_says_no(workspace: Path) -> None:
    (workspace / "in/app.log.1").write_text("WARN x\n")
    answer, made = follow(BUILT_IN["log-triage"], workspace, {"pattern": "WARN"}, refuse=("delete_files",))
    assert made[-1].tool == "delete_files"
    assert answer["deleted"] == []
    assert "kept (denied)" in str(answer["summary"])
    assert (workspace / "in/app.log.1").exists()


def test_log_triage_by_rules_with_nothing_rotated(workspace: Path) -> None:
    (workspace / "in/app.log").write_text("fine\n")
    answer, made = follow(BUILT_IN["log-triage"], workspace, {})
    assert [c.tool for c in made] == ["list_files", "search_text", "list_files", "write_file"]
    assert answer["matches"] == 0
    assert "none to remove" in str(answer["summary"])


@pytest.mark.parametrize(("inputs", "gone"), [({}, {"a.tmp", "d.bak"}), ({"pattern": "*.old"}, {"c.old"})])
def test_disk_cleanup_by_rules(workspace: Path, inputs: JsonObject, gone: set[str]) -> None:
    for name in ("a.tmp", "b.txt", "c.old", "d.bak"):
        (workspace / "in" / name).write_text("x" * 10)
    answer, made = follow(BUILT_IN["disk-cleanup"], workspace, inputs)
    assert {p.name for p in (workspace / "in").iterdir()} == {"a.tmp", "b.txt", "c.old", "d.bak"} - gone
    assert answer["freed_bytes"] == 10 * len(gone)
    assert made[-1].tool == "delete_files"
    assert f"Together {10 * len(gone)} bytes" in (workspace / "out/report.md").read_text()


def test_disk_cleanup_by_rules_of_more_than_one_call_takes(workspace: Path) -> None:
    for n in range(130):
        (workspace / f"in/{n:03}.tmp").write_text("x")
        (workspace / f"in/{n:03}.bak").write_text("x")
    answer, _ = follow(BUILT_IN["disk-cleanup"], workspace, {})
    deleted = answer["deleted"]
    assert isinstance(deleted, list)
    assert len(deleted) == 100


def test_a_folder_with_nothing_to_clean(workspace: Path) -> None:
    (workspace / "in/b.txt").write_text("x")
    answer, made = follow(BUILT_IN["disk-cleanup"], workspace, {})
    assert "none found" in str(answer["summary"])
    assert made[-1].tool == "write_file"
