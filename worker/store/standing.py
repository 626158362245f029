"""Grants and delegations in the store. Every row carries a signed value; a row without its signature does not count.

What a writer of the database can still do: hide a revocation, or reset how often a grant was used. `until` bounds both.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from policies.approval import same
from policies.decision import Decision, GateRequest, Principal
from policies.signatures import DELEGATION, GRANT, verify
from policies.standing import Delegation, Grant, grants, stands_in
from tools.contract import JsonObject, Wire
from worker.store import times
from worker.store.audit import AuditEvent, AuditLog
from worker.store.database import Database, StoreUnavailable, insert_if_absent
from worker.store.sealing import Seals
from worker.store.tables import approval_grant, approval_grant_use, delegation

MOST = 500
"""Rows that a list shows, and grants of one automation's tool that a call is compared with."""


class GrantRow(Wire):
    """A grant, and what became of it."""

    grant: Grant
    used: int
    revoked_by: str | None = None
    revoked_at: datetime | None = None


class DelegationRow(Wire):
    """A delegation, and whether it was ended."""

    delegation: Delegation
    revoked_by: str | None = None
    revoked_at: datetime | None = None


class Standing:
    """Both lists. Every change and every use is audited in its own transaction."""

    def __init__(self, db: Database, audit: AuditLog, keys: Mapping[str, str]) -> None:
        """`keys`: key id -> base64 public key, whose signatures count."""
        self._db = db
        self._seals = Seals(db.keyring)
        self._audit = audit
        self._keys = keys

    async def add_grant(self, grant: Grant) -> GrantRow:
        """Keep a signed grant. Whether its maker may is the caller's to check."""
        async with self._db.begin() as conn:
            values = {
                "id": grant.id, "tenant": grant.tenant, "automation": grant.automation, "tool": grant.tool,
                "used": 0, "created_at": grant.created_at,
            }  # fmt: skip
            values |= self._seals.seal(approval_grant, values, content=grant.model_dump_json())
            await conn.execute(sa.insert(approval_grant).values(values))
            body: JsonObject = {"grant": self._shown(grant, "arguments", "reason")}
            await self._record(conn, f"{grant.id}/created", "grant.created", grant.tenant, grant.created_by, body)
        return GrantRow(grant=grant, used=0)

    async def grants(self, tenant: str) -> list[GrantRow]:
        """The tenant's grants, newest first."""
        async with self._db.read() as conn:
            return [self._grant_row(row) for row in await conn.execute(_newest(approval_grant, tenant))]

    async def grant(self, tenant: str, grant_id: str) -> GrantRow | None:
        """One grant of the tenant, however old."""
        async with self._db.read() as conn:
            row = (await conn.execute(_one(approval_grant, tenant, grant_id))).first()
        return None if row is None else self._grant_row(row)

    async def revoke_grant(self, tenant: str, grant_id: str, by: str) -> GrantRow | None:
        """End a grant, once; None when the tenant has none of that id."""
        async with self._db.begin() as conn:
            if await self._end(conn, approval_grant, tenant, grant_id, by):
                await self._record(conn, f"{grant_id}/revoked", "grant.revoked", tenant, by, {"grant_id": grant_id})
            row = (await conn.execute(_one(approval_grant, tenant, grant_id))).first()
        return None if row is None else self._grant_row(row)

    async def use(
        self, run_id: str, call_id: str, digest: str, decision: Decision, request: GateRequest
    ) -> Grant | None:
        """The grant by which this call need not be asked about, used up by one; None when there is none.

        The same call with the same arguments uses one grant once, however often it is gated or tried again.
        """
        now, call = times.now(), f"{run_id}/{call_id}/{digest}"
        place = (request.principal.tenant, request.automation, request.tool)
        async with self._db.read() as conn:
            rows = (await conn.execute(_in_force(*place))).all()
        fitting = [row for row in map(self._grant_row, rows) if self._counts(row, decision, request, now)]
        if not fitting:
            return None
        async with self._db.begin() as conn:
            at = approval_grant_use.c.call == call
            taken = (await conn.execute(sa.select(approval_grant_use.c.grant_id).where(at))).scalar_one_or_none()
            for row in fitting:
                if taken is not None and taken != row.grant.id:
                    continue
                if taken is None and not await self._take(conn, row.grant, call, now):
                    continue
                event_id = f"{run_id}/call/{call_id}/grant/{row.grant.id}/{digest[:16]}"
                body: JsonObject = {
                    "grant_id": row.grant.id, "call_id": call_id, "digest": digest, "rule": decision.rule,
                    "created_by": row.grant.created_by,
                }  # fmt: skip
                tenant, by = row.grant.tenant, request.principal.id
                await self._audit.append(AuditEvent(event_id, "grant.used", tenant, run_id, by, body), conn=conn)
                return row.grant
        return None

    async def add_delegation(self, made: Delegation) -> DelegationRow:
        """Keep a signed delegation. Whether its maker may is the caller's to check."""
        async with self._db.begin() as conn:
            values = {
                "id": made.id, "tenant": made.absent.tenant, "absent": made.absent.id, "stand_in": made.stand_in,
                "until": made.until, "created_at": made.created_at,
            }  # fmt: skip
            values |= self._seals.seal(delegation, values, content=made.model_dump_json())
            await conn.execute(sa.insert(delegation).values(values))
            body: JsonObject = {"delegation": self._shown(made, "reason")}
            tenant = made.absent.tenant
            await self._record(conn, f"{made.id}/created", "delegation.created", tenant, made.created_by, body)
        return DelegationRow(delegation=made)

    async def delegations(self, tenant: str) -> list[DelegationRow]:
        """The tenant's delegations, newest first."""
        async with self._db.read() as conn:
            return [self._delegation_row(row) for row in await conn.execute(_newest(delegation, tenant))]

    async def delegation(self, tenant: str, delegation_id: str) -> DelegationRow | None:
        """One delegation of the tenant, however old."""
        async with self._db.read() as conn:
            row = (await conn.execute(_one(delegation, tenant, delegation_id))).first()
        return None if row is None else self._delegation_row(row)

    async def revoke_delegation(self, tenant: str, delegation_id: str, by: str) -> bool:
        """End a delegation; False when the tenant has none of that id in force."""
        async with self._db.begin() as conn:
            ended = await self._end(conn, delegation, tenant, delegation_id, by)
            if ended:
                body: JsonObject = {"delegation_id": delegation_id}
                await self._record(conn, f"{delegation_id}/revoked", "delegation.revoked", tenant, by, body)
        return ended

    async def absent(self, principal: Principal, absent: str, now: datetime) -> Principal | None:
        """The absent person of that id, when a delegation in force lets the principal answer for them."""
        in_force = (
            delegation.c.tenant == principal.tenant, delegation.c.until > now, delegation.c.revoked_at.is_(None)
        )  # fmt: skip
        names = sa.select(delegation.c.id, delegation.c.absent, delegation.c.stand_in).where(*in_force)
        async with self._db.read() as conn:
            # No database folds names as `same` does; there are about as many in force as people are away.
            found = await conn.execute(names)
            ids = [row.id for row in found if same(row.absent, absent) and same(row.stand_in, principal.id)]
            newest = delegation.c.created_at.desc()
            rows = (await conn.execute(sa.select(delegation).where(delegation.c.id.in_(ids)).order_by(newest))).all()
        for made in (self._delegation_row(row).delegation for row in rows):
            named = same(made.absent.id, absent) and stands_in(made, principal, now)
            if named and verify(made, DELEGATION, self._keys):
                return made.absent
        return None

    async def absentees(self, principal: Principal, now: datetime) -> list[Principal]:
        """Everybody for whom a delegation in force lets the principal answer."""
        where = (delegation.c.revoked_at.is_(None), delegation.c.until > now)
        async with self._db.read() as conn:
            rows = (await conn.execute(_newest(delegation, principal.tenant).where(*where))).all()
        made = (self._delegation_row(row).delegation for row in rows)
        mine = (d for d in made if stands_in(d, principal, now) and verify(d, DELEGATION, self._keys))
        return list({d.absent.id: d.absent for d in mine}.values())

    def _counts(self, row: GrantRow, decision: Decision, request: GateRequest, now: datetime) -> bool:
        return grants(row.grant, decision, request, now) and verify(row.grant, GRANT, self._keys)

    async def _take(self, conn: AsyncConnection, grant: Grant, call: str, now: datetime) -> bool:
        """Use the grant up by one for this call, unless it is used up or revoked."""
        table = approval_grant
        left = (table.c.id == grant.id, table.c.used < grant.uses, table.c.revoked_at.is_(None))
        counted = sa.update(table).where(*left).values(used=table.c.used + 1).returning(table.c.id)
        if (await conn.execute(counted)).first() is None:
            return False
        if not await insert_if_absent(conn, approval_grant_use, {"call": call, "grant_id": grant.id, "used_at": now}):
            raise StoreUnavailable(f"another attempt of {call} is using a grant at this moment")  # rolls the count back
        return True

    async def _end(self, conn: AsyncConnection, table: sa.Table, tenant: str, row_id: str, by: str) -> bool:
        at = (table.c.id == row_id, table.c.tenant == tenant, table.c.revoked_at.is_(None))
        ending = sa.update(table).where(*at).values(revoked_by=by, revoked_at=times.now()).returning(table.c.id)
        return (await conn.execute(ending)).first() is not None

    async def _record(
        self, conn: AsyncConnection, event_id: str, type_: str, tenant: str, by: str, body: JsonObject
    ) -> None:
        await self._audit.append(AuditEvent(event_id, type_, tenant, None, by, body), conn=conn)

    def _shown(self, said: Grant | Delegation, *words: str) -> JsonObject:
        """As the log keeps it: what people wrote redacted; the signature is of the true words."""
        fields: JsonObject = said.model_dump(mode="json")
        return fields | {name: self._db.redact(fields[name]) for name in words}

    def _grant_row(self, row: sa.Row[Any]) -> GrantRow:
        grant = Grant.model_validate_json(self._seals.open(approval_grant, row)["content"])
        return GrantRow(grant=grant, used=row.used, revoked_by=row.revoked_by, revoked_at=row.revoked_at)

    def _delegation_row(self, row: sa.Row[Any]) -> DelegationRow:
        made = Delegation.model_validate_json(self._seals.open(delegation, row)["content"])
        return DelegationRow(delegation=made, revoked_by=row.revoked_by, revoked_at=row.revoked_at)


def _newest(table: sa.Table, tenant: str) -> sa.Select[Any]:
    return sa.select(table).where(table.c.tenant == tenant).order_by(table.c.created_at.desc(), table.c.id).limit(MOST)


def _one(table: sa.Table, tenant: str, row_id: str) -> sa.Select[Any]:
    return sa.select(table).where(table.c.id == row_id, table.c.tenant == tenant)


def _in_force(tenant: str, automation: str, tool: str) -> sa.Select[Any]:
    table = approval_grant
    place = (table.c.automation == automation, table.c.tool == tool, table.c.revoked_at.is_(None))
    return _newest(table, tenant).where(*place)
