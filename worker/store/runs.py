"""The list of runs for people and the API. The workflow is the truth of a run; this row is what it last said."""

from collections.abc import Collection
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from pydantic import TypeAdapter
from sqlalchemy.ext.asyncio import AsyncConnection

from policies.decision import Principal
from tools.contract import JsonObject, Wire, canonical_json
from worker.store import times
from worker.store.database import Database, insert_if_absent
from worker.store.paging import Page, Position, newest_first, page_of
from worker.store.sealing import Seals
from worker.store.tables import run as table
from workflows.contracts import FileRef, Phase, Rung, RunResult

_FINAL = tuple(phase.value for phase in Phase if phase.final)
_AT_ONCE = 500
"""Ids in one question to the store: databases limit the parameters of a statement."""
_FILES = TypeAdapter(tuple[FileRef, ...])
_INPUTS: TypeAdapter[JsonObject] = TypeAdapter(JsonObject)


class Run(Wire):
    """One run as the API shows it."""

    id: str
    tenant: str
    automation: str
    automation_version: str
    digest: str
    """Of the automation and its tools, as resolved when the run was asked for."""
    requester: str
    """Principal id."""
    principal: Principal
    """The requester as authenticated, roles included: what `run.open` compares the workflow's principal with."""
    phase: Phase = Phase.QUEUED
    rung: Rung = Rung.MODEL
    inputs: JsonObject
    files: tuple[FileRef, ...] = ()
    result: RunResult | None = None
    created_at: datetime
    updated_at: datetime
    contents_removed_at: datetime | None = None
    """When retention removed inputs, files and result."""


class Runs:
    """The rows of all runs. Methods with `conn` may take part in a transaction."""

    def __init__(self, db: Database) -> None:
        self.db = db
        self._seals = Seals(db.keyring)

    async def insert(self, run: Run, *, conn: AsyncConnection | None = None) -> Run:
        """Insert the row; when the id is taken, the stored row comes back unchanged. Raises StoreUnavailable."""
        if conn is not None:
            return await self._insert(conn, run)
        async with self.db.begin() as own:
            return await self._insert(own, run)

    async def get(self, tenant: str | None, run_id: str, *, conn: AsyncConnection | None = None) -> Run | None:
        """The run, if that tenant has it. `tenant` None is for internal use: any tenant."""
        query = sa.select(table).where(table.c.id == run_id)
        if tenant is not None:
            query = query.where(table.c.tenant == tenant)
        if conn is not None:
            row = (await conn.execute(query)).first()
        else:
            async with self.db.read() as own:
                row = (await own.execute(query)).first()
        return None if row is None else self._run(row)

    async def closed(self, run_ids: Collection[str]) -> set[str]:
        """Which of these runs have ended. An unknown one has not. Raises StoreUnavailable."""
        wanted, found = sorted(set(run_ids)), set[str]()
        async with self.db.read() as conn:
            for start in range(0, len(wanted), _AT_ONCE):
                these = table.c.id.in_(wanted[start : start + _AT_ONCE])
                query = sa.select(table.c.id).where(these, table.c.phase.in_(_FINAL))
                found.update((await conn.execute(query)).scalars())
        return found

    async def page(
        self, tenant: str | None, *, phase: Phase | None = None, automation: str | None = None,
        cursor: str | None = None, limit: int = 50,
    ) -> Page[Run]:  # fmt: skip
        """Runs newest first. Raises BadCursor, and ValueError for a limit outside 1..200."""
        query = sa.select(table)
        if tenant is not None:
            query = query.where(table.c.tenant == tenant)
        if phase is not None:
            query = query.where(table.c.phase == phase.value)
        if automation is not None:
            query = query.where(table.c.automation == automation)
        query = newest_first(query, kind="runs", at=table.c.created_at, key=table.c.id, cursor=cursor, limit=limit)
        async with self.db.read() as conn:
            found = [self._run(row) for row in (await conn.execute(query))]
        return page_of("runs", found, limit, lambda run: Position(times.to_text(run.created_at), run.id))

    async def set_phase(
        self, run_id: str, phase: Phase, *, rung: Rung | None = None, result: RunResult | None = None,
        conn: AsyncConnection | None = None,
    ) -> bool:  # fmt: skip
        """Say where the run stands; False when there is no such run or it has ended, which nothing undoes."""
        changes: dict[str, Any] = {"phase": phase.value}
        if rung is not None:
            changes["rung"] = rung.value
        return await self._change(run_id, changes, conn, result)

    async def lock(self, run_id: str, *, conn: AsyncConnection) -> Phase | None:
        """Hold other changes of the run's row until the transaction ends; where it stands, None when there is none."""
        found = await conn.execute(sa.select(table.c.phase).where(table.c.id == run_id).with_for_update())
        phase = found.scalar_one_or_none()
        return None if phase is None else Phase(phase)

    async def set_rung(self, run_id: str, rung: Rung, *, conn: AsyncConnection | None = None) -> bool:
        """Say which rung works now; False when there is no such run or it has ended."""
        return await self._change(run_id, {"rung": rung.value}, conn)

    async def _change(
        self, run_id: str, changes: dict[str, Any], conn: AsyncConnection | None, result: RunResult | None = None
    ) -> bool:
        if conn is None:
            async with self.db.begin() as own:
                return await self._change(run_id, changes, own, result)
        if result is not None:
            # A run's tenant never changes, so this needs no lock.
            tenant = (await conn.execute(sa.select(table.c.tenant).where(table.c.id == run_id))).scalar_one_or_none()
            if tenant is None:
                return False
            changes |= self._seals.seal(table, {"id": run_id}, tenant, result=_result(result))
        change = (
            sa.update(table)
            .where(table.c.id == run_id, table.c.phase.not_in(_FINAL))
            .values(updated_at=times.now(), **changes)
        )
        return (await conn.execute(change)).rowcount == 1

    async def _insert(self, conn: AsyncConnection, run: Run) -> Run:
        values: dict[str, Any] = {
            **run.model_dump(exclude={"inputs", "files", "result", "principal"}),
            "principal": run.principal.model_dump_json(),
            "phase": run.phase.value,
            "rung": run.rung.value,
        }
        values |= self._seals.seal(
            table, values,
            inputs=canonical_json(run.inputs).decode(), files=_FILES.dump_json(run.files).decode(),
            result=None if run.result is None else _result(run.result),
        )  # fmt: skip
        await insert_if_absent(conn, table, values)
        return self._run((await conn.execute(sa.select(table).where(table.c.id == run.id))).one())

    def _run(self, row: sa.Row[Any]) -> Run:
        values = self._seals.open(table, row)
        result: str | None = values["result"]
        values["principal"] = Principal.model_validate_json(values["principal"])
        values["inputs"] = _INPUTS.validate_json(values["inputs"])
        values["files"] = _FILES.validate_json(values["files"])
        values["result"] = None if result is None else RunResult.model_validate_json(result)
        return Run.model_validate(values)


def _result(result: RunResult) -> str:
    return canonical_json(result.model_dump(mode="json")).decode()
