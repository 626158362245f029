"""The queue as a reviewer works through it: what waits, filtered, the most urgent first, page by page.

Reads the rows of `worker.store.approvals`; every query is answered from an index, however long the queue is.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from tools.contract import Wire
from worker.store import times
from worker.store.approvals import ApprovalRow, approval_row
from worker.store.database import Database
from worker.store.paging import MAX_LIMIT, Page, Position, decode_cursor, page_of
from worker.store.sealing import Seals
from worker.store.tables import approval as table

KIND = "queue"


class Wanted(Wire):
    """Which questions: every field that is not None must fit."""

    tenant: str
    automation: str | None = None
    effect: str | None = None
    tool: str | None = None
    digest: str | None = None
    """Of the call as it is asked about: the very same tool with the very same arguments."""
    asked_before: datetime | None = None


class Queue:
    """Open questions, by deadline."""

    def __init__(self, db: Database) -> None:
        self.db = db
        self._seals = Seals(db.keyring)

    async def page(self, wanted: Wanted, *, cursor: str | None = None, limit: int = 50) -> Page[ApprovalRow]:
        """The most urgent first. Raises BadCursor, and ValueError for a limit outside 1..200."""
        if not 1 <= limit <= MAX_LIMIT:
            raise ValueError(f"limit must be 1..{MAX_LIMIT}")
        query = sa.select(table).where(*_conditions(wanted))
        if cursor is not None:
            query = query.where(_after(decode_cursor(KIND, cursor)))
        query = query.order_by(table.c.deadline, table.c.id).limit(limit + 1)
        async with self.db.read() as conn:
            found = [approval_row(self._seals, row) for row in await conn.execute(query)]
        return page_of(KIND, found, limit, _position)

    async def counts(self, tenant: str) -> dict[str, int]:
        """How many wait, by effect; what is about no call counts under the empty text."""
        query = (
            sa.select(table.c.effect, sa.func.count())
            .where(table.c.tenant == tenant, table.c.closed_at.is_(None))
            .group_by(table.c.effect)
        )
        async with self.db.read() as conn:
            return {effect or "": number for effect, number in await conn.execute(query)}

    async def neighbours(self, wanted: Wanted, row: ApprovalRow) -> tuple[str | None, str | None]:
        """Ids of the open questions before and after this one."""
        here, open_ones = _position(row), _conditions(wanted)
        before = (
            sa.select(table.c.id).where(*open_ones, _before(here))
            .order_by(table.c.deadline.desc(), table.c.id.desc()).limit(1)
        )  # fmt: skip
        after = (
            sa.select(table.c.id).where(*open_ones, _after(here)).order_by(table.c.deadline, table.c.id).limit(1)
        )  # fmt: skip
        async with self.db.read() as conn:
            return (await conn.execute(before)).scalar(), (await conn.execute(after)).scalar()

    async def same(self, row: ApprovalRow, limit: int = 100) -> int:
        """How many other open questions are about the very same call, counted up to the limit."""
        wanted = Wanted(tenant=row.request.tenant, digest=row.request.digest)
        some = sa.select(table.c.id).where(*_conditions(wanted), table.c.id != row.request.id).limit(limit).subquery()
        async with self.db.read() as conn:
            return (await conn.execute(sa.select(sa.func.count()).select_from(some))).scalar_one()

    async def like(self, tenant: str, automation: str, tool: str, limit: int = 8) -> Sequence[ApprovalRow]:
        """The last questions about calls of that tool by that automation that were closed, newest first."""
        query = (
            sa.select(table)
            .where(table.c.tenant == tenant, table.c.tool == tool, table.c.automation == automation,
                   table.c.closed_at.is_not(None))
            .order_by(table.c.requested_at.desc()).limit(limit)
        )  # fmt: skip
        async with self.db.read() as conn:
            return [approval_row(self._seals, row) for row in await conn.execute(query)]


def _conditions(wanted: Wanted) -> list[sa.ColumnElement[bool]]:
    found: list[sa.ColumnElement[bool]] = [table.c.tenant == wanted.tenant, table.c.closed_at.is_(None)]
    columns: tuple[tuple[sa.Column[Any], str | None], ...] = (
        (table.c.automation, wanted.automation), (table.c.effect, wanted.effect), (table.c.tool, wanted.tool),
        (table.c.digest, wanted.digest),
    )  # fmt: skip
    found += [column == value for column, value in columns if value is not None]
    if wanted.asked_before is not None:
        found.append(table.c.requested_at <= wanted.asked_before)
    return found


def _after(here: Position) -> sa.ColumnElement[bool]:
    stamp = sa.type_coerce(table.c.deadline, sa.Text())
    return sa.or_(stamp > here.at, sa.and_(stamp == here.at, table.c.id > here.id))


def _before(here: Position) -> sa.ColumnElement[bool]:
    stamp = sa.type_coerce(table.c.deadline, sa.Text())
    return sa.or_(stamp < here.at, sa.and_(stamp == here.at, table.c.id < here.id))


def _position(row: ApprovalRow) -> Position:
    return Position(times.to_text(row.request.deadline), row.request.id)
