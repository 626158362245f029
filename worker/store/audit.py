"""The audit log: append-only, densely numbered, chained; the order of records is the order of commits.

Every append locks the head row, so the sequence has no gaps whatever process is killed when: a number exists only once
its record is committed. A record is durable when `append` returns, and a fact is recorded once however often it is
reported (`event_id`).
"""

from collections.abc import AsyncIterator

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from worker.store import appending, lines
from worker.store.anchor import Vouched
from worker.store.appending import Request
from worker.store.checking import NOTHING, Verification
from worker.store.committing import Committer
from worker.store.database import Database
from worker.store.events import EVENT_TYPES
from worker.store.records import AuditEvent, AuditRecord, RunAlreadyClosed, UnknownEventType, read_rows
from worker.store.tables import audit_event
from worker.store.verification import verify

MAX_PAGE = 1000
_EXPORT_BATCH = 500


class AuditLog:
    """The log of one store. Appends of all processes are ordered by the lock on the head row."""

    def __init__(self, db: Database) -> None:
        self.db = db
        """The store the log is in, for those who join it in a transaction."""
        self._committer = Committer(db)

    async def append(self, *events: AuditEvent, conn: AsyncConnection | None = None) -> list[AuditRecord]:
        """Record the facts, in order; one that is recorded already yields the stored record, unchanged.

        Durable when it returns, or, with `conn`, when that transaction commits. Without `conn`, callers at the same
        time share a commit. With `conn` the head stays locked until the transaction ends, so append last. Raises
        StoreUnavailable, UnknownEventType, RunAlreadyClosed, and ValueError for a body that has no canonical JSON (NaN,
        lone surrogates); then nothing of these events is recorded.
        """
        for e in events:
            if e.type not in EVENT_TYPES:
                raise UnknownEventType(f"{e.type!r} is not an audit event; the catalogue is worker.store.events")
        if conn is None:
            return await self._committer.append(events) if events else []
        [answer] = await appending.append(conn, [Request.of(events)])
        if isinstance(answer, RunAlreadyClosed):
            raise answer
        return answer

    async def lock(self, conn: AsyncConnection) -> None:
        """Hold all other appends until the transaction ends: what is read of the log now stays true till then."""
        await appending.lock_head(conn)

    async def get(self, event_id: str, *, conn: AsyncConnection | None = None) -> AuditRecord | None:
        """The record of that fact, if it is recorded. Internal: not scoped to a tenant."""
        query = sa.select(audit_event).where(audit_event.c.event_id == event_id)
        if conn is not None:
            return next(iter(read_rows((await conn.execute(query)).mappings())), None)
        async with self.db.read() as own:
            return next(iter(read_rows((await own.execute(query)).mappings())), None)

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
            return read_rows((await conn.execute(query)).mappings())

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


_LAST_OF_RUN = sa.select(sa.func.max(audit_event.c.run_seq)).where(audit_event.c.run_id == sa.bindparam("run_id"))


__all__ = [
    "AuditEvent", "AuditLog", "AuditRecord", "RunAlreadyClosed", "UnknownEventType", "Verification",
]  # fmt: skip
