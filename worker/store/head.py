"""Where the audit log ends, for those who only want to know whether it grew."""

from datetime import datetime

import sqlalchemy as sa

from worker.store import times
from worker.store.database import Database
from worker.store.tables import audit_event, audit_head

_LAST = sa.select(audit_head.c.seq).where(audit_head.c.id == 1)


async def last_seq(db: Database) -> int:
    """Sequence number of the newest record; 0 when the log is empty. Raises StoreUnavailable."""
    async with db.read() as conn:
        return (await conn.execute(_LAST)).scalar_one_or_none() or 0


async def last_time(db: Database, type_: str) -> datetime | None:
    """When the newest record of a type was written; None when there is none. Raises StoreUnavailable."""
    newest = sa.select(audit_event.c.ts).where(audit_event.c.type == type_).order_by(audit_event.c.seq.desc()).limit(1)
    async with db.read() as conn:
        found = (await conn.execute(newest)).scalar_one_or_none()
    return times.from_text(found) if found else None
