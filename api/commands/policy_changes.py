"""`gatehouse policy apply|reject|proposals|history|suggest`: changing the policy, alone or with a second person."""

from pathlib import Path
from typing import Annotated, Any

import typer

from api.commands import policy
from api.commands.output import put, put_json, put_table, say
from api.commands.policy import Files, Whole, app, put_diff, put_simulation
from api.commands.session import CommandError, Exit, Json, Yes, session

Obj = dict[str, Any]
Id = Annotated[str, typer.Argument(help="Id of the proposal.")]


@app.command("apply")
def apply(
    ctx: typer.Context,
    files: Files = None,
    whole: Whole = False,
    proposal: Annotated[str | None, typer.Option("--proposal", "-p", help="Apply this one instead of files.")] = None,
    note: Annotated[str, typer.Option(help="Why, for the record.")] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would change.")] = False,
    yes: Yes = False,
    json_: Json = False,
) -> None:
    """Propose these files and bring them into force. In strict mode it stays a proposal until another person applies it
    (exit 4)."""
    from gatehouse_client.transport import segment

    client = session(ctx).client()
    if proposal is None:
        body = policy.policy_body(ctx, files, whole=whole)
        different = client.post("/policy/diff", {"after": body})
        if not json_:
            put_diff(different)
            put_simulation(client.post("/policy/simulate", body))
        if dry_run:
            if json_:
                put_json(different)
            return
        if not yes and not typer.confirm("Bring this policy into force?", err=True):
            raise CommandError("not applied", code=Exit.DENIED)
        proposal = str(client.post("/policy/proposals", {"policy": body, "note": note})["id"])
        if client.get("/policy")["strict"]:
            say(f"proposed as {proposal}; another person runs: gatehouse policy apply --proposal {proposal}")
            if json_:
                put_json({"proposal": proposal})
            raise typer.Exit(Exit.WAITING)
    found = client.post(f"/policy/proposals/{segment(proposal)}/apply")
    put_json(found) if json_ else say(f"in force: {found['version']} (change {found['seq']})")


@app.command("reject")
def reject(ctx: typer.Context, proposal: Id, reason: Annotated[str, typer.Option(help="Why not.")]) -> None:
    """Turn a proposal down, or take back one's own."""
    from gatehouse_client.transport import segment

    session(ctx).client().post(f"/policy/proposals/{segment(proposal)}/reject", {"reason": reason})
    say(f"rejected {proposal}")


@app.command("proposals")
def proposals(ctx: typer.Context, json_: Json = False) -> None:
    """What was proposed, newest first."""
    found = session(ctx).client().get("/policy/proposals")["items"]
    rows = [(p["id"], p["state"], p["proposed_by"], p["created_at"], p["version"][:12], p["note"]) for p in found]
    columns = ["id", "state", "proposed by", "when", "version", "why"]
    put_json(found) if json_ else put_table(columns, rows, "no proposals")


@app.command("history")
def history(ctx: typer.Context, json_: Json = False) -> None:
    """Which policy was in force since when, newest first."""
    found = session(ctx).client().get("/policy/history")["items"]
    rows = [(c["seq"], c["version"][:12], c["origin"], c["changed_by"], c["changed_at"]) for c in found]
    put_json(found) if json_ else put_table(["change", "version", "from", "by", "when"], rows, "no policy")


@app.command("suggest")
def suggest(
    ctx: typer.Context,
    times: Annotated[int, typer.Option(help="Approvals each call must have.", min=2, max=100)] = 3,
    save: Annotated[Path | None, typer.Option(help="Folder to write each suggested policy to, as a file.")] = None,
    json_: Json = False,
) -> None:
    """Rules that would have allowed exactly the calls people approved again and again. Applies nothing."""
    found: list[Obj] = session(ctx).client().get("/policy/suggestions", times=times)["items"]
    if json_:
        put_json(found)
        return
    if not found:
        say("nothing was approved often enough")
    for item in found:
        s: Obj = item["suggestion"]
        put(f"{s['id']}: {s['tool']} in {s['automation']} ({s['tenant']}), approved {s['approvals']} times by "
            f"{', '.join(s['approved_by'])}")  # fmt: skip
        put(f"  allow when {s['rule']['when']}")
        put(f"  with an exception in {', '.join(str(row['id']) for row in s['amended'])}")
        put_simulation(s["simulation"])
        if save is not None:
            save.mkdir(parents=True, exist_ok=True)
            target = save / f"{s['id']}.yaml"
            target.write_text(item["text"])
            say(f"to apply it: gatehouse policy apply --whole {target}")
