"""The one writer of a process: callers that come together share a commit.

A commit costs the same for one record and for hundreds. So one task of a process takes what waits, appends it in one
transaction, and lets everybody go on when that is durable; while it commits, the next ones gather. No timer: a caller
alone waits for its own commit only.
"""

import asyncio
import re
import sqlite3
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from worker.store.appending import HEAD, INSERT, KNOWN, MOVE, Answer, Asked, Request, Writing
from worker.store.database import Database, StoreUnavailable
from worker.store.postgres import Connection, Statement
from worker.store.records import AuditEvent, AuditRecord, RunAlreadyClosed

MAX_EVENTS = 500
"""Events of one transaction, unless a single caller brings more."""


class Committer:
    """The one writer of a process for events that need no transaction of their own."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._transact: Callable[[Asked, Sequence[Request], Any], list[Answer]] = (
            _on_postgresql if db.sqlite_path is None else _on_sqlite
        )
        self._waiting: deque[Request] = deque()
        self._writing: asyncio.Task[None] | None = None

    async def append(self, events: Sequence[AuditEvent]) -> list[AuditRecord]:
        """Record the events; they are durable when it returns. A caller that is cancelled may be recorded all the same.

        Raises StoreUnavailable, RunAlreadyClosed, ValueError.
        """
        request = Request.of(events)
        request.done = asyncio.get_running_loop().create_future()
        self._waiting.append(request)
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write())
        return await request.done

    async def _write(self) -> None:
        while self._waiting:
            batch = [self._waiting.popleft()]
            count = len(batch[0].events)
            while self._waiting and (count := count + len(self._waiting[0].events)) <= MAX_EVENTS:
                batch.append(self._waiting.popleft())
            try:
                await self._commit(batch)
            except BaseException:
                _fail([*batch, *self._waiting], StoreUnavailable("the process is stopping"))
                self._waiting.clear()
                raise

    async def _commit(self, batch: list[Request]) -> None:
        try:
            answers = await self._append(batch)
        except StoreUnavailable as fault:
            _fail(batch, fault)
        except Exception as fault:  # noqa: BLE001  (one caller's mistake; the others must not pay for it)
            if len(batch) == 1:
                _fail(batch, fault)
                return
            for request in batch:
                await self._commit([request])
        else:
            for request, answer in zip(batch, answers, strict=True):
                if request.done is None or request.done.done():
                    continue
                if isinstance(answer, RunAlreadyClosed):
                    request.done.set_exception(answer)
                else:
                    request.done.set_result(answer)

    async def _append(self, batch: Sequence[Request]) -> list[Answer]:
        """The whole transaction is one trip to the connection's thread."""
        asked = Asked.of(batch)
        async with self._db.driver() as connection:
            return await connection.run(partial(self._transact, asked, batch))


def _on_sqlite(asked: Asked, batch: Sequence[Request], connection: sqlite3.Connection) -> list[Answer]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        seq, previous = connection.execute(HEAD["sqlite"]).fetchone()
        rows = connection.execute(KNOWN["sqlite"], asked.parameters).fetchall()
        writing = Writing(seq, previous, asked.found(rows))
        answers = [writing.take(request) for request in batch]
        if writing.rows:
            connection.executemany(_ROW, writing.rows)
            connection.execute(MOVE["sqlite"], writing.moved)
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    return answers


def _on_postgresql(asked: Asked, batch: Sequence[Request], connection: Connection) -> list[Answer]:
    """Two trips to the server: one locks and asks, one writes and commits. One that raises loses its connection."""
    _, [(seq, previous)], known = connection.trip((_BEGIN, {}), (_HEAD, {}), (_KNOWN, asked.parameters))
    writing = Writing(seq, previous, asked.found(known))
    answers = [writing.take(request) for request in batch]
    connection.trip(*([(_INSERT, writing.whole)] if writing.rows else []), (_COMMIT, {}))
    return answers


_ROW = re.sub(r":[a-z_]+", "?", INSERT["sqlite"])
_BEGIN, _COMMIT = Statement.of("begin", "BEGIN"), Statement.of("commit", "COMMIT")
_HEAD, _KNOWN, _INSERT = (
    Statement.of(name, which["postgresql"]) for name, which in (("head", HEAD), ("known", KNOWN), ("insert", INSERT))
)


def _fail(batch: Sequence[Request], fault: Exception) -> None:
    for request in batch:
        if request.done is not None and not request.done.done():
            # One exception object each: a traceback belongs to one caller.
            request.done.set_exception(type(fault)(str(fault)) if isinstance(fault, StoreUnavailable) else fault)
