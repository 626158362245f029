"""Seals again what is plain, from before sealing, or sealed under an older key: after an update or a rotation of keys.

While everything runs: a few rows a transaction, each one locked while it is changed. When it is done, keys older than
the newest open nothing in the store any more.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from worker.store import tables
from worker.store.database import Database
from worker.store.sealing import PREFIX, SEALED, Seals, owner

_BATCH = 200
_KEY_ID = 16


class Resealed(NamedTuple):
    """Of all tables together."""

    rows: int
    values: int


async def reseal(db: Database, told: Callable[[str, int], None] = lambda _table, _rows: None) -> Resealed:
    """Bring every sealed column under the newest key; `told` hears of each table and how many of its rows changed.

    May be repeated, and broken off. Raises StoreUnavailable.
    """
    seals, rows, values = Seals(db.keyring), 0, 0
    for table in SEALED:
        found = await _table(db, seals, table)
        told(table.name, found.rows)
        rows, values = rows + found.rows, values + found.values
    return Resealed(rows, values)


async def counts(db: Database) -> dict[str, int]:
    """How many values there are under each data key; `plain`: under none."""
    found: dict[str, int] = {}
    async with db.read() as conn:
        for table, sealed in SEALED.items():
            for column in (table.c[name] for name in sealed.columns):
                named = sa.func.substr(column, len(PREFIX) + 1, _KEY_ID)
                under = sa.case((column.like(f"{PREFIX}%"), named), else_="plain").label("sealed_under")
                query = sa.select(under, sa.func.count()).where(column.is_not(None)).group_by("sealed_under")
                for key_id, number in await conn.execute(query):
                    found[key_id] = found.get(key_id, 0) + number
    return found


async def _table(db: Database, seals: Seals, table: sa.Table) -> Resealed:
    keys, columns = list(table.primary_key.columns), SEALED[table].columns
    after: tuple[Any, ...] | None = None
    rows = values = 0
    while True:
        query = sa.select(table).order_by(*keys).limit(_BATCH).with_for_update()
        if after is not None:
            query = query.where(sa.tuple_(*keys) > sa.tuple_(*(sa.literal(part) for part in after)))
        async with db.begin() as conn:
            batch = (await conn.execute(query)).all()
            for row in batch:
                held = {name: getattr(row, name) for name in columns}
                stale = [name for name, value in held.items() if seals.stale(value)]
                if not stale:
                    continue
                opened, tenant = seals.open(table, row), await _tenant(conn, table, row, held[stale[0]])
                changed = seals.seal(table, opened, tenant, **{name: opened[name] for name in stale})
                await conn.execute(
                    sa.update(table).where(*(key == getattr(row, key.name) for key in keys)).values(changed)
                )
                rows, values = rows + 1, values + len(stale)
        if len(batch) < _BATCH:
            return Resealed(rows, values)
        after = tuple(getattr(batch[-1], key.name) for key in keys)


async def _tenant(conn: AsyncConnection, table: sa.Table, row: sa.Row[Any], value: str) -> str:
    """Whose row it is; "" for a call of a run that is not on record any more."""
    if "tenant" in table.c:
        return row.tenant
    named = owner(value)
    if named is not None:
        return named
    of_run = sa.select(tables.run.c.tenant).where(tables.run.c.id == str(row.key).partition("/")[0])
    return (await conn.execute(of_run)).scalar_one_or_none() or ""
