"""What tests run in processes of their own. Each line a job writes to its file is there before the job goes on."""

import asyncio
import itertools
import os
import signal
from datetime import UTC, datetime, timedelta
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy import event

from policies.decision import Decision, GateRequest
from tests.worker.store.facts import fact
from worker.activities.gate import GateActivities
from worker.store import anchor, contents, retention, times
from worker.store.audit import AuditLog
from worker.store.blobs import Blobs
from worker.store.checkpoints import Publisher, load_or_create, public_keys
from worker.store.database import Database, StoreUnavailable
from worker.store.keyring import open_given
from worker.store.signing import load_or_create as load_answer_key
from workflows.contracts import CallOpened


def append(url: str, run_id: str, facts: int, batch: int, acknowledged: str, together: int = 1) -> None:
    """Append batches of facts, and note each that is durable. With 0 facts it goes on until it is killed.

    The first batch is appended and noted at once, the rest when `together` processes have come as far.
    """

    async def main() -> None:
        db = Database(url)
        log = AuditLog(db)
        for number in range(facts) if facts else itertools.count():
            await log.append(*(fact(run_id, n) for n in range(number * batch, (number + 1) * batch)))
            note(acknowledged, str(number))
            while number == 0 and len(notes(Path(acknowledged))) < together:  # noqa: ASYNC110  (other processes)
                await asyncio.sleep(0.005)
        await db.close()

    asyncio.run(main())


def append_together(url: str, process: str, callers: int, acknowledged: str, in_transactions: bool = False) -> None:
    """Append facts by many callers at once until killed, and note each that is durable: `<run> <number>`.

    `in_transactions`: every second fact in a transaction of its own, as activities do.
    """

    async def caller(log: AuditLog, run_id: str) -> None:
        for number in itertools.count():
            if in_transactions and number % 2:
                async with log.db.begin() as conn:
                    await log.append(fact(run_id, number), conn=conn)
            else:
                await log.append(fact(run_id, number))
            note(acknowledged, f"{run_id} {number}")

    async def main() -> None:
        log = AuditLog(Database(url))
        await asyncio.gather(*(caller(log, f"run_{process}_{n}") for n in range(callers)))

    asyncio.run(main())


def append_until(url: str, run_id: str, acknowledged: str, refused: str, enough: str) -> None:
    """Append facts one after the other, alone and in transactions in turn, and note each that is durable; one that is
    refused is tried again until it is taken. Ends when the file `enough` is there."""

    async def take(log: AuditLog, number: int) -> None:
        if number % 2:
            async with log.db.begin() as conn:
                await log.append(fact(run_id, number), conn=conn)
        else:
            await log.append(fact(run_id, number))

    async def main() -> None:
        log = AuditLog(Database(url))
        number = 0
        while not os.path.exists(enough):  # noqa: ASYNC240  (a look at a local file)
            try:
                await take(log, number)
            except StoreUnavailable as fault:
                note(refused, str(fault))
                await asyncio.sleep(0.05)
                continue
            note(acknowledged, f"{run_id} {number}")
            number += 1
        await log.db.close()

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


def publish(url: str, keys: str, anchor: str) -> None:
    """Sign a checkpoint."""
    Publisher(Database(url), Path(keys), Path(anchor)).publish()


def prune(url: str, folder: str, moment: str, nth: int) -> None:
    """One pass over a log, four records a batch, that kills this process right `before` or `after` the nth statement
    that empties bodies: what covers them was written then, and nothing is committed yet."""

    def kill(*given: object) -> None:
        nonlocal nth
        nth -= str(given[2]).startswith("UPDATE audit_event")
        if nth == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    async def main() -> None:
        keys = Path(folder, "keys")
        vouched = anchor.read(Path(folder, "anchor.jsonl"), public_keys(keys))
        retention.BATCH = 4
        event.listen(sa.Engine, f"{moment}_cursor_execute", kill)
        log = AuditLog(Database(url))
        await retention.Retention(log, retention.Policy(365)).run(vouched, load_or_create(keys))

    asyncio.run(main())


def remove_contents(url: str, keys: str, moment: str, start: str, nth: int) -> None:
    """A pass over the contents of old runs, two a batch, that kills this process right `before` or `after` the nth
    statement that starts so."""

    def kill(*given: object) -> None:
        nonlocal nth
        nth -= str(given[2]).startswith(start)
        if nth == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    async def main() -> None:
        contents.BATCH = 2
        event.listen(sa.Engine, f"{moment}_cursor_execute", kill)
        log = AuditLog(Database(url, open_given(Path(keys))))
        await contents.Contents(log).remove("default", times.now() + timedelta(seconds=1))

    asyncio.run(main())


def put_blobs(root: str, count: int) -> None:
    """Put the same blobs as every other process that runs this."""

    async def main() -> None:
        blobs = Blobs(Path(root))
        for n in range(count):
            await blobs.put(f"{n} ".encode() * 5000)

    asyncio.run(main())


def load_key(keys: str, said: str) -> None:
    """Load the answer key, and say which it is."""
    note(said, load_answer_key(Path(keys)).key_id)


DIED = 66
"""Exit code of a process that ended in the middle."""


class _DeadlyGate:
    version = "v"

    def __init__(self, asked: str) -> None:
        self._asked = asked

    def decide(self, request: GateRequest) -> Decision:
        note(self._asked, request.tool)
        os._exit(DIED)


def die_in_the_gate(url: str, opened: str, asked: str) -> None:
    """Open a call with a gate that ends the process, without a chance to clean up, when it is asked."""

    async def main() -> None:
        gate = GateActivities(_DeadlyGate(asked), AuditLog(Database(url)))
        await gate.open_call(CallOpened.model_validate_json(opened))

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
