"""`gatehouse policy`: what the gate says and why, and how its policy is checked, compared, replayed and changed.

lint, test and diff of files work without a running system, for editors and CI; the rest asks the API.
"""

from pathlib import Path
from typing import Annotated, Any

import typer

from api.commands.output import put, put_fields, put_json, put_table, say
from api.commands.session import CommandError, Exit, Json, session

app = typer.Typer(
    no_args_is_help=True,
    help="Policy: check, explain, lint, test, diff, simulate, apply, reject, suggest, show, export, history.",
)
Obj = dict[str, Any]
Files = Annotated[
    list[Path] | None, typer.Argument(help="Rules files or folders; GATEHOUSE_HOME's rules when left out.")
]
Whole = Annotated[bool, typer.Option("--whole", help="The files are all of it: leave the built-in rules out.")]
Tables = Annotated[list[Path], typer.Option("--cases", "-c", help="YAML table of cases; may be given again.")]
Automation = Annotated[str, typer.Option("--automation", "-a", help="On behalf of which automation.")]
ToolName = Annotated[str, typer.Option("--tool", "-t", help="Which tool.")]
Arguments = Annotated[str, typer.Option("--arguments", help="JSON object, or @file.")]
Roles = Annotated[list[str] | None, typer.Option("--role", help="Ask as somebody with this role.")]
FactsText = Annotated[str | None, typer.Option("--facts", help="JSON object of facts (tainted, arguments, ...).")]


@app.command("check")
def check(
    ctx: typer.Context, automation: Automation, tool: ToolName, arguments: Arguments = "{}", role: Roles = None,
    facts: FactsText = None, json_: Json = False,
) -> None:  # fmt: skip
    """What would the gate say of one call? Exit 0 allow, 3 deny, 4 ask."""
    found = session(ctx).client().post("/policy/check", _question(automation, tool, arguments, role, facts))
    put_json(found) if json_ else _put_decision(found)
    raise typer.Exit(_status(found))


@app.command("explain")
def explain(
    ctx: typer.Context, automation: Automation, tool: ToolName, arguments: Arguments = "{}", role: Roles = None,
    facts: FactsText = None, json_: Json = False,
) -> None:  # fmt: skip
    """Why: every rule that matched or missed by one clause. Exit status as for check."""
    found = session(ctx).client().post("/policy/explain", _question(automation, tool, arguments, role, facts))
    if json_:
        put_json(found)
        raise typer.Exit(_status(found["decision"]))
    _put_decision(found["decision"])
    rows = [(r["standing"], r["verdict"], r["rule"], _why(r), r["place"]) for r in found["rows"]]
    put_table(["", "verdict", "rule", "why", "where"], rows, "no rule matched, or nearly did")
    raise typer.Exit(_status(found["decision"]))


@app.command("lint")
def lint(ctx: typer.Context, files: Files = None, whole: Whole = False, json_: Json = False) -> None:
    """Rules that do not load, never decide, or say nothing. Exit 1 when there is an error."""
    from policies.lint import lint as look

    rules, tools = _load(ctx, files, whole=whole)
    found = look(rules, tools)
    errors = [f for f in found if f.level == "error"]
    if json_:
        put_json({"ok": not errors, "version": rules.version, "findings": [f.model_dump() for f in found]})
    else:
        for finding in found:
            put(str(finding))
        say(f"{len(rules.rules)} rules, {len(errors)} errors, {len(found) - len(errors)} warnings")
    raise typer.Exit(Exit.FAILED if errors else Exit.OK)


@app.command("test")
def run_tables(
    ctx: typer.Context, cases: Tables, files: Files = None, whole: Whole = False, json_: Json = False
) -> None:
    """Run tables of calls against the rules. Exit 1 when an answer is wrong or a rule is hit by no case."""
    from policies.engine import PolicyEngine
    from policies.source import SourceError
    from policies.testing import read_cases, run_cases

    rules, tools = _load(ctx, files, whole=whole)
    try:
        table = [case for path in cases for case in read_cases(path)]
    except SourceError as error:
        raise CommandError(str(error), "correct the table") from None
    engine = PolicyEngine(rules, environment=session(ctx).settings().environment)
    report = run_cases(engine, table, {name: spec.effect for name, spec in tools.items()})
    if json_:
        put_json(report.model_dump(mode="json"))
    else:
        for r in report.results:
            if not r.passed:
                put(f"{r.place}: {r.name}: expected {r.expected}, got {r.decision.verdict} by {r.decision.rule}")
        for name in report.unhit:
            put(f"{rules.places.get(name, '')}: no case is decided by the rule {name}")
        say(f"{sum(r.passed for r in report.results)} of {len(report.results)} cases as expected")
    raise typer.Exit(Exit.OK if report.passed else Exit.FAILED)


@app.command("diff")
def diff(
    ctx: typer.Context,
    files: Files = None,
    whole: Whole = False,
    version: Annotated[str | None, typer.Option(help="A stored version instead of files.")] = None,
    json_: Json = False,
) -> None:
    """What differs between the policy in force and these files. Exit 1 when anything does."""
    body = {"version": version} if version else policy_body(ctx, files, whole=whole)
    found = session(ctx).client().post("/policy/diff", {"after": body})
    same = not (found["added"] or found["removed"] or found["changed"] or found["roles"])
    if json_:
        put_json(found)
    elif same:
        say("the same policy")
    else:
        put_diff(found)
    raise typer.Exit(Exit.OK if same else Exit.FAILED)


@app.command("simulate")
def simulate(ctx: typer.Context, files: Files = None, whole: Whole = False, json_: Json = False) -> None:
    """Replay every recorded decision against these files: what would have been decided otherwise?"""
    found = session(ctx).client().post("/policy/simulate", policy_body(ctx, files, whole=whole))
    put_json(found) if json_ else put_simulation(found)


@app.command("show")
def show(ctx: typer.Context, json_: Json = False) -> None:
    """The policy in force, and what is wrong with a newer one."""
    found = session(ctx).client().get("/policy")
    if json_:
        put_json(found)
        return
    change: Obj = found["change"] or {}
    put_fields([(k, found[k]) for k in ("version", "rules", "environment", "problem")])
    put_fields([("in force since", change.get("changed_at", "")), ("by", change.get("changed_by", ""))])
    put_fields([("changed by", "two people" if found["strict"] else "one person, or the rules files")])


@app.command("export")
def export(
    ctx: typer.Context, version: Annotated[str | None, typer.Argument(help="In force when left out.")] = None
) -> None:
    """A whole policy as one rules file, to be edited and applied with --whole."""
    client = session(ctx).client()
    put(client.get(f"/policy/versions/{version or client.get('/policy')['version']}")["text"])


def _question(automation: str, tool: str, arguments: str, role: list[str] | None, facts: str | None) -> Obj:
    body: Obj = {"automation": automation, "tool": tool, "arguments": _json("--arguments", arguments)}
    if role:
        body["roles"] = role
    if facts:
        body["facts"] = _json("--facts", facts)
    return body


def _json(option: str, text: str) -> Any:
    import json

    try:
        return json.loads(Path(text[1:]).read_text() if text.startswith("@") else text)
    except (OSError, ValueError) as error:
        raise CommandError(f"{option}: {error}", "give a JSON object or @file", Exit.USAGE) from None


def _files(ctx: typer.Context, files: list[Path] | None) -> list[Path]:
    home = session(ctx).settings().home
    given = files or ([home / "rules"] if home and (home / "rules").is_dir() else [])
    found: list[Path] = []
    for path in given:
        if not path.exists():
            raise CommandError(f"{path}: no such file", "give rules files or folders", Exit.USAGE)
        found += sorted(path.glob("*.y*ml")) if path.is_dir() else [path]
    return found


def policy_body(ctx: typer.Context, files: list[Path] | None, *, whole: bool) -> Obj:
    """The files as a request. Without any there is nothing to ask about."""
    found = _files(ctx, files)
    if not found:
        raise CommandError("no rules files", "name them, or set GATEHOUSE_HOME", Exit.USAGE)
    return {"documents": [{"name": str(p), "text": p.read_text()} for p in found], "whole": whole}


def _load(ctx: typer.Context, files: list[Path] | None, *, whole: bool) -> tuple[Any, Any]:
    """The rules and tools, read here. Raises CommandError with every problem."""
    from policies.rules import BUILT_IN, RuleError, load_rules
    from tools.catalog import BUILT_IN as TOOLS
    from tools.catalog import load_tools
    from tools.errors import ToolError

    home = session(ctx).settings().home
    own = [home / "tools"] if home and (home / "tools").is_dir() else []
    try:
        tools = {name: tool.spec for name, tool in load_tools([TOOLS, *own]).items()}
        return load_rules([*([] if whole else [BUILT_IN]), *_files(ctx, files)], tools), tools
    except (RuleError, ToolError) as error:
        raise CommandError(str(error), "correct the files") from None


def _status(decision: Obj) -> Exit:
    return {"allow": Exit.OK, "ask": Exit.WAITING}.get(str(decision["verdict"]), Exit.DENIED)


def _put_decision(found: Obj) -> None:
    put_fields([(k, found[k]) for k in ("verdict", "rule", "reason", "policy_version")])
    put_fields([("answered by", found["approvers"] if found["verdict"] == "ask" else "")])


def _why(row: Obj) -> str:
    if row["missed"] and not row["missed"].startswith("its condition"):
        return str(row["missed"])
    said = {True: "yes", False: "no"}
    return "; ".join(f"{c['text']}: {said.get(c['holds']) or c['problem']}" for c in row["condition"])


def put_diff(found: Obj) -> None:
    """Rows, fields and verdicts that differ."""
    for name in found["added"]:
        put(f"+ {name}")
    for name in found["removed"]:
        put(f"- {name}")
    for row in found["changed"]:
        for f in row["fields"]:
            put(f"~ {row['id']}.{f['field']}: {f['before']} -> {f['after']}")
    for name in found["roles"]:
        put(f"~ role {name}")
    rows = [
        (v["tool"], ", ".join(v["roles"]) or "anybody", v["tenant"], "tainted" if v["tainted"] else "clean",
         v["before"], v["after"])
        for v in found["verdicts"]
    ]  # fmt: skip
    if rows:
        put_table(["tool", "roles", "tenant", "run", "now", "then"], rows, "")


def put_simulation(found: Obj) -> None:
    """What would have been decided otherwise, most important first."""
    rows = [
        ("looser" if c["looser"] else "stricter", c["tool"], c["tenant"], f"{c['before']} by {c['before_rule']}",
         f"{c['after']} by {c['after_rule']}", c["decisions"], c["run_count"], ", ".join(c["runs"][:3]))
        for c in found["changes"]
    ]  # fmt: skip
    columns = ["", "tool", "tenant", "was", "would be", "calls", "runs", "such as"]
    put_table(columns, rows, "every decision would be the same")
    for reason, count in found["not_replayable"].items():
        say(f"{count} decisions could not be replayed: {reason}")
    say(f"{found['changed']} of {found['replayed']} decisions would change, in {found['runs_touched']} runs")
