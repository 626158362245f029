"""The command line against a real API: what is printed where, the exit statuses, and what an error tells to do."""

import asyncio
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from typer.testing import CliRunner

from api.cli import app
from api.commands.account import account
from api.commands.approvals import edited_arguments
from api.commands.client import Event
from api.commands.follow import describe
from api.commands.output import until, visible
from api.commands.runs import parse_inputs
from api.commands.session import CommandError
from tests.api.running import HOME, Api
from workflows.contracts import Phase, Rung, RunResult

PROGRAM = [sys.executable, "-m", "api.cli"]


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def command(*arguments: str, **env: str) -> Done:
    kept = {k: v for k, v in os.environ.items() if not k.startswith("GATEHOUSE_")}
    done = subprocess.run(
        [*PROGRAM, *arguments], env=kept | env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=240,
        check=False,
    )  # fmt: skip
    return Done(done.returncode, done.stdout, done.stderr)


class Cli:
    """`gatehouse` with the key of somebody."""

    def __init__(self, api: Api) -> None:
        self._api = api

    async def __call__(self, who: str, *arguments: str, **env: str) -> Done:
        await self._api.client(who)
        ours = {"GATEHOUSE_URL": self._api.url, "GATEHOUSE_KEY": self._api.keys[who]}
        ours |= {"GATEHOUSE_DATA": str(self._api.settings.data)}
        return await asyncio.to_thread(command, *arguments, **(ours | env))


@pytest.fixture(scope="module")
async def cli(api: Api) -> Cli:
    return Cli(api)


# ------------------------------------------------------------ without a system


def test_help_is_quick_and_documents_the_exit_statuses() -> None:
    done = command("--help")
    assert done.code == 0
    assert "0 ok, 1 failed, 2 usage, 3 denied, 4 waiting for approval" in done.out
    loaded = subprocess.run(
        [sys.executable, "-X", "importtime", *PROGRAM[1:], "--help"], capture_output=True, text=True, check=True
    )
    heavy = ("pydantic_ai", "temporalio", "sqlalchemy", "fastapi", "httpx", "docker", "casbin", "pydantic_settings")
    assert not [name for name in heavy if f" {name}\n" in loaded.stderr]


@pytest.mark.parametrize(
    "path",
    [
        "up", "down", "doctor", "run", "runs list", "runs show", "runs cancel", "runs events", "runs artifacts",
        "approvals list", "approvals show", "approvals approve", "approvals deny", "audit verify", "audit export",
        "audit search", "audit anchor", "audit prove", "audit rotate-key", "audit events", "audit grants",
        "policy check", "tools list", "tools show", "automations list", "automations show",
        "automations validate", "automations schema", "keys create", "keys list", "keys revoke",
        "policy explain", "policy lint", "policy test", "policy diff", "policy simulate", "policy show",
        "policy export", "policy apply", "policy reject", "policy proposals", "policy history", "policy suggest",
    ],
)  # fmt: skip
def test_every_command_exists(path: str) -> None:
    done = CliRunner().invoke(app, [*path.split(), "--help"])
    assert done.exit_code == 0, done.output
    reads = ("list", "show", "events", "artifacts", "verify", "search", "check", "validate", "doctor", "run")
    if path.rsplit(maxsplit=1)[-1] in reads:
        assert "--json" in done.output


def test_usage_errors_are_2(tmp_path: Path) -> None:
    assert command("nonsense").code == 2
    assert command("run").code == 2
    assert command("--key-file", str(tmp_path / "none"), "runs", "list").code == 2
    assert command("doctor", GATEHOUSE_API_PORT="many").code == 2


def test_without_a_key_it_says_how_to_get_one(tmp_path: Path) -> None:
    done = command("runs", "list", GATEHOUSE_DATA=str(tmp_path))
    assert done.code == 3
    assert done.out == ""
    assert "gatehouse keys create" in done.err


def test_without_an_api_it_says_how_to_start_one(tmp_path: Path) -> None:
    done = command(
        "runs", "list", GATEHOUSE_DATA=str(tmp_path), GATEHOUSE_KEY="gh_x", GATEHOUSE_URL="http://127.0.0.1:1"
    )
    assert done.code == 1
    assert "does not answer" in done.err
    assert "gatehouse up" in done.err


def test_the_address_of_the_last_start_is_the_default(tmp_path: Path) -> None:
    (tmp_path / "addresses.json").write_text('{"api": "http://127.0.0.1:2"}')
    assert "http://127.0.0.1:2" in command("runs", "list", GATEHOUSE_DATA=str(tmp_path), GATEHOUSE_KEY="gh_x").err


def test_down_where_nothing_runs(tmp_path: Path) -> None:
    done = command("down", GATEHOUSE_DATA=str(tmp_path))
    assert (done.code, done.err) == (0, "nothing was running\n")


def test_audit_without_a_store_says_so(tmp_path: Path) -> None:
    done = command("audit", "verify", GATEHOUSE_DATA=str(tmp_path))
    assert done.code == 1
    assert "there is no store" in done.err


def test_a_bad_automation_is_named_with_file_line_and_remedy(tmp_path: Path) -> None:
    (tmp_path / "automations").mkdir()
    good = command("automations", "validate", str(HOME))
    assert good.code == 0, good.out
    (tmp_path / "automations" / "mine.yaml").write_text("apiVersion: gatehouse/v1\nname: mine\ncolour: red\n")
    bad = command("automations", "validate", str(tmp_path), "--json")
    assert bad.code == 1
    assert any("mine.yaml:3: colour" in problem for problem in bad.json["problems"])
    assert command("automations", "validate", str(tmp_path / "none")).code == 2


def test_the_schema_is_a_json_schema() -> None:
    Draft202012Validator.check_schema(command("automations", "schema").json)


# ------------------------------------------------------------ against the API


async def test_a_run_is_started_listed_shown_and_cancelled(cli: Cli, tmp_path: Path) -> None:
    log = tmp_path / "app.log"
    log.write_text("ERROR one\n")
    arguments = ("run", "tidy", "--file", str(log), "--input", "path=in/app.log", "--idempotency-key", "cli-1")
    started = await cli("operator", *arguments)
    assert started.code == 0, started.err
    run_id = started.out.strip()
    assert run_id.startswith("run_")
    assert f"gatehouse runs events {run_id} --follow" in started.err
    again = await cli("operator", *arguments[:2], *arguments[4:])
    assert again.code != 0, "the same key for another request must not pass"
    listed = await cli("operator", "runs", "list", "--json")
    assert run_id in [r["id"] for r in listed.json]
    table = await cli("operator", "runs", "list", "--automation", "tidy")
    assert table.out.splitlines()[0].split() == ["ID", "AUTOMATION", "PHASE", "RUNG", "REQUESTER", "CREATED"]
    assert "\033" not in table.out
    shown = await cli("operator", "runs", "show", run_id)
    assert "queued" in shown.out
    events = await cli("operator", "runs", "events", run_id, "--json")
    records = [json.loads(line) for line in events.out.splitlines()]
    assert [r["type"] for r in records] == ["run.requested"]
    cancelled = await cli("operator", "runs", "cancel", run_id)
    assert cancelled.code == 0, cancelled.err


async def test_refusals_and_absences_have_their_statuses(cli: Cli) -> None:
    denied = await cli("viewer", "run", "tidy", "--input", "path=in/a")
    assert denied.code == 3
    assert "operator" in denied.err
    unknown = await cli("operator", "runs", "show", "run_none")
    assert (unknown.code, unknown.out) == (1, "")
    assert "[not_found]" in unknown.err
    bad_key = await cli("operator", "runs", "list", GATEHOUSE_KEY="gh_bad")
    assert bad_key.code == 3
    assert "gatehouse keys create" in bad_key.err
    wrong = await cli("operator", "run", "tidy", "--input", "path=17")
    assert wrong.code == 2
    assert "body.inputs.path" in wrong.err
    nowhere = await cli("operator", "run", "no-such-thing")
    assert nowhere.code == 2
    assert "tidy" in nowhere.err
    missing = await cli("operator", "run", "tidy", "--file", "/does/not/exist")
    assert missing.code == 2


async def test_a_question_is_shown_exactly_and_needs_a_yes(api: Api, cli: Cli, tmp_path: Path) -> None:
    run = await api.put_run(phase=Phase.AWAITING_APPROVAL)
    question = await api.put_question(run)
    listed = await cli("approver", "approvals", "list", "--run", run.id)
    assert question.id in listed.out
    shown = await cli("approver", "approvals", "show", question.id)
    for part in ('"in/a"', "destructive-needs-approval", "olga", "nobody answering means no", "in 59 min"):
        assert part in shown.out
    unasked = await cli("approver", "approvals", "deny", question.id, "--reason", "no")
    assert unasked.code == 2
    assert "--yes" in unasked.err
    not_allowed = await cli("viewer", "approvals", "approve", question.id, "--yes")
    assert not_allowed.code == 3
    bad_edit = await cli("approver", "approvals", "approve", question.id, "--yes", "--set", "paths=not json")
    assert bad_edit.code == 2
    assert (await cli("approver", "approvals", "list", "--json", "--run", run.id)).json[0]["state"] == "pending"


async def test_artifacts_are_listed_and_fetched(api: Api, cli: Cli, tmp_path: Path) -> None:
    run = await api.put_artifact("report.md", b"# found\n")
    listed = await cli("viewer", "runs", "artifacts", run.id)
    assert "report.md" in listed.out
    printed = await cli("viewer", "runs", "artifacts", run.id, "--get", "report.md", "-o", "-")
    assert printed.out == "# found\n"
    target = tmp_path / "mine.md"
    fetched = await cli("viewer", "runs", "artifacts", run.id, "--get", "report.md", "-o", str(target))
    assert (fetched.code, target.read_text()) == (0, "# found\n")
    absent = await cli("viewer", "runs", "artifacts", run.id, "--get", "none.md", "-o", str(tmp_path / "none"))
    assert absent.code == 1
    assert not (tmp_path / "none").exists()


async def test_the_catalogue_and_the_gate_can_be_asked(cli: Cli) -> None:
    tools = await cli("viewer", "tools", "list", "--json")
    assert "delete_files" in [t["name"] for t in tools.json]
    assert "delete_files" in (await cli("viewer", "tools", "show", "delete_files")).out
    assert "tidy" in (await cli("viewer", "automations", "list")).out
    assert (await cli("viewer", "automations", "show", "tidy")).code == 0
    ask = ("policy", "check", "-a", "tidy", "-t", "delete_files", "--arguments", '{"paths": ["in/a"]}')
    asked = await cli("operator", *ask, "--json")
    assert (asked.code, asked.json["verdict"]) == (4, "ask")
    denied = await cli("operator", *ask, "--role", "viewer")
    assert denied.code == 3
    assert "default-deny" in denied.out


async def test_a_policy_is_checked_compared_and_explained(cli: Cli, tmp_path: Path) -> None:
    own = tmp_path / "own.yaml"
    row = "{id: no-tidy, roles: [operator], tools: list_files, automations: tidy, verdict: deny}"
    own.write_text(f"apiVersion: gatehouse/v1\nrules:\n  - {row}\n")
    table = tmp_path / "cases.yaml"
    table.write_text("- {tool: list_files, automation: tidy, verdict: deny, rule: no-tidy}\n")
    assert (await cli("auditor", "policy", "lint", str(own))).code == 0
    tested = await cli("auditor", "policy", "test", "-c", str(table), str(own))
    assert tested.code == 1
    assert "no case is decided by the rule read-workspace" in tested.out
    own.write_text(own.read_text().replace("verdict: deny", "verdict: deny, when: hour > 24"))
    never = await cli("auditor", "policy", "lint", str(own))
    assert (never.code, "own.yaml:3: error: no-tidy" in never.out) == (1, True)
    own.write_text(own.read_text().replace("hour >", "hoour >"))
    assert "unknown variable 'hoour'" in (await cli("auditor", "policy", "lint", str(own))).err
    own.write_text(own.read_text().replace("hoour > 24", "tainted"))
    different = await cli("auditor", "policy", "diff", str(own))
    assert (different.code, "+ no-tidy" in different.out) == (1, True)
    assert "decisions would change" in (await cli("auditor", "policy", "simulate", str(own))).err
    told = await cli("auditor", "policy", "explain", "-a", "tidy", "-t", "list_files", "--role", "operator",
                     "--arguments", '{"path": "in"}')  # fmt: skip
    assert "decides" in told.out
    whole = tmp_path / "whole.yaml"
    whole.write_text((await cli("auditor", "policy", "export")).out)
    assert "the same policy" in (await cli("auditor", "policy", "diff", "--whole", str(whole))).err
    dry = await cli("admin", "policy", "apply", "--dry-run", str(own))
    assert (dry.code, "+ no-tidy" in dry.out) == (0, True)
    assert (await cli("auditor", "policy", "apply", "--yes", str(own))).code == 3
    assert "system:files" in (await cli("auditor", "policy", "history")).out


async def test_keys_and_audit_work_on_the_store_itself(api: Api, cli: Cli, tmp_path: Path) -> None:
    made = await cli("admin", "keys", "create", "carla", "--role", "auditor")
    assert made.code == 0, made.err
    key_file = tmp_path / "key"
    key_file.write_text(made.out)
    assert made.out.strip() not in made.err
    api.keys["carla"] = made.out.strip()
    search = ("admin", "--key-file", str(key_file), "audit", "search", "--type", "key.created", "--json")
    found = await cli(*search, "--text", '"name": "carla"', "--actor", "system:cli", "--since", "2026-01-01")
    assert found.code == 1, "a text is looked for within names and values"
    found = await cli(*search, "--text", "carla", "--actor", "system:cli", "--since", "2026-01-01")
    assert [record["body"]["name"] for record in map(json.loads, found.out.splitlines())] == ["carla"]
    assert (await cli(*search, "--text", "carla", "--until", "2026-01-01")).code == 1
    assert (await cli(*search, "--text", "carla", "--actor", "olga")).code == 1
    listed = await cli("admin", "keys", "list", "--json")
    key_id = next(k["id"] for k in listed.json if k["name"] == "carla")
    assert made.out.strip() not in listed.out
    assert (await cli("admin", "keys", "revoke", key_id)).code == 0
    refused = await cli("admin", "--key-file", str(key_file), "audit", "search")
    assert refused.code == 3
    assert (await cli("admin", "keys", "create", "dora", "--role", "king")).code == 2
    verified = await cli("admin", "audit", "verify", "--json")
    assert verified.json["ok"] is True
    exported = await cli("admin", "audit", "export", "-o", str(tmp_path / "log.jsonl"))
    assert exported.code == 0, exported.err
    assert len((tmp_path / "log.jsonl").read_text().splitlines()) >= verified.json["count"]


async def test_the_doctor_looks_at_everything(cli: Cli) -> None:
    done = await cli("admin", "doctor", "--json")
    what = {f["what"]: f for f in done.json}
    assert {"python", "packages", "disk", "docker engine", "sandbox image", "temporal", "system"} <= set(what)
    assert {"store", "keys folder", "data keys", "sealed columns", "artifact store"} <= set(what)
    assert {"definitions", "models"} <= set(what)
    assert what["sandbox image"]["status"] == "fail", "this data folder was never set up"
    assert "make setup" in what["sandbox image"]["remedy"]
    assert done.code == 1
    named = await cli("admin", "doctor", "--json", OPENAI_API_KEY="sk-secret-value")
    assert "OpenAI" in named.out
    assert "sk-secret-value" not in named.out + named.err


# ------------------------------------------------------------ parts


def test_nothing_printed_can_steer_a_terminal() -> None:
    hostile = "a\x1b[2Jb\u202ec\x07\r\nd\u2028"
    shown = visible(hostile)
    assert shown == "a\\x1b[2Jb\\u202ec\\x07\\r\\nd\\u2028"
    assert visible("a\nb", lines=True) == "a\nb"
    record = {
        "seq": 1,
        "type": "call.intent",
        "actor": "x",
        "body": {"tool": "t\x1b", "arguments": {"p": "\x1b]0;x\x07"}},
    }
    line = describe(Event(1, "call.intent", record))
    assert line is not None
    assert "\x1b" not in line


def test_inputs_are_json_or_text(tmp_path: Path) -> None:
    note = tmp_path / "note"
    note.write_text("from a file")
    given = parse_inputs(["a=1", 'b="1"', "c=plain", "d=[1, 2]", "e=x=y", f"f=@{note}"])
    assert given == {"a": 1, "b": "1", "c": "plain", "d": [1, 2], "e": "x=y", "f": "from a file"}
    for bad in ("novalue", "=x", f"g=@{tmp_path}/none"):
        with pytest.raises(CommandError):
            parse_inputs([bad])


def test_edits_start_from_what_was_asked(tmp_path: Path) -> None:
    question = {"call": {"tool": "t", "arguments": {"paths": ["a", "b"], "force": False}}}
    assert edited_arguments(question, None, []) is None
    assert edited_arguments(question, None, ['paths=["a"]']) == {"paths": ["a"], "force": False}
    whole = tmp_path / "edit.json"
    whole.write_text('{"paths": []}')
    assert edited_arguments(question, whole, []) == {"paths": []}
    for edit, changes in ((tmp_path / "none", []), (None, ["paths"]), (None, ["paths=[a]"])):
        with pytest.raises(CommandError):
            edited_arguments(question, edit, changes)
    with pytest.raises(CommandError, match="no arguments"):
        edited_arguments({"call": None}, None, ["a=1"])


def test_deadlines_tell_the_time_left() -> None:
    assert "over" in until("2001-01-01T00:00:00+00:00")
    assert "in " in until("2999-01-01T00:00:00+00:00")


def test_an_account_joins_what_belongs_together() -> None:
    def event(seq: int, type_: str, actor: str, body: dict[str, Any]) -> Event:
        ts = f"2026-01-01T00:00:0{seq}+00:00"
        return Event(seq, type_, {"seq": seq, "type": type_, "ts": ts, "actor": actor, "body": body})

    call = {"call_id": "c", "tool": "delete_files", "arguments": {"paths": ["a"]}, "asked_by": "model"}
    decision = {"verdict": "ask", "rule": "r1"}
    result = RunResult(phase=Phase.SUCCEEDED, rung=Rung.MODEL).model_dump(mode="json")
    told = account(
        [
            event(1, "call.intent", "olga", call),
            event(2, "gate.decided", "system:gate", {"call_id": "c", "gate_pass": 0, "decision": decision}),
            event(3, "approval.requested", "olga",
                  {"approval_id": "q", "question": "call", "approvers": "approver", "deadline": "x", "call": call}),
            event(4, "approval.approved", "ruth",
                  {"approval_id": "q", "answer": {"reason": "fine", "edited": {"arguments": {"paths": []}}}}),
            event(5, "gate.decided", "system:gate",
                  {"call_id": "c", "gate_pass": 1, "decision": {"verdict": "allow", "rule": "r2"}}),
            event(6, "call.outcome", "system:sandbox", {"call_id": "c", "outcome": "succeeded", "duration_ms": 7}),
            event(7, "run.closed", "system:runs", result),
        ]
    )  # fmt: skip
    [only] = told.calls.values()
    assert (only.verdict, only.rule, only.answer, only.outcome) == ("ask", "r1", "approved by ruth", "succeeded")
    assert told.questions["q"].edited == {"paths": []}
    assert told.records == 7
