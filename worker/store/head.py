"""Where the audit log ends, for those who only want to know whether it grew."""

import sqlalchemy as sa

from worker.store.database import Database
from worker.store.tables import audit_head

_LAST = sa.select(audit_head.c.seq).where(audit_head.c.id == 1)


async def last_seq(db: Database) -> int:
    """Sequence number of the newest record; 0 when the log is empty. Raises StoreUnavailable."""
    async with db.read() as conn:
        return (await conn.execute(_LAST)).scalar_one_or_none() or 0
