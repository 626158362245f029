"""Removes contents of old runs and bodies of old audit records, per tenant and age; keeps what a legal hold names.

A batch is one transaction: the signed `retention.pruned` record first, then the bodies it covers. A kill leaves a
batch done or not begun, and the lock on the log's head puts passes, holds and appends in a line. Only what a checkpoint
vouches for goes, and only after it was compared with it: retention cannot cover up an edit.
"""

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from worker.store import chain, emptying, times
from worker.store.anchor import Vouched
from worker.store.audit import AuditEvent, AuditLog
from worker.store.checking import BadRecord
from worker.store.contents import Contents
from worker.store.holds import Hold, holds_of
from worker.store.ids import new_id
from worker.store.lines import line, parse
from worker.store.note import Signer
from worker.store.tables import audit_event

BATCH = 500
ACTOR = "system:retention"
KEPT = frozenset({"run.closed"})
"""Of a run, this stays: what verification counts by."""
OUTSIDE_RUNS = frozenset({"access.denied", "session.opened", "session.closed", "history.decoded"})
"""Of what belongs to no run, only these go: the rest says who may do what, and is needed to judge all else."""


@dataclass(frozen=True)
class Policy:
    """After how many days bodies go. None: never."""

    days: int | None = None
    tenants: Mapping[str, int] | None = None

    def of(self, tenant: str) -> int | None:
        """The tenant's days."""
        return (self.tenants or {}).get(tenant, self.days)

    def before(self, tenant: str, now: datetime) -> datetime | None:
        """What is older than that goes."""
        days = self.of(tenant)
        return None if days is None else now - timedelta(days=days)


@dataclass(frozen=True)
class Pass:
    """What a pass did, or would do."""

    tenant: str
    before: datetime
    records: int
    bytes: int
    held: int
    """Records old enough, and kept by a legal hold."""
    runs: int
    """Whose contents go."""
    files: int
    """Uploads."""


class Retention:
    """The retention of one store's log."""

    def __init__(self, audit: AuditLog, policy: Policy) -> None:
        self._audit = audit
        self._db = audit.db
        self._policy = policy
        self._contents = Contents(audit)

    async def status(self, vouched: Vouched, tenant: str | None = None) -> list[Pass]:
        """What a pass would remove now, tenant by tenant, or of one. Of one without a policy: nothing."""
        return [found async for found in self._passes(vouched, None, tenant)]

    async def run(self, vouched: Vouched, signer: Signer) -> list[Pass]:
        """Remove what is due. `vouched`: the anchor as it stands; what is not under a checkpoint yet waits.

        Raises BadRecord when a record is not the one that was signed for: it and its batch stay as they are. Raises
        StoreUnavailable.
        """
        return [done async for done in self._passes(vouched, signer)]

    async def _passes(self, vouched: Vouched, signer: Signer | None, only: str | None = None) -> AsyncGenerator[Pass]:
        async with self._db.read() as conn:
            every = sa.select(audit_event.c.tenant).distinct()
            tenants = [only] if only is not None else list((await conn.execute(every)).scalars())
        now = times.now()
        for tenant in sorted(tenants):
            before = self._policy.before(tenant, now)
            if before is not None:
                yield await self._pass(tenant, before, vouched, signer)

    async def _pass(self, tenant: str, before: datetime, vouched: Vouched, signer: Signer | None) -> Pass:
        of_tenant = self._contents.due if signer is None else self._contents.remove
        runs, files = await of_tenant(tenant, before)
        after = records = size = held = 0
        while True:
            async with self._db.read() as conn:
                query = _due(tenant, before).where(audit_event.c.seq > after, audit_event.c.seq <= _leaves(vouched))
                seqs = list((await conn.execute(query.order_by(audit_event.c.seq).limit(BATCH))).scalars())
            if not seqs:
                return Pass(tenant, before, records, size, held, runs, files)
            after = seqs[-1]
            if signer is None:
                async with self._db.read() as conn:
                    rows, kept = await self._still_due(conn, tenant, before, seqs)
            else:
                async with self._db.begin() as conn:
                    await self._audit.lock(conn)
                    rows, kept = await self._still_due(conn, tenant, before, seqs)
                    if rows:
                        await self._empty(conn, tenant, before, rows, vouched, signer)
            records, size, held = records + len(rows), size + sum(len(row["body"]) for row in rows), held + kept

    async def _still_due(
        self, conn: AsyncConnection, tenant: str, before: datetime, seqs: Sequence[int]
    ) -> tuple[list[Mapping[Any, Any]], int]:
        """Those of the records that may go, as they are now, and how many a hold keeps."""
        query = _due(tenant, before).with_only_columns(audit_event).where(audit_event.c.seq.in_(seqs))
        found = list((await conn.execute(query.order_by(audit_event.c.seq))).mappings())
        holds = await holds_of(conn, tenant)
        rows: list[Mapping[Any, Any]] = [row for row in found if not _held(row, holds)]
        return rows, len(found) - len(rows)

    async def _empty(
        self, conn: AsyncConnection, tenant: str, before: datetime, rows: Sequence[Mapping[Any, Any]],
        vouched: Vouched, signer: Signer,
    ) -> None:  # fmt: skip
        left: dict[int, bytes] = {}
        for row in rows:
            seq = row["seq"]
            leaf = chain.sha256(b"\x00" + parse(line(row)[:-1]).envelope).digest()
            if not leaf == row["leaf_hash"] == vouched.leaves[(seq - 1) * 32 : seq * 32]:
                raise BadRecord(seq, "it is not the record that was signed for: its body is not removed")
            left[seq] = emptying.remains(parse(line({**row, "body": emptying.EMPTY})[:-1]).envelope)
        body = emptying.covering({"tenant": tenant, "before": times.to_text(before)}, left, signer)
        await self._audit.append(AuditEvent(new_id("pruned"), "retention.pruned", tenant, None, ACTOR, body), conn=conn)
        await conn.execute(sa.update(audit_event).where(audit_event.c.seq.in_(list(left))).values(body=emptying.EMPTY))


def _leaves(vouched: Vouched) -> int:
    return len(vouched.leaves) // 32


def _due(tenant: str, before: datetime) -> sa.Select[int]:
    """Numbers of the tenant's records with a body that are old enough: of a run, when that closed long enough ago."""
    closed = audit_event.alias("closed")
    limit = times.to_text(before)
    of_closed_run = sa.exists().where(closed.c.event_id == audit_event.c.run_id + "/closed", closed.c.ts < limit)
    return sa.select(audit_event.c.seq).where(
        audit_event.c.tenant == tenant,
        audit_event.c.ts < limit,
        audit_event.c.body != emptying.EMPTY,
        sa.or_(
            sa.and_(audit_event.c.run_id.is_not(None), audit_event.c.type.not_in(KEPT), of_closed_run),
            sa.and_(audit_event.c.run_id.is_(None), audit_event.c.type.in_(OUTSIDE_RUNS)),
        ),
    )


def _held(row: Mapping[Any, Any], holds: Sequence[Hold]) -> bool:
    return any(hold.holds(row["run_id"], row["ts"]) for hold in holds)
