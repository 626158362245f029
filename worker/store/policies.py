"""Policies in the store: every version whole, which one is in force, and what somebody proposed instead.

The last row of `policy_change` is the policy in force, for every process of the installation. It moves in one
transaction with its audit record, and only from the row the mover has seen.
"""

import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Literal

import psycopg
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from tools.contract import JsonObject, Wire, canonical_json
from worker.store import times
from worker.store.audit import AuditEvent, AuditLog
from worker.store.database import Database, insert_if_absent
from worker.store.ids import new_id
from worker.store.tables import policy_change, policy_proposal, policy_version

INSTALLATION = "-"
"""Tenant of the records about the policy, which is one for all tenants."""
CHANNEL = "gatehouse_policy"

Origin = Literal["files", "proposal"]


class PolicyMoved(Exception):  # noqa: N818  (says what is the case)
    """Another policy came into force meanwhile, or the proposal was closed: look again."""


class PolicyChange(Wire):
    """That a policy came into force."""

    seq: int
    """1, 2, 3, ... without gaps; the highest is in force."""
    version: str
    origin: Origin
    """`files`: read from the rules folders by a process. `proposal`: applied by a person."""
    proposal_id: str | None = None
    changed_by: str
    changed_at: datetime


class Proposal(Wire):
    """What somebody wants to be the policy."""

    id: str
    version: str
    base_seq: int
    """The change in force when it was made: applied only while that is still so."""
    state: Literal["open", "applied", "rejected"]
    proposed_by: str
    note: str
    diff: JsonObject
    created_at: datetime
    closed_by: str | None = None
    closed_at: datetime | None = None


class Policies:
    """The policies of one store. Every change is audited in the same transaction."""

    def __init__(self, db: Database, audit: AuditLog) -> None:
        self.db = db
        self._audit = audit

    async def current(self) -> PolicyChange | None:
        """What is in force; None before any process started. Raises StoreUnavailable."""
        async with self.db.read() as conn:
            return await _current(conn)

    async def history(self, limit: int = 50) -> list[PolicyChange]:
        """The latest changes, newest first."""
        query = sa.select(policy_change).order_by(policy_change.c.seq.desc()).limit(limit)
        async with self.db.read() as conn:
            return [_change(row) for row in (await conn.execute(query)).mappings()]

    async def body(self, version: str) -> bytes | None:
        """The whole policy of that version; None for a version that never was."""
        query = sa.select(policy_version.c.body).where(policy_version.c.version == version)
        async with self.db.read() as conn:
            return (await conn.execute(query)).scalar_one_or_none()

    async def adopt(self, version: str, body: bytes, *, after: int, diff: JsonObject) -> PolicyChange:
        """Bring the policy read from files into force. `after`: the change it replaces, 0 for none.

        Raises PolicyMoved when that is not the last one any more.
        """
        async with self.db.begin() as conn:
            await _keep(conn, version, body)
            return await self._move(conn, version, after=after, origin="files", by="system:files", diff=diff)

    async def propose(
        self, version: str, body: bytes, *, by: str, base_seq: int, note: str, diff: JsonObject
    ) -> Proposal:
        """Keep a proposal, open. Nothing is in force by it."""
        note = str(self.db.redact(note))
        proposal = Proposal(
            id=new_id("prop"), version=version, base_seq=base_seq, state="open", proposed_by=by, note=note, diff=diff,
            created_at=times.now(),
        )  # fmt: skip
        async with self.db.begin() as conn:
            await _keep(conn, version, body)
            row = {**proposal.model_dump(), "diff": canonical_json(diff).decode()}
            await conn.execute(sa.insert(policy_proposal), row)
            await self._audit.append(_event(proposal, "policy.proposed", by, {"note": note, "diff": diff}), conn=conn)
        return proposal

    async def apply(self, proposal: Proposal, *, by: str) -> PolicyChange:
        """Bring a proposal into force. Whether `by` may is the caller's to check.

        Raises PolicyMoved when it is not open any more, or was made against another policy than the one in force.
        """
        async with self.db.begin() as conn:
            await self._close(conn, proposal, "applied", by)
            return await self._move(
                conn, proposal.version, after=proposal.base_seq, origin="proposal", by=by, diff=proposal.diff,
                proposal=proposal,
            )  # fmt: skip

    async def reject(self, proposal: Proposal, *, by: str, reason: str) -> None:
        """Close a proposal without effect. Raises PolicyMoved when it is not open any more."""
        reason = str(self.db.redact(reason))
        async with self.db.begin() as conn:
            await self._close(conn, proposal, "rejected", by)
            await self._audit.append(_event(proposal, "policy.rejected", by, {"reason": reason}), conn=conn)

    async def proposal(self, proposal_id: str) -> Proposal | None:
        """One proposal."""
        query = sa.select(policy_proposal).where(policy_proposal.c.id == proposal_id)
        async with self.db.read() as conn:
            row = (await conn.execute(query)).mappings().first()
        return None if row is None else _proposal(row)

    async def proposals(self, state: str | None = None, limit: int = 50) -> list[Proposal]:
        """Proposals, newest first."""
        query = sa.select(policy_proposal).order_by(policy_proposal.c.created_at.desc(), policy_proposal.c.id.desc())
        if state is not None:
            query = query.where(policy_proposal.c.state == state)
        async with self.db.read() as conn:
            return [_proposal(row) for row in (await conn.execute(query.limit(limit))).mappings()]

    async def _move(
        self, conn: AsyncConnection, version: str, *, after: int, origin: Origin, by: str, diff: JsonObject,
        proposal: Proposal | None = None,
    ) -> PolicyChange:  # fmt: skip
        before = await _current(conn)
        if (before.seq if before else 0) != after:
            raise PolicyMoved("another policy came into force meanwhile")
        change = PolicyChange(
            seq=after + 1, version=version, origin=origin, proposal_id=proposal.id if proposal else None, changed_by=by,
            changed_at=times.now(),
        )  # fmt: skip
        if not await insert_if_absent(conn, policy_change, change.model_dump()):
            raise PolicyMoved("another policy came into force meanwhile")
        if conn.dialect.name == "postgresql":
            await conn.execute(
                sa.text("SELECT pg_notify(:channel, :seq)"), {"channel": CHANNEL, "seq": str(change.seq)}
            )
        body: JsonObject = {
            "seq": change.seq, "version": version, "before": before.version if before else None, "origin": origin,
            "diff": diff, "proposal_id": change.proposal_id,
            "proposed_by": proposal.proposed_by if proposal else None, "note": proposal.note if proposal else "",
        }  # fmt: skip
        await self._audit.append(
            AuditEvent(f"policy/{change.seq}", "policy.applied", INSTALLATION, None, by, body), conn=conn
        )
        return change

    async def _close(self, conn: AsyncConnection, proposal: Proposal, state: str, by: str) -> None:
        closing = (
            sa.update(policy_proposal)
            .where(policy_proposal.c.id == proposal.id, policy_proposal.c.state == "open")
            .values(state=state, closed_by=by, closed_at=times.now())
            .returning(policy_proposal.c.id)
        )
        if (await conn.execute(closing)).first() is None:
            raise PolicyMoved("the proposal is closed")


@asynccontextmanager
async def listening(db: Database) -> AsyncGenerator[psycopg.AsyncConnection | None]:
    """A connection that hears of changes on PostgreSQL (`notifies()`); None on SQLite, where one has to look."""
    if db.libpq_url is None:
        yield None
        return
    conn = await psycopg.AsyncConnection.connect(db.libpq_url, autocommit=True, connect_timeout=5)
    async with conn:
        await conn.execute(f"LISTEN {CHANNEL}")
        yield conn


async def _current(conn: AsyncConnection) -> PolicyChange | None:
    latest = sa.select(policy_change).order_by(policy_change.c.seq.desc()).limit(1)
    row = (await conn.execute(latest)).mappings().first()
    return None if row is None else _change(row)


async def _keep(conn: AsyncConnection, version: str, body: bytes) -> None:
    await insert_if_absent(conn, policy_version, {"version": version, "body": body, "created_at": times.now()})


def _change(row: sa.RowMapping) -> PolicyChange:
    return PolicyChange.model_validate(dict(row))


def _proposal(row: sa.RowMapping) -> Proposal:
    return Proposal.model_validate({**row, "diff": json.loads(row["diff"])})


def _event(proposal: Proposal, type_: str, by: str, more: JsonObject) -> AuditEvent:
    body: JsonObject = {"proposal_id": proposal.id, "version": proposal.version, "base_seq": proposal.base_seq, **more}
    return AuditEvent(f"{proposal.id}/{type_.partition('.')[2]}", type_, INSTALLATION, None, by, body)
