"""Is the audit log kept: how long ago it was written to and signed for."""

import asyncio
from datetime import datetime, timedelta
from pathlib import Path

from api.doctor.finding import Finding, fail, ok, warn
from api.supervisor.state import StateFiles
from worker.settings import Settings
from worker.store import anchor, times
from worker.store.database import Database, StoreUnavailable
from worker.store.head import last_beat, last_seq
from worker.store.note import Checkpoint

LATE = timedelta(minutes=3)
"""A running system writes a heartbeat and signs a checkpoint each minute."""


def examine(settings: Settings) -> list[Finding]:
    """What the log holds, when its last heartbeat was, and up to where the anchor vouches for it."""
    if settings.database_url is None and not (settings.data / "gatehouse.db").exists():
        return [ok("audit log", "none yet: made at the first start")]
    try:
        head, beat = asyncio.run(_ends(settings))
    except (StoreUnavailable, ValueError) as error:
        return [fail("audit log", str(error), "see the line about the store")]
    # A system that stands still writes nothing, and that is as it should be.
    up = StateFiles(settings.data.resolve()).held
    return [_kept(settings, head, beat, up=up), _signed(settings, head, up=up)]


async def _ends(settings: Settings) -> tuple[int, datetime | None]:
    database = Database(settings.sql_url)
    try:
        beat = await last_beat(database)
        return await last_seq(database), None if beat is None else beat.ts
    finally:
        await database.close()


def _kept(settings: Settings, head: int, beat: datetime | None, *, up: bool) -> Finding:
    told = f"{head} records, last heartbeat {_ago(beat)}"
    if up and _late(beat):
        return warn("audit log", f"{told}, though the system runs", f"look for audit.not_kept in {_log(settings)}")
    return ok("audit log", told)


def _signed(settings: Settings, head: int, *, up: bool) -> Finding:
    what, path = "audit anchor", settings.anchor
    try:
        last = _last(path)
    except (OSError, ValueError) as error:
        return fail(what, f"{path} cannot be read: {error}", "`gatehouse audit verify` says from which record on")
    if last is None:
        if not head:
            return ok(what, "no checkpoint yet: the log is empty")
        return warn(what, f"no checkpoint in {path}: nothing vouches for the log", "gatehouse audit anchor")
    at = times.from_text(last.time) if last.time else None
    told = f"checkpoint of {last.size} records, {_ago(at)}"
    if last.size > head:
        return fail(what, f"{told}; the log holds {head} alone", "gatehouse audit verify; was an older copy restored?")
    if up and _late(at) and last.size < head:
        return warn(what, f"{told}, though the system runs", f"look for audit.not_signed in {_log(settings)}")
    return ok(what, told)


def _last(path: Path) -> Checkpoint | None:
    """The newest checkpoint of the anchor file, unverified. Raises OSError, ValueError."""
    lines = path.read_bytes().splitlines() if path.exists() else []
    for line in reversed(lines):
        parsed = anchor.parse(line)
        if not parsed.rotation:
            return Checkpoint.parse(parsed.note.partition("\n\n")[0] + "\n")
    return None


def _late(at: datetime | None) -> bool:
    return at is None or not times.recent(at, LATE)


def _ago(at: datetime | None) -> str:
    if at is None:
        return "never"
    seconds = int((times.now() - at).total_seconds())
    if seconds < 0:
        return f"{-seconds} s ahead of the clock"
    if seconds < 600:
        return f"{seconds} s ago"
    return f"{seconds // 60} min ago" if seconds < 6 * 3600 else f"{seconds // 3600} h ago"


def _log(settings: Settings) -> Path:
    return settings.data.resolve() / "logs" / "api.log"
