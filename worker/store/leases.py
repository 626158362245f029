"""Leases: which of several processes does a background duty now. A lease saves work; it is never what makes it safe.

One that seems to last longer than leases do was taken before the clock was set back, and is free."""

from datetime import timedelta

import sqlalchemy as sa

from worker.store import times
from worker.store.database import Database, insert_if_absent
from worker.store.tables import lease as table


class Lease:
    """One process's claim on a duty. `held_for` is how long it lasts without being renewed."""

    def __init__(self, db: Database, name: str, owner: str, held_for: timedelta = timedelta(seconds=10)) -> None:
        self._db = db
        self._name = name
        self._owner = owner
        self._held_for = held_for

    async def take(self) -> bool:
        """Take or renew it; False while another process holds it. Raises StoreUnavailable."""
        now = times.now()
        values = {"name": self._name, "owner": self._owner, "until": now + self._held_for}
        async with self._db.begin() as conn:
            if await insert_if_absent(conn, table, values):
                return True
            until, ahead = sa.type_coerce(table.c.until, sa.Text()), now + self._held_for + times.AHEAD
            over = sa.or_(until < times.to_text(now), until > times.to_text(ahead))
            free = sa.or_(table.c.owner == self._owner, over)
            change = sa.update(table).where(table.c.name == self._name, free).values(values).returning(table.c.name)
            return (await conn.execute(change)).first() is not None

    async def give_back(self) -> None:
        """Let another process take it at once."""
        async with self._db.begin() as conn:
            await conn.execute(sa.delete(table).where(table.c.name == self._name, table.c.owner == self._owner))
