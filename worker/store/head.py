"""Where the audit log ends, for those who only want to know whether it grew."""

from datetime import datetime
from typing import NamedTuple

import sqlalchemy as sa

from worker.store import times
from worker.store.database import Database
from worker.store.tables import audit_event, audit_head

_BEAT = (
    sa.select(audit_event.c.seq, audit_event.c.ts)
    .where(audit_event.c.type == "log.heartbeat").order_by(audit_event.c.seq.desc()).limit(1)
)  # fmt: skip
_LAST = sa.select(audit_head.c.seq).where(audit_head.c.id == 1)


async def last_seq(db: Database) -> int:
    """Sequence number of the newest record; 0 when the log is empty. Raises StoreUnavailable."""
    async with db.read() as conn:
        return (await conn.execute(_LAST)).scalar_one_or_none() or 0


class Beat(NamedTuple):
    """A record `log.heartbeat`."""

    seq: int
    ts: datetime


async def last_beat(db: Database) -> Beat | None:
    """The newest heartbeat; None when there is none. Raises StoreUnavailable."""
    async with db.read() as conn:
        found = (await conn.execute(_BEAT)).one_or_none()
    return None if found is None else Beat(found.seq, times.from_text(found.ts))
