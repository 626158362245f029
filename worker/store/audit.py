"""The audit log: append-only, densely numbered, chained; the order of records is the order of commits.

Every append locks the head row, so the sequence has no gaps whatever process is killed when: a number exists only once
its record is committed. A record is durable when `append` returns, and a fact is recorded once however often it is
reported (`event_id`).
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from tools.contract import JsonObject
from worker.store import chain, lines, times
from worker.store.anchor import Vouched
from worker.store.chain import Envelope
from worker.store.checking import NOTHING, Verification
from worker.store.database import Database
from worker.store.events import EVENT_TYPES, LATE_TYPES, closed_id
from worker.store.tables import audit_event, audit_head
from worker.store.verification import verify

MAX_PAGE = 1000
_EXPORT_BATCH = 500


class UnknownEventType(ValueError):  # noqa: N818  (says what is the case)
    """The type is not in the catalogue (`worker.store.events.EVENT_TYPES`)."""


class RunAlreadyClosed(Exception):  # noqa: N818
    """The run's `run.closed` is recorded: nothing but late refusals may follow it."""


@dataclass(frozen=True)
class AuditEvent:
    """A fact to record. `event_id` names the fact, not the report of it: `<run id>/call/<call id>/intent`."""

    event_id: str
    type: str
    tenant: str
    run_id: str | None
    actor: str
    """Who did it: a principal's id, or `system:<part>` when no person or service did."""
    body: JsonObject


@dataclass(frozen=True)
class AuditRecord:
    """A recorded fact. `seq` is dense over the log, `run_seq` dense within the run (None without a run)."""

    seq: int
    event_id: str
    ts: datetime
    tenant: str
    run_id: str | None
    run_seq: int | None
    type: str
    actor: str
    body: JsonObject
    leaf_hash: str
    chain_hash: str


class AuditLog:
    """The log of one store. Appends of all processes are ordered by the lock on the head row."""

    def __init__(self, db: Database) -> None:
        self.db = db
        """The store the log is in, for those who join it in a transaction."""

    async def append(self, *events: AuditEvent, conn: AsyncConnection | None = None) -> list[AuditRecord]:
        """Record the facts, in order; one that is recorded already yields the stored record, unchanged.

        Durable when it returns, or, with `conn`, when that transaction commits. With `conn` the head stays locked until
        then, so append last. Raises StoreUnavailable, UnknownEventType, RunAlreadyClosed, and ValueError for a body
        that has no canonical JSON (NaN, lone surrogates); then nothing at all is recorded.
        """
        for e in events:
            if e.type not in EVENT_TYPES:
                raise UnknownEventType(f"{e.type!r} is not an audit event; the catalogue is worker.store.events")
        if conn is not None:
            return await _append(conn, events)
        async with self.db.begin() as own:
            return await _append(own, events)

    async def lock(self, conn: AsyncConnection) -> None:
        """Hold all other appends until the transaction ends: what is read of the log now stays true till then."""
        await _lock_head(conn)

    async def get(self, event_id: str, *, conn: AsyncConnection | None = None) -> AuditRecord | None:
        """The record of that fact, if it is recorded. Internal: not scoped to a tenant."""
        query = sa.select(audit_event).where(audit_event.c.event_id == event_id)
        if conn is not None:
            return next(iter(_records(await conn.execute(query))), None)
        async with self.db.read() as own:
            return next(iter(_records(await own.execute(query))), None)

    async def event_ids(self, run_id: str, *types: str, conn: AsyncConnection) -> list[str]:
        """Event ids of the run's records of these types, in order."""
        query = (
            sa.select(audit_event.c.event_id)
            .where(audit_event.c.run_id == run_id, audit_event.c.type.in_(types))
            .order_by(audit_event.c.run_seq)
        )
        return list((await conn.execute(query)).scalars())

    async def count(self, run_id: str, *, conn: AsyncConnection) -> int:
        """How many records the run has. Holds true until the transaction ends only after `lock`."""
        return (await conn.execute(_LAST_OF_RUN, {"run_id": run_id})).scalar_one() or 0

    async def page(
        self, *, tenant: str | None, run_id: str | None = None, type: str | None = None, after: int = 0,  # noqa: A002
        limit: int = 100,
    ) -> list[AuditRecord]:  # fmt: skip
        """Records with seq > `after`, oldest first, at most `limit` (1..MAX_PAGE). `tenant` None means all tenants and
        is for the auditor's command line only."""
        if not 1 <= limit <= MAX_PAGE:
            raise ValueError(f"limit must be 1..{MAX_PAGE}")
        query = sa.select(audit_event).where(audit_event.c.seq > after).order_by(audit_event.c.seq).limit(limit)
        if tenant is not None:
            query = query.where(audit_event.c.tenant == tenant)
        if run_id is not None:
            query = query.where(audit_event.c.run_id == run_id)
        if type is not None:
            query = query.where(audit_event.c.type == type)
        async with self.db.read() as conn:
            return _records(await conn.execute(query))

    async def verify(self, vouched: Vouched = NOTHING) -> Verification:
        """Check the whole log against itself, its head, and what an anchor vouches for; appends may go on meanwhile."""
        return await verify(self.db, vouched)

    async def export(self, *, tenant: str | None = None, after: int = 0) -> AsyncIterator[bytes]:
        """The log as JSON Lines, oldest first: each record with its body as it is stored, hashes in hex.

        Resume with `after`.
        """
        query = sa.select(audit_event).order_by(audit_event.c.seq).limit(_EXPORT_BATCH)
        if tenant is not None:
            query = query.where(audit_event.c.tenant == tenant)
        while True:
            async with self.db.read() as conn:
                rows = (await conn.execute(query.where(audit_event.c.seq > after))).mappings().all()
            for row in rows:
                yield lines.line(row)
            if len(rows) < _EXPORT_BATCH:
                return
            after = rows[-1]["seq"]


async def _append(conn: AsyncConnection, events: Sequence[AuditEvent]) -> list[AuditRecord]:
    if not events:
        return []
    # Bodies first: what cannot be written must not hold the lock.
    bodies = [chain.body_bytes(e.body) for e in events]
    seq, previous = await _lock_head(conn)
    known, run_seqs = await _known(conn, events)
    rows: list[dict[str, Any]] = []
    for e, body in zip(events, bodies, strict=True):
        if e.event_id in known:
            continue
        seq += 1
        run_seq = None if e.run_id is None else _next_run_seq(e.run_id, e.type, run_seqs, known)
        ts = times.to_text(times.now())
        envelope = Envelope(e.event_id, ts, e.tenant, e.run_id, run_seq, e.type, e.actor, body)
        leaf = chain.leaf_hash(envelope)
        previous = chain.chain_hash(previous, seq, leaf)
        row = {"seq": seq, **envelope._asdict(), "leaf_hash": leaf, "chain_hash": previous}
        known[e.event_id] = _record(row)
        rows.append(row)
    if rows:
        await conn.execute(_INSERT, rows)
        await conn.execute(_MOVE_HEAD, {"new_seq": seq, "new_chain": previous})
    return [known[e.event_id] for e in events]


_HEAD = sa.select(audit_head.c.seq, audit_head.c.chain_hash).where(audit_head.c.id == 1).with_for_update()
_INSERT = sa.insert(audit_event)
_MOVE_HEAD = (
    sa.update(audit_head)
    .where(audit_head.c.id == 1)
    .values(seq=sa.bindparam("new_seq"), chain_hash=sa.bindparam("new_chain"))
)
_LAST_OF_RUN = sa.select(sa.func.max(audit_event.c.run_seq)).where(audit_event.c.run_id == sa.bindparam("run_id"))


async def _lock_head(conn: AsyncConnection) -> tuple[int, bytes]:
    """Sequence and chain value of the last record; nobody else appends until the transaction ends."""
    row = (await conn.execute(_HEAD)).one()
    return row.seq, row.chain_hash


@lru_cache(maxsize=64)
def _known_query(runs: int) -> sa.CompoundSelect[Any] | sa.Select[Any]:
    """Records by event id, and the last record of each of so many runs, in one statement: each statement under the
    head's lock is a round trip that every other writer waits for."""
    named = sa.select(audit_event).where(audit_event.c.event_id.in_(sa.bindparam("ids", expanding=True)))
    last = [
        sa.select(
            sa.select(audit_event)
            .where(audit_event.c.run_id == sa.bindparam(f"run_{n}"))
            .order_by(audit_event.c.run_seq.desc())
            .limit(1)
            .subquery()
        )
        for n in range(runs)
    ]
    return sa.union_all(named, *last) if last else named


async def _known(conn: AsyncConnection, events: Sequence[AuditEvent]) -> tuple[dict[str, AuditRecord], dict[str, int]]:
    """What is recorded already, of the events themselves and `run.closed` of their runs; and each run's last number."""
    runs = sorted({e.run_id for e in events if e.run_id is not None})
    ids = {e.event_id for e in events} | {closed_id(run_id) for run_id in runs}
    found = await conn.execute(
        _known_query(len(runs)), {"ids": sorted(ids), **{f"run_{n}": run_id for n, run_id in enumerate(runs)}}
    )
    known: dict[str, AuditRecord] = {}
    run_seqs = dict.fromkeys(runs, 0)
    for row in found.mappings():
        if row["event_id"] in ids:
            known[row["event_id"]] = _record(row)
        if row["run_id"] in run_seqs:
            run_seqs[row["run_id"]] = max(run_seqs[row["run_id"]], row["run_seq"])
    return known, run_seqs


def _next_run_seq(run_id: str, type_: str, run_seqs: dict[str, int], known: dict[str, AuditRecord]) -> int:
    if closed_id(run_id) in known and type_ not in LATE_TYPES:
        raise RunAlreadyClosed(f"run {run_id} is closed: {type_} cannot be recorded any more")
    run_seqs[run_id] += 1
    return run_seqs[run_id]


def _records(result: sa.CursorResult[Any]) -> list[AuditRecord]:
    return [_record(row) for row in result.mappings()]


def _record(row: Mapping[Any, Any]) -> AuditRecord:
    return AuditRecord(
        seq=row["seq"],
        event_id=row["event_id"],
        ts=times.from_text(row["ts"]),
        tenant=row["tenant"],
        run_id=row["run_id"],
        run_seq=row["run_seq"],
        type=row["type"],
        actor=row["actor"],
        body=chain.read_body(row["body"]),
        leaf_hash=row["leaf_hash"].hex(),
        chain_hash=row["chain_hash"].hex(),
    )


__all__ = [
    "AuditEvent", "AuditLog", "AuditRecord", "RunAlreadyClosed", "UnknownEventType", "Verification",
]  # fmt: skip
