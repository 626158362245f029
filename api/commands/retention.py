"""`gatehouse retention`: what is old enough to go, removing it, and holds that keep it. Works on the store itself."""

import getpass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from api.commands.audit import on_store
from api.commands.output import moment, put, put_json, put_table, say, visible
from api.commands.session import CommandError, Exit, Json, Session, session

if TYPE_CHECKING:
    from worker.store.database import Database
    from worker.store.holds import Hold
    from worker.store.retention import Pass

app = typer.Typer(no_args_is_help=True, help="How long contents are kept: status, run, hold, release.")
Reason = Annotated[str, typer.Option(help="Why, in words that the record keeps.")]
Moment = Annotated[datetime | None, typer.Option(help="UTC.")]


@app.command("status")
def status(ctx: typer.Context, json_: Json = False) -> None:
    """What a pass would remove now, and the holds in force. Changes nothing."""
    from worker.store.audit import AuditLog
    from worker.store.holds import Holds

    given = session(ctx)

    async def look(database: "Database") -> "list[Hold]":
        return await Holds(AuditLog(database)).in_force()

    found, holds = _passes(given, remove=False), on_store(given, look, keys=True)
    if json_:
        put_json({"due": [_told(one) for one in found], "holds": [hold.model_dump(mode="json") for hold in holds]})
        return
    _show(found)
    rows = [(h.id, h.tenant, h.run_id or "all", h.since or "", h.until or "", h.placed_by, h.reason) for h in holds]
    put_table(["hold", "tenant", "run", "since", "until", "by", "reason"], rows, "no holds")


@app.command("run")
def run(
    ctx: typer.Context,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Remove; without it only what would go is shown.")] = False,
    json_: Json = False,
) -> None:
    """Remove bodies and contents that are due. They cannot be brought back, and the log still verifies."""
    found = _passes(session(ctx), remove=yes)
    if json_:
        put_json({"removed": yes, "passes": [_told(one) for one in found]})
        return
    _show(found)
    say("removed" if yes else "nothing was removed: --yes does it")


@app.command("hold")
def hold(
    ctx: typer.Context,
    reason: Reason,
    tenant: Annotated[str, typer.Option(help="Whose records.")] = "default",
    run_id: Annotated[str | None, typer.Option("--run", help="Only this run's.")] = None,
    since: Moment = None,
    until: Moment = None,
    json_: Json = False,
) -> None:
    """Keep records and contents from being removed, from now until `release`."""
    from worker.store.audit import AuditLog
    from worker.store.holds import Holds

    begins, ends = (None if at is None else at.replace(tzinfo=UTC) for at in (since, until))

    async def place(database: "Database") -> "Hold":
        return await Holds(AuditLog(database)).place(
            tenant, reason, _me(), run_id=run_id, since=begins, until=ends
        )  # fmt: skip

    try:
        placed = on_store(session(ctx), place, keys=True)
    except ValueError as error:
        raise CommandError(str(error), "see --help", Exit.USAGE) from None
    put_json(placed.model_dump(mode="json")) if json_ else put(placed.id)


@app.command("release")
def release(
    ctx: typer.Context, hold_id: Annotated[str, typer.Argument(help="Id of the hold.")], reason: Reason,
    json_: Json = False,
) -> None:  # fmt: skip
    """End a hold: what it kept goes with the next pass, when it is old enough."""
    from worker.store.audit import AuditLog
    from worker.store.holds import Holds

    async def lift(database: "Database") -> bool:
        return await Holds(AuditLog(database)).lift(None, hold_id, reason, _me()) is not None

    if not on_store(session(ctx), lift, keys=True):
        raise CommandError(f"no hold {visible(hold_id)} is in force", "`gatehouse retention status` lists them")
    put_json({"id": hold_id, "lifted": True}) if json_ else say(f"{visible(hold_id)} is lifted")


def _passes(given: Session, *, remove: bool) -> "list[Pass]":
    from sqlalchemy.exc import ProgrammingError

    from worker.keeper.retaining import policy, proof
    from worker.store.anchor import AnchorError
    from worker.store.audit import AuditLog
    from worker.store.checking import BadRecord
    from worker.store.keyfiles import KeyFileUnsafe
    from worker.store.note import NoteError
    from worker.store.retention import Retention

    settings = given.settings()

    async def work(database: "Database") -> "list[Pass]":
        retention = Retention(AuditLog(database), policy(settings))
        vouched, signer = proof(settings)
        return await (retention.run(vouched, signer) if remove else retention.status(vouched))

    try:
        return on_store(given, work, keys=True)
    except BadRecord as bad:
        raise CommandError(f"record {bad.seq}: {visible(bad.problem)}", "`gatehouse audit verify` says more") from None
    except ProgrammingError as refused:
        raise CommandError(
            f"nothing can be removed: {visible(str(refused.orig))}", "`gatehouse audit grants --retention` lets a role"
        ) from None
    except (AnchorError, NoteError, KeyFileUnsafe, OSError) as error:
        raise CommandError(f"nothing can be removed: {error}", "`gatehouse audit anchor` signs a checkpoint") from None


def _told(one: "Pass") -> dict[str, object]:
    return {
        "tenant": one.tenant, "before": one.before.isoformat(), "records": one.records, "bytes": one.bytes,
        "held": one.held, "runs": one.runs, "files": one.files,
    }  # fmt: skip


def _show(found: "list[Pass]") -> None:
    rows = [
        (one.tenant, moment(one.before.isoformat()), one.records, one.bytes, one.held, one.runs, one.files)
        for one in found
    ]
    put_table(
        ["tenant", "older than", "records", "bytes", "held", "runs", "files"],
        rows,
        "no policy: set GATEHOUSE_RETENTION_DAYS",
    )


def _me() -> str:
    """Whoever may use the store may do this, as with keys: the record names the account on this machine."""
    return f"system:cli/{getpass.getuser()}"
