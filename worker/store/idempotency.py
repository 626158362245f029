"""Idempotency keys of the API: a repeated request gets the first answer, and does nothing a second time.

A key belongs to a principal of a tenant and to one request: the same key with another body is a conflict. While the
first request works, a repeat is told so. A request whose process died leaves its key busy for BUSY_FOR; the next one
then takes over under the same `resource_id`, so that what the first may have started is found, not started again.
"""

import hashlib
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, NamedTuple

import sqlalchemy as sa
from pydantic import Field
from sqlalchemy.ext.asyncio import AsyncConnection

from policies.decision import Principal
from tools.contract import JsonObject, Wire
from worker.store import times
from worker.store.database import Database, insert_if_absent
from worker.store.ids import new_id
from worker.store.sealing import Seals
from worker.store.tables import idempotency_key as table

BUSY_FOR = timedelta(seconds=60)
"""How long a request may work before another may take its key over."""
KEPT_FOR = timedelta(hours=24)
"""After this a key is forgotten and may be used anew."""
_SWEEP_LIMIT = 100


class ReserveState(StrEnum):
    """What a reservation found."""

    NEW = "new"
    """Do the work under `resource_id`, then `complete` (or `release`)."""
    REPLAY = "replay"
    """Answer with `response`."""
    IN_PROGRESS = "in_progress"
    """The first request still works."""
    CONFLICT = "conflict"
    """The key was used for a different request."""


class StoredResponse(Wire):
    """The answer to hand out again."""

    status: int
    headers: dict[str, str] = Field(default_factory=dict)
    body: JsonObject


class Scope(NamedTuple):
    """Whose key it is."""

    tenant: str
    principal: str
    key: str


@dataclass(frozen=True)
class Reservation:
    """Answer to `reserve`. `token` proves to `complete` and `release` that the key is still ours."""

    state: ReserveState
    scope: Scope
    resource_id: str
    token: str = ""
    response: StoredResponse | None = None


class Idempotency:
    """The idempotency keys of one store."""

    def __init__(self, db: Database) -> None:
        self.db = db
        self._seals = Seals(db.keyring)

    async def reserve(
        self, principal: Principal, key: str, fingerprint: str, *, resource_id: str, now: datetime | None = None,
        busy_for: timedelta = BUSY_FOR, conn: AsyncConnection | None = None,
    ) -> Reservation:  # fmt: skip
        """Claim `key` for a request. `fingerprint` is a digest of method, path and body; `resource_id` is the id the
        new resource would get, which a later take-over inherits. Of any number of equal requests at once exactly one
        gets `new`. With `conn` the claim stands or falls with that transaction. Raises StoreUnavailable."""
        if conn is not None:
            return await self._reserve(conn, principal, key, fingerprint, resource_id, now, busy_for)
        async with self.db.begin() as own:
            return await self._reserve(own, principal, key, fingerprint, resource_id, now, busy_for)

    async def _reserve(
        self, conn: AsyncConnection, principal: Principal, key: str, fingerprint: str, resource_id: str,
        now: datetime | None, busy_for: timedelta,
    ) -> Reservation:  # fmt: skip
        moment = times.now() if now is None else now
        # Only its digest: a client may put anything into a header.
        scope = Scope(principal.tenant, principal.id, hashlib.sha256(key.encode()).hexdigest())
        ours = Reservation(ReserveState.NEW, scope, resource_id, token=new_id("idem"))
        fresh: dict[str, Any] = {
            "fingerprint": fingerprint, "resource_id": resource_id, "token": ours.token, "response": None,
            "created_at": moment, "busy_until": moment + busy_for,
        }  # fmt: skip
        await _sweep(conn, moment)
        if await insert_if_absent(conn, table, scope._asdict() | fresh):
            return ours
        row = (await conn.execute(sa.select(table).where(_at(scope)).with_for_update())).one()
        if row.created_at <= moment - KEPT_FOR:
            await conn.execute(sa.update(table).where(_at(scope)).values(**fresh))
            return ours
        found = self._found(scope, row, fingerprint, moment, busy_for)
        if found.state is not ReserveState.NEW:
            return found
        taken = {"token": ours.token, "busy_until": moment + busy_for}
        await conn.execute(sa.update(table).where(_at(scope)).values(**taken))
        return replace(found, token=ours.token)

    async def complete(self, reservation: Reservation, response: StoredResponse) -> bool:
        """Keep the answer for repeats; False when another request has taken the key over meanwhile."""
        sealed = self._seals.seal(table, reservation.scope._asdict(), response=response.model_dump_json())
        async with self.db.begin() as conn:
            done = await conn.execute(sa.update(table).where(_still(reservation)).values(**sealed))
            return done.rowcount == 1

    async def release(self, reservation: Reservation) -> None:
        """Let the next request take the key over at once: this one failed, and its answer is not worth keeping. The
        resource id stays, for nobody knows how far it got."""
        async with self.db.begin() as conn:
            await conn.execute(
                sa.update(table).where(_still(reservation)).values(busy_until=times.from_text(_LONG_AGO))
            )  # fmt: skip

    def _found(
        self, scope: Scope, row: sa.Row[Any], fingerprint: str, moment: datetime, busy_for: timedelta
    ) -> Reservation:
        """What a key that is on record says to a request; `new` when its holder has been silent too long."""
        if row.fingerprint != fingerprint:
            return Reservation(ReserveState.CONFLICT, scope, row.resource_id)
        if row.response is not None:
            response = StoredResponse.model_validate_json(self._seals.open(table, row)["response"])
            return Reservation(ReserveState.REPLAY, scope, row.resource_id, response=response)
        # Longer than any request holds it: that was before the clock was set back.
        busy = moment < row.busy_until <= moment + busy_for + times.AHEAD
        return Reservation(ReserveState.IN_PROGRESS if busy else ReserveState.NEW, scope, row.resource_id)


_LONG_AGO = "1970-01-01T00:00:00.000000Z"


async def _sweep(conn: AsyncConnection, moment: datetime) -> None:
    """Forget old keys, a few at a time, so that no request pays for all."""
    old = (
        sa.select(table.c.tenant, table.c.principal, table.c.key)
        .where(table.c.created_at <= moment - 2 * KEPT_FOR)
        .limit(_SWEEP_LIMIT)
    )
    await conn.execute(
        sa.delete(table).where(sa.tuple_(table.c.tenant, table.c.principal, table.c.key).in_(old))
    )  # fmt: skip


def _at(scope: Scope) -> sa.ColumnElement[bool]:
    return sa.and_(*(table.c[name] == value for name, value in scope._asdict().items()))


def _still(reservation: Reservation) -> sa.ColumnElement[bool]:
    """The key is still ours and unanswered."""
    return sa.and_(_at(reservation.scope), table.c.token == reservation.token, table.c.response.is_(None))
