"""Tokens of messages that were used: each counts once, whoever presses at the same moment."""

from datetime import datetime

import sqlalchemy as sa

from tools.contract import JsonObject
from worker.store import times
from worker.store.audit import AuditEvent, AuditLog
from worker.store.database import Database, insert_if_absent
from worker.store.ids import new_id
from worker.store.tables import spent_token as table


class Spent:
    """What was used, of one store."""

    def __init__(self, db: Database, audit: AuditLog) -> None:
        self.db = db
        self._audit = audit

    async def spend(self, token_id: str, *, tenant: str, approval_id: str, by: str, told: JsonObject) -> bool:
        """Use it up, on record as `message.used` with what `told` says; False when somebody has already."""
        now = times.now()
        values = {"id": token_id, "tenant": tenant, "approval_id": approval_id, "used_by": by, "used_at": now}
        async with self.db.begin() as conn:
            first = await insert_if_absent(conn, table, values)
            if first:
                body: JsonObject = {"approval_id": approval_id, **told}
                event_id = f"message/{new_id('use')}"
                await self._audit.append(AuditEvent(event_id, "message.used", tenant, None, by, body), conn=conn)
        return first

    async def used_by(self, token_id: str) -> str | None:
        """Who used it, if somebody did."""
        async with self.db.read() as conn:
            return (await conn.execute(sa.select(table.c.used_by).where(table.c.id == token_id))).scalar()

    async def prune(self, before: datetime) -> None:
        """Forget uses of before that moment; the tokens are void by their age."""
        async with self.db.begin() as conn:
            await conn.execute(
                sa.delete(table).where(sa.type_coerce(table.c.used_at, sa.Text()) <= times.to_text(before))
            )

    async def give_back(self, token_id: str) -> None:
        """It had no effect, so it may be used again."""
        async with self.db.begin() as conn:
            await conn.execute(sa.delete(table).where(table.c.id == token_id))
