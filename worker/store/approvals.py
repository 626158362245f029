"""The list of questions for people. The workflow's state is the truth; a row here is a copy to list and search."""

from collections.abc import Collection
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from tools.contract import Wire
from worker.store import times
from worker.store.database import Database, insert_if_absent
from worker.store.paging import Page, Position, newest_first, page_of
from worker.store.sealing import Seals
from worker.store.tables import approval as table
from workflows.contracts import ApprovalAnswer, ApprovalProgress, ApprovalRequest, ApprovalState
from workflows.held import FrozenQuestion

OPEN_STATES = (ApprovalState.PENDING, ApprovalState.FROZEN)
"""Everything else is final."""
_OPEN = tuple(state.value for state in OPEN_STATES)


class ApprovalRow(Wire):
    """A question, where it stands, and what was answered."""

    request: ApprovalRequest
    state: ApprovalState
    answer: ApprovalAnswer | None = None
    closed_at: datetime | None = None
    progress: ApprovalProgress = ApprovalProgress()


class LikeCalls(Wire):
    """How calls with the very same arguments were decided before."""

    approved: int = 0
    denied: int = 0


class Approvals:
    """The rows of all questions. Methods with `conn` may take part in a transaction."""

    def __init__(self, db: Database) -> None:
        self.db = db
        self._seals = Seals(db.keyring)

    async def open(self, request: ApprovalRequest, *, conn: AsyncConnection | None = None) -> ApprovalRow:
        """Insert the question as pending; when its id is taken, the stored row comes back unchanged."""
        if conn is not None:
            return await self._open(conn, request)
        async with self.db.begin() as own:
            return await self._open(own, request)

    async def note(self, approval_id: str, progress: ApprovalProgress, *, conn: AsyncConnection) -> ApprovalRow | None:
        """Show what happened to an open question; what is older than the row shows, or comes after its end, changes
        nothing. The row as it is then stored; None when there is no such question."""
        row = self._found(await conn.execute(sa.select(table).where(table.c.id == approval_id)))
        if row is None or row.state not in OPEN_STATES or row.progress.seq >= progress.seq:
            return row
        values = self._seals.seal(table, _named(row.request), progress=progress.model_dump_json())
        await conn.execute(sa.update(table).where(table.c.id == approval_id).values(values))
        return row.model_copy(update={"progress": progress})

    async def like(self, row: ApprovalRow) -> LikeCalls:
        """How earlier questions about the same call were decided, in this tenant."""
        query = (
            sa.select(table.c.state, sa.func.count())
            .where(table.c.tenant == row.request.tenant, table.c.digest == row.request.digest)
            .where(table.c.id != row.request.id, table.c.state.in_(("approved", "denied")))
            .group_by(table.c.state)
        )
        async with self.db.read() as conn:
            return LikeCalls.model_validate({str(state): count for state, count in await conn.execute(query)})

    async def close(
        self, approval_id: str, state: ApprovalState, answer: ApprovalAnswer | None = None, *,
        progress: ApprovalProgress | None = None, conn: AsyncConnection | None = None,
    ) -> ApprovalRow | None:  # fmt: skip
        """Set a final state, unless the question has one already: the first stays. The row as it is then stored; None
        when there is no such question. Raises ValueError for a state that is not final."""
        if state in OPEN_STATES:
            raise ValueError(f"{state} does not close a question")
        if conn is not None:
            return await self._close(conn, approval_id, state, answer, progress)
        async with self.db.begin() as own:
            return await self._close(own, approval_id, state, answer, progress)

    async def get(self, tenant: str | None, approval_id: str) -> ApprovalRow | None:
        """The question, if that tenant has it. `tenant` None is for internal use: any tenant."""
        query = sa.select(table).where(table.c.id == approval_id)
        if tenant is not None:
            query = query.where(table.c.tenant == tenant)
        async with self.db.read() as conn:
            return self._found(await conn.execute(query))

    async def page(
        self, tenant: str | None, *, state: ApprovalState | None = None, automation: str | None = None,
        run_id: str | None = None, cursor: str | None = None, limit: int = 50,
    ) -> Page[ApprovalRow]:  # fmt: skip
        """Questions newest first. Raises BadCursor, and ValueError for a limit outside 1..200."""
        query = sa.select(table)
        for column, wanted in ((table.c.tenant, tenant), (table.c.automation, automation), (table.c.run_id, run_id)):
            if wanted is not None:
                query = query.where(column == wanted)
        if state is not None:
            query = query.where(table.c.state == state.value)
        query = newest_first(
            query, kind="approvals", at=table.c.requested_at, key=table.c.id, cursor=cursor, limit=limit
        )  # fmt: skip
        async with self.db.read() as conn:
            found = [approval_row(self._seals, row) for row in await conn.execute(query)]
        return page_of("approvals", found, limit, _position)

    async def set_clock(self, question: FrozenQuestion, *, conn: AsyncConnection) -> None:
        """Say that an open question is frozen or pending again, and until when. A closed one stays as it is."""
        at = sa.and_(table.c.id == question.approval_id, table.c.state.in_(_OPEN))
        row = self._found(await conn.execute(sa.select(table).where(at).with_for_update()))
        if row is None:
            return
        request = row.request.model_copy(update={"deadline": question.deadline})
        sealed = self._seals.seal(table, _named(request), request=request.model_dump_json())
        await conn.execute(
            sa.update(table).where(at).values(state=question.state.value, deadline=question.deadline, **sealed)
        )

    async def asking(self, run_ids: Collection[str], *, conn: AsyncConnection) -> set[str]:
        """Which of these runs have a question that waits for an answer."""
        query = sa.select(table.c.run_id).where(table.c.run_id.in_(run_ids), table.c.state.in_(_OPEN)).distinct()
        return set((await conn.execute(query)).scalars())

    async def still_open(self, run_id: str, *, conn: AsyncConnection) -> list[ApprovalRow]:
        """The run's questions that wait for an answer, oldest first."""
        query = (
            sa.select(table)
            .where(table.c.run_id == run_id, table.c.state.in_(_OPEN))
            .order_by(table.c.requested_at, table.c.id)
        )
        return [approval_row(self._seals, row) for row in await conn.execute(query)]

    async def _open(self, conn: AsyncConnection, request: ApprovalRequest) -> ApprovalRow:
        values = {
            "id": request.id,
            "run_id": request.run_id,
            "tenant": request.tenant,
            "automation": request.automation,
            "state": ApprovalState.PENDING.value,
            "effect": request.effect,
            "tool": None if request.call is None else request.call.tool,
            "requested_at": request.requested_at,
            "deadline": request.deadline,
            "digest": request.digest,
        }
        values |= self._seals.seal(table, values, request=request.model_dump_json())
        await insert_if_absent(conn, table, values)
        stored = (await conn.execute(sa.select(table).where(table.c.id == request.id))).one()
        return approval_row(self._seals, stored)

    async def _close(
        self, conn: AsyncConnection, approval_id: str, state: ApprovalState, answer: ApprovalAnswer | None,
        progress: ApprovalProgress | None,
    ) -> ApprovalRow | None:  # fmt: skip
        at = table.c.id == approval_id
        row = (await conn.execute(sa.select(table.c.id, table.c.tenant).where(at))).mappings().first()
        if row is None:
            return None
        told = {
            "answer": None if answer is None else answer.model_dump_json(),
            **({} if progress is None else {"progress": progress.model_dump_json()}),
        }
        await conn.execute(
            sa.update(table)
            .where(at, table.c.state.in_(_OPEN))
            .values(state=state.value, closed_at=times.now(), **self._seals.seal(table, row, **told))
        )
        return self._found(await conn.execute(sa.select(table).where(at)))

    def _found(self, result: sa.CursorResult[Any]) -> ApprovalRow | None:
        row = result.first()
        return None if row is None else approval_row(self._seals, row)


def _position(row: ApprovalRow) -> Position:
    return Position(times.to_text(row.request.requested_at), row.request.id)


def _named(request: ApprovalRequest) -> dict[str, str]:
    """What names the question's row."""
    return {"id": request.id, "tenant": request.tenant}


def approval_row(seals: Seals, stored: sa.Row[Any]) -> ApprovalRow:
    """The question a row of the table holds."""
    row = seals.open(table, stored)
    answer, progress = row["answer"], row["progress"]
    return ApprovalRow(
        request=ApprovalRequest.model_validate_json(row["request"]),
        state=ApprovalState(row["state"]),
        answer=None if answer is None else ApprovalAnswer.model_validate_json(answer),
        closed_at=row["closed_at"],
        progress=ApprovalProgress() if progress is None else ApprovalProgress.model_validate_json(progress),
    )
