"""Legal holds: what retention must leave alone, of a tenant, one run or a time, until somebody lifts the hold."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from tools.contract import Wire
from worker.store import times
from worker.store.audit import AuditEvent, AuditLog
from worker.store.ids import new_id
from worker.store.paging import Page, Position, newest_first, page_of
from worker.store.tables import legal_hold as table


class Hold(Wire):
    """One hold. Without a run it holds the tenant's records of that time; without times, all."""

    id: str
    tenant: str
    run_id: str | None
    since: datetime | None
    until: datetime | None
    reason: str
    placed_by: str
    placed_at: datetime
    lifted_by: str | None = None
    lifted_at: datetime | None = None

    def holds(self, run_id: str | None, ts: str) -> bool:
        """Whether a record of that run and time is held."""
        if self.run_id is not None and self.run_id != run_id:
            return False
        begins = self.since is None or times.to_text(self.since) <= ts
        return begins and (self.until is None or ts < times.to_text(self.until))


class Holds:
    """The holds of one store. Placing and lifting are audited in their own transactions."""

    def __init__(self, audit: AuditLog) -> None:
        self._audit = audit
        self._db = audit.db

    async def place(
        self, tenant: str, reason: str, by: str, *, run_id: str | None = None, since: datetime | None = None,
        until: datetime | None = None,
    ) -> Hold:  # fmt: skip
        """From the commit on nothing it names is pruned. Raises ValueError without a reason, StoreUnavailable."""
        if not reason.strip() or (since is not None and until is not None and until <= since):
            raise ValueError("a hold needs a reason, and a time that ends after it begins")
        hold = Hold(
            id=new_id("hold"), tenant=tenant, run_id=run_id, since=since, until=until,
            reason=str(self._db.redact(reason)), placed_by=by, placed_at=times.now(),
        )  # fmt: skip
        body = hold.model_dump(mode="json", include={"id", "run_id", "since", "until", "reason"})
        async with self._db.begin() as conn:
            await conn.execute(sa.insert(table).values(hold.model_dump()))
            await self._audit.append(AuditEvent(f"{hold.id}/placed", "hold.placed", tenant, None, by, body), conn=conn)
        return hold

    async def lift(self, tenant: str | None, hold_id: str, reason: str, by: str) -> Hold | None:
        """End a hold; None when that tenant (None: any) has none of that id in force. Raises StoreUnavailable."""
        change = sa.update(table).where(table.c.id == hold_id, table.c.lifted_at.is_(None))
        if tenant is not None:
            change = change.where(table.c.tenant == tenant)
        async with self._db.begin() as conn:
            rows = await conn.execute(change.values(lifted_by=by, lifted_at=times.now()).returning(table))
            row = rows.mappings().first()
            if row is None:
                return None
            hold = Hold.model_validate(dict(row))
            body: Any = {"id": hold_id, "reason": self._db.redact(reason)}
            event = AuditEvent(f"{hold_id}/lifted", "hold.lifted", hold.tenant, None, by, body)
            await self._audit.append(event, conn=conn)
        return hold

    async def get(self, tenant: str, hold_id: str) -> Hold | None:
        """The hold, if that tenant has it; a lifted one, too. Raises StoreUnavailable."""
        async with self._db.read() as conn:
            rows = await conn.execute(sa.select(table).where(table.c.id == hold_id, table.c.tenant == tenant))
            row = rows.mappings().first()
        return None if row is None else Hold.model_validate(dict(row))

    async def page(
        self, tenant: str, *, active: bool = False, cursor: str | None = None, limit: int = 50
    ) -> Page[Hold]:  # fmt: skip
        """The tenant's holds, newest first. Raises BadCursor, StoreUnavailable."""
        query = sa.select(table).where(table.c.tenant == tenant)
        if active:
            query = query.where(table.c.lifted_at.is_(None))
        query = newest_first(query, kind="holds", at=table.c.placed_at, key=table.c.id, cursor=cursor, limit=limit)
        async with self._db.read() as conn:
            found = [Hold.model_validate(dict(row)) for row in (await conn.execute(query)).mappings()]
        return page_of("holds", found, limit, lambda hold: Position(times.to_text(hold.placed_at), hold.id))

    async def in_force(self) -> list[Hold]:
        """All of them, oldest first. Raises StoreUnavailable."""
        async with self._db.read() as conn:
            rows = await conn.execute(sa.select(table).where(table.c.lifted_at.is_(None)).order_by(table.c.id))
            return [Hold.model_validate(dict(row)) for row in rows.mappings()]


async def holds_of(conn: AsyncConnection, tenant: str) -> Sequence[Hold]:
    """The tenant's holds in force, as this transaction sees them."""
    rows = await conn.execute(sa.select(table).where(table.c.tenant == tenant, table.c.lifted_at.is_(None)))
    return [Hold.model_validate(dict(row)) for row in rows.mappings()]
