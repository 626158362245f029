"""`gatehouse audit search`: records of the log, through the API or, offline, of an exported file."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import typer

from api.commands.audit_proof import app
from api.commands.output import moment, put, put_table
from api.commands.session import CommandError, Exit, Json, session

Record = dict[str, Any]
_PAGE = 200


@dataclass(frozen=True)
class Wanted:
    """What is looked for; what is None does not matter."""

    run: str | None
    type: str | None
    actor: str | None
    since: datetime | None
    until: datetime | None
    text: str | None
    after: int

    def asked(self) -> dict[str, str | int | None]:
        """As the API is asked for it."""
        span = {name: at.isoformat() if at else None for name, at in (("since", self.since), ("until", self.until))}
        named = {"run": self.run, "type": self.type, "actor": self.actor, "text": self.text}
        return {"after": self.after, **named, **span}

    def __call__(self, record: Record) -> bool:
        """Whether it is one of them. Raises KeyError, TypeError, ValueError for what is no record."""
        if record["seq"] <= self.after:
            return False
        exact = (self.run, "run_id"), (self.type, "type"), (self.actor, "actor")
        if any(wanted is not None and record[name] != wanted for wanted, name in exact):
            return False
        if self.since or self.until:
            at = datetime.fromisoformat(record["ts"])
            if (self.since and at < self.since) or (self.until and at >= self.until):
                return False
        if self.text is None:
            return True
        return json.dumps(self.text, ensure_ascii=False)[1:-1] in json.dumps(record["body"], ensure_ascii=False)


@app.command("search")
def search(
    ctx: typer.Context,
    run: Annotated[str | None, typer.Option(help="Only this run's records.")] = None,
    type_: Annotated[str | None, typer.Option("--type", help="Only this type, e.g. call.outcome.")] = None,
    actor: Annotated[str | None, typer.Option(help="Only what this principal did, e.g. olga or system:runs.")] = None,
    since: Annotated[str | None, typer.Option(help="From this time on, e.g. 2026-11-22T18:00Z.")] = None,
    until: Annotated[str | None, typer.Option(help="Only before this time.")] = None,
    text: Annotated[str | None, typer.Option(help="Only records whose body contains this text.")] = None,
    after: Annotated[int, typer.Option(min=0, help="Only records after this sequence number.")] = 0,
    limit: Annotated[int, typer.Option("--limit", min=1, help="Stop after so many.")] = 100,
    export: Annotated[
        Path | None, typer.Option("--export", help="File that `audit export` wrote, instead of asking the API.")
    ] = None,
    json_: Json = False,
) -> None:
    """Records, oldest first; with --json one a line, each as soon as it is found. Exit 1 when there is none.

    With --export neither API nor store is asked: whether the file is the log is what `audit verify --export` says."""
    wanted = Wanted(run, type_, actor, _time("--since", since), _time("--until", until), text, after)
    found = islice(_exported(export, wanted) if export else _asked(ctx, wanted), limit)
    none = True
    if json_:
        for record in found:
            put(json.dumps(record, ensure_ascii=False))
            none = False
    else:
        rows = [(r["seq"], moment(r["ts"]), r["type"], r["actor"], r["event_id"]) for r in found]
        put_table(["seq", "time", "type", "actor", "event"], rows, "no records match")
        none = not rows
    if none:
        raise typer.Exit(Exit.FAILED)


def _asked(ctx: typer.Context, wanted: Wanted) -> Iterator[Record]:
    """Through the API, page by page."""
    client = session(ctx).client()
    cursor: str | None = None
    while True:
        page = client.get("/audit", limit=_PAGE, cursor=cursor, **wanted.asked())
        yield from page["items"]
        cursor = page.get("next_cursor")
        if not cursor:
            return


def _exported(export: Path, wanted: Wanted) -> Iterator[Record]:
    """From the file, line by line."""
    from worker.store.events import EVENT_TYPES

    if wanted.type is not None and wanted.type not in EVENT_TYPES:
        raise CommandError(
            f"--type {wanted.type}: there is no such type", "`gatehouse audit events` lists them", Exit.USAGE
        )
    try:
        with export.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                yield from _read(line, number, wanted)
    except OSError as error:
        raise CommandError(f"cannot read: {error}", "give a readable --export", Exit.USAGE) from None


def _read(line: bytes, number: int, wanted: Callable[[Record], bool]) -> Iterator[Record]:
    try:
        record = json.loads(line)
        if wanted(record):
            yield record
    except (ValueError, KeyError, TypeError):
        raise CommandError(
            f"line {number} is not a record", "give a file that `gatehouse audit export` wrote", Exit.USAGE
        ) from None


def _time(option: str, given: str | None) -> datetime | None:
    if given is None:
        return None
    try:
        at = datetime.fromisoformat(given)
    except ValueError:
        raise CommandError(
            f"{option} {given}: not a time", "write it like 2026-11-22 or 2026-11-22T18:00Z", Exit.USAGE
        ) from None
    return at if at.tzinfo else at.replace(tzinfo=UTC)
