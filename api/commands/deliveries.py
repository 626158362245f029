"""`gatehouse deliveries`: who was told what, and what did not get there."""

from typing import Annotated

import typer

from api.commands.output import moment, put_fields, put_json, put_table, say
from api.commands.session import Json, session

app = typer.Typer(no_args_is_help=True, help="Deliveries of notices: list, retry, dismiss, backlog.")


@app.command("list")
def list_deliveries(
    ctx: typer.Context,
    state: Annotated[str | None, typer.Option(help="pending, delivered, dead or dismissed.")] = None,
    channel: Annotated[str | None, typer.Option(help="Only this channel's.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000)] = 50,
    json_: Json = False,
) -> None:
    """Newest first; `--state dead` shows what was given up."""
    found = session(ctx).client().items("/deliveries", limit, state=state, channel=channel)
    if json_:
        put_json(found)
        return
    rows = [
        (d["id"], d["channel"], d["type"], d["state"], d["attempts"], moment(d["created_at"]), d["problem"] or "")
        for d in found
    ]
    put_table(["id", "channel", "notice", "state", "attempts", "of", "problem"], rows, "no deliveries")


@app.command("retry")
def retry(
    ctx: typer.Context, delivery_id: Annotated[str, typer.Argument(help="Id of a dead one.")], json_: Json = False
) -> None:
    """Try it again from the start."""
    from gatehouse_client.transport import segment

    found = session(ctx).client().post(f"/deliveries/{segment(delivery_id)}/retry")
    put_json(found) if json_ else say(f"{found['id']} is {found['state']}")


@app.command("dismiss")
def dismiss(
    ctx: typer.Context, delivery_id: Annotated[str, typer.Argument(help="Id of a dead one.")], json_: Json = False
) -> None:
    """Give it up for good; it counts as dead no longer."""
    from api.commands.client import segment

    found = session(ctx).client().post(f"/deliveries/{segment(delivery_id)}/dismiss")
    put_json(found) if json_ else say(f"{found['id']} is {found['state']}")


@app.command("backlog")
def backlog(ctx: typer.Context, json_: Json = False) -> None:
    """What nobody has been told yet."""
    found = session(ctx).client().get("/deliveries/backlog")
    if json_:
        put_json(found)
        return
    oldest = found["oldest_pending_at"]
    put_fields([("pending", found["pending"]), ("dead", found["dead"]), ("oldest", moment(oldest) if oldest else None)])
