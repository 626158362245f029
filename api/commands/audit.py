"""`gatehouse audit export|events`. Export reads the store itself, so it works with the API down."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeVar

import typer

from api.commands.output import put_json, put_table, say
from api.commands.session import CommandError, Json, Session, session

if TYPE_CHECKING:
    from worker.settings import Settings
    from worker.store.database import Database
    from worker.store.records import AuditEvent

app = typer.Typer(no_args_is_help=True, help="Audit log: verify, export, search.")
T = TypeVar("T")


def on_store(given: Session, work: "Callable[[Database], Awaitable[T]]", *, keys: bool = False) -> T:
    """Do something on this installation's own store, with `keys` also on what is sealed in it.

    Raises CommandError when there is none or it cannot be used.
    """
    from worker.storage import open_database
    from worker.store.database import Database, StoreUnavailable
    from worker.store.keyring import KeyringError

    settings = given.settings()
    if not has_store(settings):
        raise CommandError(
            f"there is no store under {settings.data.resolve()}", "run `gatehouse up` once, or set GATEHOUSE_DATA"
        )

    async def do() -> T:
        database = open_database(settings) if keys else Database(settings.sql_url)
        try:
            return await work(database)
        finally:
            await database.close()

    try:
        return asyncio.run(do())
    except (StoreUnavailable, KeyringError) as error:
        raise CommandError(f"the store cannot be used: {error}", "`gatehouse doctor` says more") from None


def record_change(given: Session, event: "AuditEvent") -> None:
    """On record before it happens: a key that changes unseen is worse than one that does not change.

    Raises CommandError.
    """
    from worker.store.audit import AuditLog

    on_store(given, lambda store: AuditLog(store).append(event))


def has_store(settings: "Settings") -> bool:
    """Whether there is a store, or a database that ought to hold one."""
    return settings.database_url is not None or (settings.data / "gatehouse.db").exists()


@app.command("export")
def export(
    ctx: typer.Context,
    output: Annotated[
        Path | None, typer.Option("--out", "--output", "-o", help="File to write; stdout when left out.")
    ] = None,
    after: Annotated[int, typer.Option(min=0, help="Only records after this number: goes on where a file ends.")] = 0,
    form: Annotated[
        Literal["jsonl", "ocsf", "cef"],
        typer.Option("--format", help="jsonl can be verified; ocsf and cef are for a SIEM."),
    ] = "jsonl",
    json_: Json = False,
) -> None:
    """Write the log, a record a line, oldest first. JSON lines are hashed as they stand: they can be verified."""
    import sys

    from worker.store.audit import AuditLog
    from worker.store.siem import cef, ocsf

    written: Callable[[bytes], bytes] = {"jsonl": bytes, "ocsf": ocsf, "cef": cef}[form]

    async def copy(database: "Database") -> int:
        count = 0
        # A file that goes on where it ended is not begun anew.
        sink = output.open("ab" if after else "wb") if output else sys.stdout.buffer
        try:
            async for line in AuditLog(database).export(after=after):
                sink.write(written(line))
                count += 1
            sink.flush()
        finally:
            if output:
                sink.close()
        return count

    try:
        count = on_store(session(ctx), copy)
        if json_ and output:
            put_json({"records": count, "out": str(output.resolve())})
        else:
            say(f"{count} records exported")
    except OSError as error:
        raise CommandError(f"cannot write: {error}", "give a writable --output") from None


@app.command("events")
def events(json_: Json = False) -> None:
    """Every type of record there is, and what it means. Types are added from version to version, never changed."""
    from worker.store.events import CATALOGUE, EVENT_TYPES

    if json_:
        put_json({"version": CATALOGUE, "types": EVENT_TYPES})
        return
    put_table(["type", "meaning"], list(EVENT_TYPES.items()), "")
