"""The effect ledger: who may run a call, and what came of it. One row per call, by its idempotency key.

    (no row) --claim--> claimed --settle--> settled
    (no row) ----------settle-------------> settled      (refused before anybody tried)
    claimed --claim with a higher generation--> claimed  (a human ordered one more try)
    claimed --claim instead of its holder-----> claimed  (who is fenced, and did nothing or may be repeated)

A settled key is settled for good: a claim then hands out the result, and a late result of another attempt is dropped in
favour of the stored one.
"""

from datetime import datetime
from enum import StrEnum
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from tools.contract import ToolResult, Wire, canonical_json
from worker.store import times
from worker.store.audit import AuditEvent, AuditLog
from worker.store.database import Database, insert_if_absent
from worker.store.sealing import Seals
from worker.store.tables import ledger as table

_BODY_TOOL = "tool"


class ClaimState(StrEnum):
    """What a claim found."""

    NEW = "new"
    """The key is yours: run the call."""
    HELD = "held"
    """An earlier attempt of this generation claimed it and never settled: it may or may not have taken effect."""
    SETTLED = "settled"
    """It is over; the result is there."""


class LedgerConflict(Exception):  # noqa: N818  (says what is the case)
    """The log holds another outcome for the call than the ledger: one call went under two keys. Never retried."""


class ClaimLost(Exception):  # noqa: N818
    """Somebody else took the key over: what this attempt brought is not recorded."""


class Claim(Wire):
    """Answer to a claim. For `held`, who holds it: `owner`, `attempt`, `claimed_at` are the holder's."""

    state: ClaimState
    result: ToolResult | None = None
    generation: int
    attempt: int
    owner: str
    claimed_at: datetime


class Ledger:
    """The ledger of one store."""

    def __init__(self, db: Database, audit: AuditLog | None = None) -> None:
        self.db = db
        self._audit = AuditLog(db) if audit is None else audit
        self._seals = Seals(db.keyring)

    async def claim(
        self, key: str, *, generation: int, tool: str, attempt: int, owner: str, instead_of: str | None = None
    ) -> Claim:
        """Take the key, or learn that it is taken. Of any number of claims in one generation exactly one gets `new`.

        A claim is never repeatable: one whose commit was in doubt (StoreUnavailable) is `held` when asked again, for
        the first may have got through. `instead_of` names the owner on record who is surely gone: of all who name it,
        one gets `new`. A generation lower than the one on record is `held` too. Raises StoreUnavailable.
        """
        mine: dict[str, Any] = {"generation": generation, "attempt": attempt, "owner": owner, "claimed_at": times.now()}
        async with self.db.begin() as conn:
            if await insert_if_absent(conn, table, {"key": key, "tool": tool, **mine}):
                return Claim(state=ClaimState.NEW, **mine)
            row = await _locked(conn, key)
            if row.result is not None:
                return self._claim(ClaimState.SETTLED, row)
            if generation > row.generation or (generation == row.generation and row.owner == instead_of):
                await conn.execute(sa.update(table).where(table.c.key == key).values(**mine))
                return Claim(state=ClaimState.NEW, **mine)
            return self._claim(ClaimState.HELD, row)

    async def settle(
        self, key: str, result: ToolResult, event: AuditEvent, *, owner: str | None = None
    ) -> ToolResult:  # fmt: skip
        """Store the result and record `event` (the call's `call.outcome`) in one transaction.

        A key settled before keeps its result and records nothing: the stored result comes back. A key nobody claimed
        is settled directly, after which nobody can claim it. With `owner`, only the holder settles. Raises
        StoreUnavailable, RunAlreadyClosed, LedgerConflict, ClaimLost.
        """
        async with self.db.begin() as conn:
            return await self.settle_in(conn, key, result, event, owner=owner)

    async def settle_in(
        self, conn: AsyncConnection, key: str, result: ToolResult, event: AuditEvent, *, record: bool = True,
        owner: str | None = None,
    ) -> ToolResult:  # fmt: skip
        """`settle` as part of a transaction; the audit head stays locked until it ends. `record` False settles the key
        without a record: for a call whose intent was never recorded."""
        moment = times.now()
        sealed = self._seals.seal(table, {"key": key}, event.tenant, result=result.model_dump_json())
        settled = {**sealed, "settled_at": moment}
        unclaimed = {
            "key": key, "tool": str(event.body.get(_BODY_TOOL, "")), "generation": 0, "attempt": 0,
            "owner": event.actor, "claimed_at": moment,
        }  # fmt: skip
        if not await insert_if_absent(conn, table, unclaimed | settled):
            row = await _locked(conn, key)
            if row.result is not None:
                return self._result(row)
            if owner is not None and row.owner != owner:
                raise ClaimLost(f"{row.owner} holds {key} now")
            await conn.execute(sa.update(table).where(table.c.key == key).values(**settled))
        if not record:
            return result
        [stored] = await self._audit.append(event, conn=conn)
        if canonical_json(stored.body) != canonical_json(event.body):
            raise LedgerConflict(f"{event.event_id} is recorded already, but not as the outcome of {key}")
        return result

    async def get(self, key: str, *, conn: AsyncConnection | None = None) -> Claim | None:
        """What is on record under the key: `settled` with its result, or `held`; None when nobody claimed it."""
        query = sa.select(table).where(table.c.key == key)
        if conn is not None:
            row = (await conn.execute(query)).first()
        else:
            async with self.db.read() as own:
                row = (await own.execute(query)).first()
        if row is None:
            return None
        return self._claim(ClaimState.HELD if row.result is None else ClaimState.SETTLED, row)

    def _claim(self, state: ClaimState, row: sa.Row[Any]) -> Claim:
        return Claim(
            state=state,
            result=None if row.result is None else self._result(row),
            generation=row.generation,
            attempt=row.attempt,
            owner=row.owner,
            claimed_at=row.claimed_at,
        )

    def _result(self, row: sa.Row[Any]) -> ToolResult:
        return ToolResult.model_validate_json(self._seals.open(table, row)["result"])


async def _locked(conn: AsyncConnection, key: str) -> sa.Row[Any]:
    """The row, which no other transaction can change until this one ends."""
    return (await conn.execute(sa.select(table).where(table.c.key == key).with_for_update())).one()
