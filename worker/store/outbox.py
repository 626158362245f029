"""What people and programs have to be told, written in the transaction of the fact itself, and how the telling went.

A notice without a fact, or a fact without its notice, cannot exist. Who delivers may die at any moment: a delivery is
made at least once, always under the same id, by which the receiver knows a repeat.
"""

import hashlib
import json
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Final, Literal

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from tools.contract import JsonObject, Wire, canonical_json
from worker.store import times
from worker.store.database import Database, insert_if_absent
from worker.store.paging import Page, Position, newest_first, page_of
from worker.store.tables import delivery, outbox
from workflows.contracts import Phase, RunRef

LONGEST: Final = timedelta(minutes=20)
"""No delivery waits longer than that for its next attempt."""

NOTICE_TYPES: dict[str, str] = {
    "approval.requested": "A question waits for humans.",
    "approval.reminder": "A question still waits, and its deadline comes nearer.",
    "approval.escalated": "A question goes to further people.",
    "approval.asked_back": "An approver asks the run's requester something.",
    "approval.replied": "The run's requester replied to who asked.",
    "approval.delegated": "A question was handed on to somebody.",
    "approval.closed": "A question was answered, expired or was withdrawn.",
    "run.closed": "A run ended.",
    "switch.set": "A kill switch or safe mode was put in force.",
    "switch.eased": "A kill switch was released to safe mode.",
    "switch.released": "A switch has no effect any more.",
}
"""Type -> meaning. A type that is not here is refused."""

_NAMES: Final = frozenset(
    {"approval_id", "question", "automation", "requester", "tool", "effect", "approvers", "rule", "deadline", "digest",
     "escalated_to", "state", "by", "to", "phase", "switch_id", "scope", "running"}
)  # fmt: skip
"""Names, ids and states, who among them: what a notice is about. Everything else is redacted before it is written."""

DeliveryState = Literal["pending", "delivered", "dead", "dismissed"]
"""`dismissed`: it was dead, and somebody said that it need not arrive any more."""

PRUNE: Final = 500
"""Notices forgotten in one transaction."""


class Notice(Wire):
    """Something to be told. `body` holds names and states, never arguments of a call."""

    id: str
    """Of the fact, not of the telling: `<subject>/<fact>`. Receivers see it and know repeats by it."""
    type: str
    tenant: str
    run_id: str | None = None
    body: JsonObject
    created_at: datetime


class Delivery(Wire):
    """One notice on its way to one channel."""

    id: str
    notice_id: str
    type: str
    tenant: str
    channel: str
    state: DeliveryState
    attempts: int = 0
    next_at: datetime
    problem: str | None = None
    """Why the last attempt failed."""
    receipt: str | None = None
    """What the receiver said to the one that did not."""
    created_at: datetime
    ended_at: datetime | None = None


class Backlog(Wire):
    """What was not told yet."""

    pending: int
    dead: int
    oldest_pending_at: datetime | None
    """When the oldest thing that nobody has been told came about."""


class Outbox:
    """Notices and deliveries of one store."""

    def __init__(self, db: Database) -> None:
        self.db = db

    async def add(self, conn: AsyncConnection, *notices: Notice) -> None:
        """Write notices in the transaction of what they tell; one that is there already stays as it is.

        Raises ValueError for a type that is not in NOTICE_TYPES.
        """
        for notice in notices:
            if notice.type not in NOTICE_TYPES:
                raise ValueError(f"unknown notice type {notice.type!r}")
            body = {name: said if name in _NAMES else self.db.redact(said) for name, said in notice.body.items()}
            values = {**notice.model_dump(), "body": canonical_json(body).decode()}
            await insert_if_absent(conn, outbox, values)

    async def undirected(self, limit: int = 100) -> list[Notice]:
        """Notices that were not yet given to any channel, oldest first."""
        query = sa.select(outbox).where(outbox.c.directed_at.is_(None)).order_by(outbox.c.created_at, outbox.c.id)
        async with self.db.read() as conn:
            return [_notice(row) for row in (await conn.execute(query.limit(limit))).mappings()]

    async def direct(self, notice: Notice, channels: Sequence[str]) -> None:
        """Give a notice to its channels: from here on each is delivered by itself."""
        now = times.now()
        async with self.db.begin() as conn:
            for channel in channels:
                made = Delivery(
                    id=delivery_id(notice.id, channel), notice_id=notice.id, type=notice.type, tenant=notice.tenant,
                    channel=channel, state="pending", next_at=now, created_at=notice.created_at,
                )  # fmt: skip
                await insert_if_absent(conn, delivery, made.model_dump())
            await conn.execute(sa.update(outbox).where(outbox.c.id == notice.id).values(directed_at=now))

    async def due(self, limit: int = 50) -> list[tuple[Delivery, Notice]]:
        """Deliveries to be attempted now, oldest first; also those that wait longer than any does, for a clock that was
        set back."""
        now, next_at = times.now(), sa.type_coerce(delivery.c.next_at, sa.Text())
        far = now + LONGEST + times.AHEAD
        query = (
            sa.select(delivery, outbox.c.body.label("body"), outbox.c.run_id.label("run_id"))
            .join(outbox, outbox.c.id == delivery.c.notice_id)
            .where(delivery.c.state == "pending", sa.or_(next_at <= times.to_text(now), next_at > times.to_text(far)))
            .order_by(delivery.c.next_at, delivery.c.id)
            .limit(limit)
        )
        async with self.db.read() as conn:
            rows = (await conn.execute(query)).mappings().all()
        return [
            (
                Delivery.model_validate(dict(row)),
                Notice(
                    id=row["notice_id"], type=row["type"], tenant=row["tenant"], run_id=row["run_id"],
                    body=json.loads(row["body"]), created_at=row["created_at"],
                ),
            )
            for row in rows
        ]  # fmt: skip

    async def delivered(self, made: Delivery, receipt: str) -> None:
        """The receiver took it."""
        taken = {"state": "delivered", "receipt": self._clean(receipt), "problem": None, "ended_at": times.now()}
        await self._change(made, attempts=made.attempts + 1, **taken)

    async def failed(self, made: Delivery, problem: str, *, again_in: timedelta | None) -> None:
        """It did not get there; None: it is not tried again."""
        now = times.now()
        end: dict[str, Any] = (
            {"state": "dead", "ended_at": now} if again_in is None else {"next_at": now + min(again_in, LONGEST)}
        )
        await self._change(made, attempts=made.attempts + 1, problem=self._clean(problem), **end)

    async def retry(self, tenant: str | None, delivery_id: str) -> Delivery | None:
        """Try a dead one again from the start; None when there is none of that id."""
        query = sa.select(delivery).where(delivery.c.id == delivery_id, *_of(tenant))
        async with self.db.begin() as conn:
            row = (await conn.execute(query.with_for_update())).mappings().first()
            if row is None:
                return None
            found = Delivery.model_validate(dict(row))
            if found.state != "dead":
                return found
            after = found.model_copy(
                update={"state": "pending", "attempts": 0, "next_at": times.now(), "ended_at": None}
            )
            await conn.execute(sa.update(delivery).where(delivery.c.id == found.id).values(after.model_dump()))
        return after

    async def dismiss(self, tenant: str | None, delivery_id: str) -> Delivery | None:
        """Give a dead one up for good, so that nothing shows it as undelivered; None when there is none of that id."""
        query = sa.select(delivery).where(delivery.c.id == delivery_id, *_of(tenant))
        async with self.db.begin() as conn:
            gone = sa.update(delivery).where(delivery.c.id == delivery_id, delivery.c.state == "dead", *_of(tenant))
            await conn.execute(gone.values(state="dismissed", ended_at=times.now()))
            row = (await conn.execute(query)).mappings().first()
        return None if row is None else Delivery.model_validate(dict(row))

    async def prune(self, before: datetime) -> int:
        """Forget some notices of before that moment of which nothing is under way or dead; how many went."""
        old = times.to_text(before)
        kept = sa.or_(delivery.c.state.in_(("pending", "dead")), sa.type_coerce(delivery.c.ended_at, sa.Text()) > old)
        over = (
            sa.select(outbox.c.id)
            .where(
                sa.type_coerce(outbox.c.directed_at, sa.Text()) <= old,
                ~sa.exists().where(delivery.c.notice_id == outbox.c.id, kept),
            )
            .order_by(outbox.c.directed_at).limit(PRUNE)
        )  # fmt: skip
        async with self.db.begin() as conn:
            gone = list((await conn.execute(over)).scalars())
            await conn.execute(sa.delete(delivery).where(delivery.c.notice_id.in_(gone)))
            await conn.execute(sa.delete(outbox).where(outbox.c.id.in_(gone)))
        return len(gone)

    async def page(
        self, tenant: str | None, *, state: DeliveryState | None = None, channel: str | None = None,
        cursor: str | None = None, limit: int = 50,
    ) -> Page[Delivery]:  # fmt: skip
        """Deliveries newest first. Raises BadCursor."""
        query = sa.select(delivery).where(*_of(tenant))
        for column, wanted in ((delivery.c.state, state), (delivery.c.channel, channel)):
            if wanted is not None:
                query = query.where(column == wanted)
        query = newest_first(
            query, kind="deliveries", at=delivery.c.created_at, key=delivery.c.id, cursor=cursor, limit=limit
        )
        async with self.db.read() as conn:
            found = [Delivery.model_validate(dict(row)) for row in (await conn.execute(query)).mappings()]
        return page_of("deliveries", found, limit, lambda d: Position(times.to_text(d.created_at), d.id))

    async def notices(self, ids: Sequence[str]) -> dict[str, Notice]:
        """The notices of these ids that are still there."""
        query = sa.select(outbox).where(outbox.c.id.in_(ids))
        async with self.db.read() as conn:
            return {row["id"]: _notice(row) for row in (await conn.execute(query)).mappings()}

    async def dead(self, tenant: str) -> int:
        """How many of the tenant's deliveries were given up and wait for somebody to look."""
        query = sa.select(sa.func.count()).where(delivery.c.state == "dead", delivery.c.tenant == tenant)
        async with self.db.read() as conn:
            return (await conn.execute(query)).scalar_one()

    async def backlog(self, tenant: str | None = None) -> Backlog:
        """What was not told yet: notices no channel was given, and deliveries under way."""
        counts = sa.select(delivery.c.state, sa.func.count(), sa.func.min(delivery.c.created_at)).where(*_of(tenant))
        waiting = sa.select(sa.func.count(), sa.func.min(outbox.c.created_at)).where(outbox.c.directed_at.is_(None))
        if tenant is not None:
            waiting = waiting.where(outbox.c.tenant == tenant)
        async with self.db.read() as conn:
            states = {state: (n, oldest) for state, n, oldest in await conn.execute(counts.group_by(delivery.c.state))}
            undirected, first = (await conn.execute(waiting)).one()
        pending, oldest = states.get("pending", (0, None))
        found = [moment for moment in (first, oldest) if moment is not None]
        return Backlog(
            pending=pending + undirected, dead=states.get("dead", (0, None))[0],
            oldest_pending_at=min(found) if found else None,
        )  # fmt: skip

    def _clean(self, said: str) -> str:
        """What a receiver answered may hold anything."""
        return str(self.db.redact(said))[:500]

    async def _change(self, made: Delivery, **values: Any) -> None:
        async with self.db.begin() as conn:
            at = sa.and_(delivery.c.id == made.id, delivery.c.state == "pending")
            await conn.execute(sa.update(delivery).where(at).values(**values))


def delivery_id(notice_id: str, channel: str) -> str:
    """Id of the one delivery of a notice to a channel."""
    return f"dl_{hashlib.sha256(f'{notice_id}@{channel}'.encode()).hexdigest()[:26]}"


def run_closed(run: RunRef, phase: Phase, failure: str | None) -> Notice:
    """`run.closed`."""
    body: JsonObject = {"automation": run.automation, "phase": phase.value, "failure": (failure or "")[:500]}
    return Notice(
        id=f"{run.run_id}/closed", type="run.closed", tenant=run.tenant, run_id=run.run_id, body=body,
        created_at=times.now(),
    )  # fmt: skip


def _of(tenant: str | None) -> list[sa.ColumnElement[bool]]:
    return [] if tenant is None else [delivery.c.tenant == tenant]


def _notice(row: sa.RowMapping) -> Notice:
    return Notice.model_validate({**row, "body": json.loads(row["body"])})
