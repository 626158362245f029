"""`gatehouse run` and `gatehouse runs`: start a run, watch it, list, cancel, fetch what it left."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from api.commands.output import moment, pretty, put, put_fields, put_json, put_table, say, visible
from api.commands.session import CommandError, Exit, Json, session

app = typer.Typer(no_args_is_help=True, help="Runs: list, show, cancel, events, artifacts.")
RunId = Annotated[str, typer.Argument(help="Id of the run (run_...).")]
Limit = Annotated[int, typer.Option("--limit", min=1, max=10_000, help="At most so many.")]
Obj = dict[str, Any]


def parse_inputs(pairs: list[str]) -> Obj:
    """`key=value` pairs; a value that is JSON is taken as such, anything else as text. `key=@file` reads a file."""
    import json

    found: Obj = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals or not name:
            raise CommandError(f"--input {pair}: not of the form name=value", code=Exit.USAGE)
        if text.startswith("@"):
            try:
                text = Path(text[1:]).read_text()
            except OSError as error:
                raise CommandError(f"--input {name}: {error}", code=Exit.USAGE) from None
        try:
            found[name] = json.loads(text)
        except ValueError:
            found[name] = text
    return found


def run(
    ctx: typer.Context,
    automation: Annotated[str, typer.Argument(help="Name of the automation; `gatehouse automations list` shows them.")],
    file: Annotated[list[Path] | None, typer.Option("--file", "-f", help="Input file; may be repeated.")] = None,
    inputs: Annotated[
        list[str] | None, typer.Option("--input", "-i", help="name=value (JSON or text), name=@file; may be repeated.")
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", help="Watch until it ends; exit 0 only if it succeeded.")] = False,
    stop_at_approval: Annotated[
        bool, typer.Option("--stop-at-approval", help="With --follow: exit 4 as soon as it waits for a human.")
    ] = False,
    idempotency_key: Annotated[
        str | None, typer.Option("--idempotency-key", help="Repeat the command with the same key: one run, not two.")
    ] = None,
    json_: Json = False,
) -> None:
    """Start a run of an automation."""
    client = session(ctx).client()
    body: Obj = {"automation": automation, "inputs": parse_inputs(inputs or []), "files": []}
    for path in file or []:
        uploaded = client.upload(path)
        say(f"uploaded {visible(uploaded['name'])} ({uploaded['size']} bytes)")
        body["files"].append(uploaded["id"])
    headers = {"Idempotency-Key": idempotency_key} if idempotency_key else None
    started = client.post("/runs", body, headers)
    run_id = str(started["id"])
    if not follow:
        if json_:
            put_json(started)
        else:
            put(run_id)
            say(f"started; watch it with: gatehouse runs events {run_id} --follow")
        return
    say(f"run {run_id}")
    raise typer.Exit(watch(ctx, run_id, stop_at_approval=stop_at_approval, json_=json_))


def watch(ctx: typer.Context, run_id: str, *, stop_at_approval: bool, json_: bool) -> Exit:
    """Follow a run to its end (or to a question) and print its result."""
    from api.commands import follow as live

    client = session(ctx).client()
    last = ""
    try:
        for event in live.follow(client, run_id, stop_at_approval=stop_at_approval):
            last = event.type
    except KeyboardInterrupt:
        say(f"\nthe run goes on; watch it again with: gatehouse runs events {run_id} --follow")
        raise
    found = client.get(f"/runs/{run_id}")
    put_json(found) if json_ else put_result(found)
    if last == "approval.requested":
        return Exit.WAITING
    return Exit.OK if found["phase"] == "succeeded" else Exit.FAILED


def put_result(found: Obj) -> None:
    """What a person wants to know of a run."""
    result: Obj = found.get("result") or {}
    put_fields(
        [
            ("run", found["id"]),
            ("automation", f"{found['automation']} {found.get('automation_version') or ''}".strip()),
            ("phase", found["phase"]),
            ("rung", found.get("rung")),
            ("requester", found.get("requester")),
            ("created", moment(found.get("created_at"))),
            ("updated", moment(found.get("updated_at"))),
            ("model", result.get("model")),
            ("steps", result.get("steps")),
            ("tool calls", result.get("tool_calls")),
            ("failure", result.get("failure")),
        ]
    )
    degraded: list[str] = result.get("degraded") or []
    for reason in degraded:
        put_fields([("gave up", reason)])
    artifacts: list[Obj] = result.get("artifacts") or []
    for artifact in artifacts:
        put_fields([("artifact", f"{artifact['name']} ({artifact['size']} bytes)")])
    if result.get("output") is not None:
        put(pretty(result["output"]))


@app.command("list")
def list_runs(
    ctx: typer.Context,
    phase: Annotated[str | None, typer.Option(help="Only runs in this phase.")] = None,
    automation: Annotated[str | None, typer.Option(help="Only runs of this automation.")] = None,
    limit: Limit = 50,
    json_: Json = False,
) -> None:
    """Newest first."""
    found = session(ctx).client().items("/runs", limit, phase=phase, automation=automation)
    if json_:
        put_json(found)
        return
    rows = [
        (r["id"], r["automation"], r["phase"], r.get("rung"), r["requester"], moment(r["created_at"])) for r in found
    ]
    put_table(["id", "automation", "phase", "rung", "requester", "created"], rows, "no runs")


@app.command("show")
def show_run(ctx: typer.Context, run_id: RunId, json_: Json = False) -> None:
    """One run with its result."""
    from gatehouse_client.transport import segment

    found = session(ctx).client().get(f"/runs/{segment(run_id)}")
    put_json(found) if json_ else put_result(found)


@app.command("cancel")
def cancel_run(ctx: typer.Context, run_id: RunId, json_: Json = False) -> None:
    """Ask a run to stop; a call in progress is killed."""
    from gatehouse_client.transport import segment

    found = session(ctx).client().post(f"/runs/{segment(run_id)}/cancel")
    put_json(found) if json_ else say(f"cancel requested; see: gatehouse runs show {run_id}")


@app.command("events")
def run_events(
    ctx: typer.Context,
    run_id: RunId,
    follow: Annotated[bool, typer.Option("--follow", help="Stay until the run ends, and print its result.")] = False,
    json_: Json = False,
) -> None:
    """The run's audit records so far, or live. With --json one record a line."""
    import json

    from api.commands.follow import describe

    client = session(ctx).client()
    if follow and not json_:
        raise typer.Exit(watch(ctx, run_id, stop_at_approval=False, json_=False))
    if follow:
        for event in client.events(run_id):
            put(json.dumps(event.record))
        return
    for event in client.events_so_far(run_id):
        if json_:
            put(json.dumps(event.record))
        elif line := describe(event):
            put(f"{moment(event.record['ts'])}  {line}")


@app.command("artifacts")
def run_artifacts(
    ctx: typer.Context,
    run_id: RunId,
    get: Annotated[str | None, typer.Option("--get", help="Download this one (`-o -` prints it).")] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Where to write it.")] = None,
    json_: Json = False,
) -> None:
    """What the run left behind; --get NAME fetches one."""
    from urllib.parse import quote

    from gatehouse_client.transport import segment

    client = session(ctx).client()
    base = f"/runs/{segment(run_id)}/artifacts"
    if get is None:
        found: list[Obj] = client.get(base)["items"]
        rows = [(a["name"], a["size"], a["media_type"], a["sha256"]) for a in found]
        put_json(found) if json_ else put_table(["name", "bytes", "type", "sha256"], rows, "no artifacts")
        return
    path = f"{base}/{quote(get)}"
    if str(output) == "-":
        sys.stdout.write(client.text(path, most=64 << 20))
        return
    target = output or Path(Path(get).name)
    size = client.download(path, target)
    say(f"wrote {target} ({size} bytes)")
