"""`gatehouse switches`: stop everything or a part of it, see what is confirmed, let it go on step by step."""

import time
from typing import TYPE_CHECKING, Annotated

import typer

from api.commands.output import moment, put_fields, put_json, put_table, say
from api.commands.session import CommandError, Exit, Json, Yes, session

if TYPE_CHECKING:
    from api.commands.client import Client, Obj

app = typer.Typer(no_args_is_help=True, help="Kill switches and safe mode: stop, look, release.")

SCOPES = ("global", "tenant", "automation", "tool", "model")
Scope = Annotated[str, typer.Argument(help=f"What: {', '.join(SCOPES)}.")]
Target = Annotated[str, typer.Argument(help="Its name or a pattern; nothing for global and your own tenant.")]
Reason = Annotated[str, typer.Option(help="Recorded, and shown to everybody whom it stops.")]
Everywhere = Annotated[bool, typer.Option("--everywhere", help="In every tenant.")]
Id = Annotated[str, typer.Argument(help="Id of the switch.")]
WAIT_STEP_S = 0.3


@app.command("list")
def list_switches(
    ctx: typer.Context,
    all_: Annotated[bool, typer.Option("--all", help="Released ones too.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=1000)] = 50,
    json_: Json = False,
) -> None:
    """Switches in force."""
    found = session(ctx).client().items("/switches", limit, active=None if all_ else "true")
    if json_:
        put_json(found)
        return
    rows = [
        (s["id"], _what(s), s["state"], f"{s['counts']['confirmed']}/{s['counts']['requested']}", s["set_by"],
         moment(s["set_at"]), s["reason"])
        for s in found
    ]  # fmt: skip
    put_table(["id", "what", "state", "confirmed", "set by", "at", "reason"], rows, "nothing is stopped")


@app.command("show")
def show(ctx: typer.Context, switch_id: Id, json_: Json = False) -> None:
    """One switch: requested against confirmed stops, and what is left."""
    found = _get(session(ctx).client(), switch_id)
    put_json(found) if json_ else _put(found)


@app.command("stop")
def stop(
    ctx: typer.Context,
    scope: Scope,
    target: Target = "",
    *,
    reason: Reason,
    cancel: Annotated[bool, typer.Option("--cancel", help="End runs under way instead of pausing them.")] = False,
    everywhere: Everywhere = False,
    wait: Annotated[float, typer.Option(min=0, help="Seconds to wait until every stop is confirmed.")] = 10.0,
    json_: Json = False,
) -> None:
    """Stop it now. Asks nothing: a kill switch must be quick. Exit 1 when not all stops are confirmed in time."""
    body = {"kind": "stop", "running": "cancel" if cancel else "pause", "everywhere": everywhere}
    _set(ctx, scope, target, reason, body, wait=wait, json_=json_)


@app.command("safe-mode")
def safe_mode(
    ctx: typer.Context, scope: Scope, target: Target = "", *, reason: Reason, everywhere: Everywhere = False,
    json_: Json = False,
) -> None:  # fmt: skip
    """Only calls whose effect is read from now on."""
    _set(ctx, scope, target, reason, {"kind": "safe_mode", "everywhere": everywhere}, wait=0, json_=json_)


@app.command("release")
def release(ctx: typer.Context, switch_id: Id, reason: Reason, yes: Yes = False, json_: Json = False) -> None:
    """One step: from stopped to safe mode, from safe mode to nothing."""
    client = session(ctx).client()
    found = _get(client, switch_id)
    if found["state"] == "released":
        raise CommandError(f"{switch_id} is released already", code=Exit.USAGE)
    if not yes:
        import sys

        _put(found)
        if not sys.stdin.isatty():
            raise CommandError("nobody is here to confirm", "add --yes", Exit.USAGE)
        if not typer.confirm("Release it by one step?", err=True):
            raise CommandError("nothing was released", code=Exit.WAITING)
    after = client.post(f"/switches/{found['id']}/release", {"state": found["state"], "reason": reason})
    put_json(after) if json_ else say(f"{switch_id} is {after['state']}")


def _set(
    ctx: typer.Context, scope: str, target: str, reason: str, body: "Obj", *, wait: float, json_: bool
) -> None:  # fmt: skip
    if scope not in SCOPES:
        raise CommandError(f"no such scope: {scope}", f"scopes: {', '.join(SCOPES)}", Exit.USAGE)
    client = session(ctx).client()
    found = client.post("/switches", {"scope": scope, "target": target, "reason": reason, **body})
    until = time.monotonic() + wait
    while not found["confirmed"] and time.monotonic() < until:
        time.sleep(WAIT_STEP_S)
        found = _get(client, found["id"])
    put_json(found) if json_ else _put(found)
    if wait and not found["confirmed"]:
        raise CommandError(
            "nothing new begins, but not every run is confirmed to stand still",
            f"`gatehouse switches show {found['id']}` says which; it is tried again until it is",
        )


def _get(client: "Client", switch_id: str) -> "Obj":
    from gatehouse_client.transport import segment

    return client.get(f"/switches/{segment(switch_id)}")


def _what(found: "Obj") -> str:
    what = found["scope"] if found["scope"] == "global" else f"{found['scope']} {found['target'] or found['tenant']}"
    return f"{what} everywhere" if found["target"] and found["tenant"] == "*" else what


def _put(found: "Obj") -> None:
    counts: Obj = found["counts"]
    put_fields(
        [
            ("switch", found["id"]),
            ("what", _what(found)),
            ("state", found["state"]),
            ("running", found["running"]),
            ("reason", found["reason"]),
            ("set", f"{moment(found['set_at'])} by {found['set_by']}"),
            ("changed", f"{moment(found['changed_at'])} by {found['changed_by']}" if found["revision"] > 1 else None),
            ("runs to stop", counts["requested"]),
            ("acknowledged", counts["acknowledged"]),
            ("confirmed", counts["confirmed"]),
            ("silent engines", ", ".join(e for e, seen in found["engines"].items() if not seen) or None),
        ]
    )
    rows = [(r["run_id"], _how(r), "?" if r["left"] is None else r["left"]) for r in found["runs"]]
    if rows:
        put_table(["run", "stop", "containers left"], rows, "")


def _how(run: "Obj") -> str:
    for word in ("resumed", "confirmed", "acknowledged"):
        if run[f"{word}_at"]:
            return f"{word} {moment(run[f'{word}_at'])}"
    return "requested"
