"""Switches in the store: set, eased step by step, released; every step audited in its own transaction.

Setting one also writes down, in that same transaction, every run it stops and freezes their questions for the API: from
the commit on nothing new begins, whether or not Temporal answers. What is under way is stopped by the keeper and the
sandbox workers, who find their work in these rows (`worker.store.stops`).
"""

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from policies.switches import EVERYWHERE, RUN_WIDE, Running, Scope, Switch, SwitchState
from tools.contract import JsonObject
from worker.store import times
from worker.store.audit import AuditEvent, AuditLog
from worker.store.database import Database
from worker.store.ids import new_id
from worker.store.outbox import Notice, Outbox
from worker.store.paging import Page, Position, newest_first, page_of
from worker.store.stops import add_stops
from worker.store.tables import switch as table
from worker.store.tables import switch_stop

INSTALLATION = "-"
"""Tenant of the records about switches that count for all tenants."""


class SwitchMoved(Exception):  # noqa: N818  (says what is the case)
    """The switch is not in the state the caller saw any more."""


class Switches:
    """The switches of one store. Reads are one query on a small index, cheap enough for each call of each run."""

    def __init__(self, db: Database, audit: AuditLog) -> None:
        self.db = db
        self._audit = audit
        self._outbox = Outbox(db)

    async def in_force(self, *, conn: AsyncConnection | None = None) -> list[Switch]:
        """Every switch that is not released, as of now. Raises StoreUnavailable: who cannot read them must refuse."""
        query = sa.select(table).where(table.c.state.in_(("stop", "safe_mode"))).order_by(table.c.set_at, table.c.id)
        if conn is not None:
            return [_switch(row) for row in (await conn.execute(query)).mappings()]
        async with self.db.read() as own:
            return [_switch(row) for row in (await own.execute(query)).mappings()]

    async def get(self, switch_id: str) -> Switch | None:
        """One switch, whoever's it is."""
        async with self.db.read() as conn:
            row = (await conn.execute(sa.select(table).where(table.c.id == switch_id))).mappings().first()
        return None if row is None else _switch(row)

    async def page(
        self, tenant: str | None, *, active: bool = False, cursor: str | None = None, limit: int = 50
    ) -> Page[Switch]:  # fmt: skip
        """Switches that count for that tenant (None: all), newest first. Raises BadCursor."""
        query = sa.select(table)
        if tenant is not None:
            query = query.where(table.c.tenant.in_((tenant, EVERYWHERE)))
        if active:
            query = query.where(table.c.state != "released")
        query = newest_first(query, kind="switches", at=table.c.set_at, key=table.c.id, cursor=cursor, limit=limit)
        async with self.db.read() as conn:
            found = [_switch(row) for row in (await conn.execute(query)).mappings()]
        return page_of("switches", found, limit, lambda s: Position(times.to_text(s.set_at), s.id))

    async def set(
        self, scope: Scope, *, tenant: str, target: str, state: SwitchState, running: Running, reason: str, by: str
    ) -> Switch:  # fmt: skip
        """Put a switch in force. Whether `by` may is the caller's to check. Raises StoreUnavailable."""
        now, reason = times.now(), str(self.db.redact(reason))
        switch = Switch(
            id=new_id("sw"), scope=scope, tenant=tenant, target=target, state=state, running=running, reason=reason,
            set_by=by, set_at=now, revision=1, changed_by=by, changed_at=now,
        )  # fmt: skip
        async with self.db.begin() as conn:
            await conn.execute(sa.insert(table), switch.model_dump())
            stopped = 0
            if state == "stop" and scope in RUN_WIDE:
                stopped = await add_stops(conn, switch)
            await self._outbox.add(conn, _notice(switch, "switch.set", reason))
            await self._audit.append(_event(switch, "switch.set", reason, {"runs": stopped}), conn=conn)
        return switch

    async def advance(self, switch: Switch, to: SwitchState, *, by: str, reason: str) -> Switch:
        """One step of the release, from exactly the switch the caller saw. Raises SwitchMoved."""
        reason = str(self.db.redact(reason))
        after = switch.model_copy(
            update={"state": to, "revision": switch.revision + 1, "changed_by": by, "changed_at": times.now()}
        )
        change = (
            sa.update(table)
            .where(table.c.id == switch.id, table.c.revision == switch.revision)
            .values(state=to, revision=after.revision, changed_by=by, changed_at=after.changed_at)
            .returning(table.c.id)
        )
        async with self.db.begin() as conn:
            if (await conn.execute(change)).first() is None:
                raise SwitchMoved("somebody has moved the switch meanwhile")
            # Those that were told to stop have to be told again, at once.
            await conn.execute(sa.update(switch_stop).where(switch_stop.c.switch_id == switch.id).values(asked_at=None))
            type_ = "switch.released" if to == "released" else "switch.eased"
            await self._outbox.add(conn, _notice(after, type_, reason))
            await self._audit.append(_event(after, type_, reason, {}), conn=conn)
        return after


def _switch(row: sa.RowMapping) -> Switch:
    return Switch.model_validate(dict(row))


def _event(switch: Switch, type_: str, reason: str, more: JsonObject) -> AuditEvent:
    body: JsonObject = {
        "switch_id": switch.id, "scope": switch.scope, "tenant": switch.tenant, "target": switch.target,
        "state": switch.state, "running": switch.running, "reason": reason, **more,
    }  # fmt: skip
    return AuditEvent(f"switch/{switch.id}/{switch.revision}", type_, _tenant(switch), None, switch.changed_by, body)


def _notice(switch: Switch, type_: str, reason: str) -> Notice:
    body: JsonObject = {
        "switch_id": switch.id, "scope": switch.scope, "target": switch.target, "state": switch.state,
        "running": switch.running, "reason": reason, "by": switch.changed_by,
    }  # fmt: skip
    return Notice(
        id=f"switch/{switch.id}/{switch.revision}", type=type_, tenant=_tenant(switch), body=body,
        created_at=switch.changed_at,
    )  # fmt: skip


def _tenant(switch: Switch) -> str:
    return INSTALLATION if switch.tenant == EVERYWHERE else switch.tenant
