"""Checks the audit log against itself: edits, gaps, reordering, truncation, and the density of each run's numbers.

What it cannot see: a log rewritten as a whole, head included, by somebody who may write to the database. That takes a
copy of the head kept elsewhere.
"""

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from worker.store import chain
from worker.store.chain import Envelope
from worker.store.database import Database
from worker.store.tables import audit_event, audit_head

_BATCH = 1000
_RECORD = (
    audit_event.c.seq, audit_event.c.leaf_hash, audit_event.c.chain_hash,
    *(audit_event.c[name] for name in Envelope._fields),
)  # fmt: skip


@dataclass(frozen=True)
class Verification:
    """What a check of the log found. `first_bad` is the sequence number the trouble begins at."""

    ok: bool
    count: int
    """Records that verified."""
    first_bad: int | None
    problem: str | None
    head: str
    """Hex chain value of the last record that verified: keep it elsewhere, and a later rewrite shows."""


class _BadRecord(Exception):  # noqa: N818  (never leaves this module)
    def __init__(self, seq: int, problem: str) -> None:
        super().__init__(problem)
        self.seq = seq
        self.problem = problem


async def verify(db: Database) -> Verification:
    """Recompute every hash up to the head as it stands now. Memory is one batch; appends may go on meanwhile.

    A record whose chain value does not follow from the one before is named even when its own content is intact: one of
    the two was rewritten, and the log alone cannot tell which. Raises StoreUnavailable.
    """
    count, value = 0, chain.GENESIS
    try:
        target, head_value = await _head(db)
        async for seq, leaf, stored, envelope in _records(db, target):
            value = _follow(count + 1, value, seq, leaf, stored, envelope)
            count = seq
        _check_end(count, target, value, head_value)
        await _check_beyond(db)
        await _check_runs(db, target)
    except _BadRecord as bad:
        return Verification(ok=False, count=count, first_bad=bad.seq, problem=bad.problem, head=value.hex())
    return Verification(ok=True, count=count, first_bad=None, problem=None, head=value.hex())


def _follow(expected: int, previous: bytes, seq: int, leaf: bytes, stored: bytes, envelope: Envelope) -> bytes:
    """The chain value of a record that follows from `previous`; raises _BadRecord for one that does not."""
    if seq != expected:
        if seq < expected:
            raise _BadRecord(seq, "a record has a number before the first")
        raise _BadRecord(expected, f"records {expected} to {seq - 1} are missing")
    try:
        computed = chain.leaf_hash(envelope)
    except (TypeError, ValueError, AttributeError) as error:
        # SQLite stores whatever type it is given, so a forged column need not even be text.
        raise _BadRecord(seq, f"the record cannot be read: {error}") from error
    if computed != leaf:
        raise _BadRecord(seq, "the record was changed: its content does not match its hash")
    value = chain.chain_hash(previous, seq, leaf)
    if value != stored:
        raise _BadRecord(seq, f"the record does not follow from record {seq - 1}: one of the two was rewritten")
    if envelope.type == "run.closed":
        _check_closed(seq, envelope)
    return value


def _check_end(count: int, target: int, value: bytes, head_value: bytes) -> None:
    if count < target:
        raise _BadRecord(count + 1, f"records {count + 1} to {target} are missing from the end of the log")
    if value != head_value:
        raise _BadRecord(count, "the head does not match the last record: one of the two was rewritten")


def _check_closed(seq: int, envelope: Envelope) -> None:
    body: Any = json.loads(envelope.body)
    if body.get("records") != envelope.run_seq:
        raise _BadRecord(seq, f"run.closed counts {body.get('records')} records, it is number {envelope.run_seq}")


async def _head(db: Database) -> tuple[int, bytes]:
    async with db.read() as conn:
        row = (await conn.execute(sa.select(audit_head).where(audit_head.c.id == 1))).first()
    if row is None:
        raise _BadRecord(1, "the head row is missing")
    return row.seq, row.chain_hash


async def _records(db: Database, last: int) -> AsyncIterator[tuple[int, bytes, bytes, Envelope]]:
    """The records up to `last` in order, a batch at a time, so that no long read holds anything up."""
    after: int | None = None
    while True:
        query = sa.select(*_RECORD).where(audit_event.c.seq <= last).order_by(audit_event.c.seq).limit(_BATCH)
        if after is not None:
            query = query.where(audit_event.c.seq > after)
        async with db.read() as conn:
            rows = (await conn.execute(query)).all()
        for row in rows:
            seq, leaf, stored, *hashed = tuple(row)
            yield seq, leaf, stored, Envelope(*hashed)
        if len(rows) < _BATCH:
            return
        after = rows[-1].seq


async def _check_beyond(db: Database) -> None:
    """No record lies beyond the head. One statement, so that an append in between cannot look like one."""
    newest = sa.select(sa.func.max(audit_event.c.seq)).scalar_subquery()
    async with db.read() as conn:
        row = (await conn.execute(sa.select(audit_head.c.seq, newest.label("newest")))).first()
    if row is not None and row.newest is not None and row.newest > row.seq:
        raise _BadRecord(row.seq + 1, "a record lies beyond the head: it was not appended by the log")


async def _check_runs(db: Database, last: int) -> None:
    """Each run's numbers are 1..n. The chain vouches for the numbers; this catches a writer that chose them wrongly."""
    numbers = audit_event.c.run_seq
    query = (
        sa.select(sa.func.max(audit_event.c.seq), audit_event.c.run_id)
        .where(audit_event.c.run_id.is_not(None), audit_event.c.seq <= last)
        .group_by(audit_event.c.run_id)
        .having(sa.or_(sa.func.count(numbers) != sa.func.max(numbers), sa.func.count(numbers) != sa.func.count()))
        .limit(1)
    )
    async with db.read() as conn:
        row = (await conn.execute(query)).first()
    if row is not None:
        raise _BadRecord(row[0], f"the records of run {row[1]} are not numbered densely")
