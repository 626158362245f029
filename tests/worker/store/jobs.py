"""What tests run in processes of their own. Each line a job writes to its file is there before the job goes on."""

import asyncio
import itertools
import os
from datetime import UTC, datetime
from pathlib import Path

from tests.worker.store.facts import fact
from worker.store.audit import AuditLog
from worker.store.database import Database


def append(url: str, run_id: str, facts: int, batch: int, acknowledged: str) -> None:
    """Append batches of facts, and note each that is durable. With 0 facts it goes on until it is killed."""

    async def main() -> None:
        db = Database(url)
        log = AuditLog(db)
        for number in range(facts) if facts else itertools.count():
            await log.append(*(fact(run_id, n) for n in range(number * batch, (number + 1) * batch)))
            note(acknowledged, str(number))
        await db.close()

    asyncio.run(main())


def migrate(url: str, done: str) -> None:
    """Bring a database up to date, check it, and write to it."""

    async def main() -> None:
        db = Database(url)
        await db.migrate()
        await db.check()
        await AuditLog(db).append(fact(f"run_{os.getpid()}", 1))
        await db.close()
        note(done, "migrated")

    asyncio.run(main())


def note(path: str, line: str) -> None:
    """Append a line in one write."""
    handle = os.open(path, os.O_APPEND | os.O_CREAT | os.O_WRONLY, 0o600)
    try:
        os.write(handle, line.encode() + b"\n")
    finally:
        os.close(handle)


async def wait_for_notes(*paths: Path) -> None:
    """Wait until each file has a line."""
    while not all(notes(path) for path in paths):  # noqa: ASYNC110  (the writer is another process)
        await asyncio.sleep(0.01)


def notes(path: Path) -> list[str]:
    """The lines noted so far."""
    return path.read_text().splitlines() if path.exists() else []


def moment() -> datetime:
    """A fixed time."""
    return datetime(2026, 11, 22, 18, 0, tzinfo=UTC)
