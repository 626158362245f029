"""Removes what old runs worked with, per tenant and age: inputs, results, arguments and words of questions, outputs of
calls, notices, uploads. Ids, digests, times, states and who did it stay.

A batch is one transaction with the record that tells what went, under the lock on the log's head, so that a hold is
either seen or comes after. Runs that have not ended are never touched, nor a file that a run with contents names.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple, TypeVar, cast

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from tools.contract import JsonObject, JsonValue, canonical_json
from worker.store import tables, times
from worker.store.audit import AuditEvent, AuditLog
from worker.store.holds import Hold, holds_of
from worker.store.ids import new_id
from worker.store.sealing import Seals
from workflows.contracts import Phase

BATCH = 50
ACTOR = "system:retention"
_FINAL = tuple(phase.value for phase in Phase if phase.final)
_Json = dict[str, Any]
_T = TypeVar("_T")


class _Stored(NamedTuple):
    """An upload."""

    id: str
    sha256: str
    created_at: datetime


def _nothing(_: str) -> str:
    return "{}"


def _none(_: str) -> str:
    return "[]"


def _without(**instead: Any) -> Callable[[str], str]:
    """The JSON object with these fields, where it has them, replaced."""

    def emptied(value: str) -> str:
        found = cast("_Json", json.loads(value))
        return canonical_json(_replaced(found, instead)).decode()

    return emptied


def _replaced(found: _Json, instead: Mapping[str, Any]) -> _Json:
    return {name: instead.get(name, value) for name, value in found.items()}


_ANSWER: Final = {"reason": "", "edited_arguments": None, "output": None}


def _request(value: str) -> str:
    found = cast("_Json", json.loads(value))
    if found.get("call") is not None:
        found["call"] = _replaced(found["call"], {"arguments": {}})
    return canonical_json(_replaced(found, {"reason": "", "origins": None})).decode()


def _progress(value: str) -> str:
    found = cast("_Json", json.loads(value))
    words = {"answers": _ANSWER, "conversation": {"text": ""}, "delegated": {"reason": ""}}
    for name, instead in words.items():
        found[name] = [_replaced(one, instead) for one in found.get(name, ())]
    return canonical_json(found).decode()


CONTENTS: Final[Mapping[sa.Table, Mapping[str, Callable[[str], str]]]] = {
    tables.run: {
        "inputs": _nothing,
        "files": _none,
        "result": _without(output=None, failure=None, artifacts=[], degraded=[]),
    },
    tables.approval: {"request": _request, "answer": _without(**_ANSWER), "progress": _progress},
    tables.ledger: {"result": _without(content="", full_sha256=None)},
}
"""Sealed columns of a run's rows, and what is left of a value. They are sealed again: it may still name people."""
GONE: Final = (tables.outbox, tables.delivery, tables.idempotency_key, tables.file)
"""Rows of these go as a whole."""
STAYS: Final = frozenset({"approval_grant.content", "delegation.content"})
"""What was said beforehand and for no run: it says who may do what."""


class Contents:
    """What the runs of one store worked with."""

    def __init__(self, audit: AuditLog) -> None:
        self._audit = audit
        self._db = audit.db
        self._seals = Seals(audit.db.keyring)

    async def due(self, tenant: str, before: datetime) -> tuple[int, int]:
        """How many runs and files of the tenant a pass would empty and remove now. Raises StoreUnavailable."""
        async with self._db.read() as conn:
            runs = await self._runs(conn, tenant, before)
            return len(runs), len(await self._files(conn, tenant, before, without=runs))

    async def remove(self, tenant: str, before: datetime) -> tuple[int, int]:
        """Remove what is due; how many runs and files it was. Raises StoreUnavailable."""
        async with self._db.read() as conn:
            due = await self._runs(conn, tenant, before)
        runs = sum([await self._empty(tenant, before, part) for part in _batches(due)])
        # Last, for what those runs named is not named any more.
        async with self._db.read() as conn:
            unnamed = await self._files(conn, tenant, before)
        files = sum([await self._remove_files(tenant, before, part) for part in _batches(unnamed)])
        await self._forget_answers(tenant, before)
        return runs, files

    async def _runs(
        self, conn: AsyncConnection, tenant: str, before: datetime, only: Sequence[str] | None = None
    ) -> list[str]:
        """Runs (of `only` these) that ended before, still hold contents, and which no hold names."""
        run = tables.run
        query = (
            sa.select(run.c.id, run.c.created_at, run.c.updated_at)
            .where(run.c.tenant == tenant, run.c.phase.in_(_FINAL), run.c.contents_removed_at.is_(None))
            .where(run.c.updated_at < before).order_by(run.c.id)
        )  # fmt: skip
        if only is not None:
            query = query.where(run.c.id.in_(only))
        holds = await holds_of(conn, tenant)
        found = await conn.execute(query)
        return [row.id for row in found if not _held(holds, row.id, row.created_at, row.updated_at)]

    async def _empty(self, tenant: str, before: datetime, runs: Sequence[str]) -> int:
        """Empty a batch of runs, but for what is held by now, and tell it."""
        async with self._db.read() as conn:
            # Found without the lock that everybody waits for: a run that has ended gets no more of them.
            where = {table: await self._rows(conn, table, runs) for table in CONTENTS}
            notices = await _ids(conn, tables.outbox, tables.outbox.c.run_id.in_(runs))
        async with self._db.begin() as conn:
            await self._audit.lock(conn)
            free = await self._runs(conn, tenant, before, runs)
            if set(free) != set(runs):
                return 0  # a hold was placed, or another pass was here: the next one sees to the rest
            counts = {table.name: await self._emptied(conn, table, keys) for table, keys in where.items()}
            moment = {"contents_removed_at": times.now()}
            await conn.execute(sa.update(tables.run).where(tables.run.c.id.in_(runs)).values(**moment))
            await conn.execute(sa.delete(tables.delivery).where(tables.delivery.c.notice_id.in_(notices)))
            await conn.execute(sa.delete(tables.outbox).where(tables.outbox.c.id.in_(notices)))
            counts[tables.outbox.name] = len(notices)
            await self._record(conn, tenant, before, {"runs": list(runs), "rows": dict(counts), "files": []})
        return len(runs)

    async def _rows(self, conn: AsyncConnection, table: sa.Table, runs: Sequence[str]) -> list[str]:
        return await _ids(conn, table, _of_runs(conn, table, runs))

    async def _remove_files(self, tenant: str, before: datetime, files: Sequence[_Stored]) -> int:
        """Remove rows of uploads, but for what is held by now, and tell it."""
        async with self._db.begin() as conn:
            await self._audit.lock(conn)
            holds, file = await holds_of(conn, tenant), tables.file
            free = [one for one in files if not _held(holds, None, one.created_at, one.created_at)]
            gone = sa.delete(file).where(file.c.id.in_([one.id for one in free])).returning(file.c.id)
            ids = set((await conn.execute(gone)).scalars())
            told: list[JsonValue] = [{"id": one.id, "sha256": one.sha256} for one in free if one.id in ids]
            if told:
                await self._record(conn, tenant, before, {"runs": [], "rows": {file.name: len(told)}, "files": told})
        return len(told)

    async def _emptied(self, conn: AsyncConnection, table: sa.Table, keys: Sequence[str]) -> int:
        """Put what is left into the sealed columns of the rows."""
        (key,) = table.primary_key.columns
        rows = (await conn.execute(sa.select(table).where(key.in_(keys)).with_for_update())).all()
        for row in rows:
            opened = self._seals.open(table, row)
            left = {name: _left(opened[name], rule) for name, rule in CONTENTS[table].items()}
            tenant = opened["tenant"] if "tenant" in opened else await self._tenant(conn, opened["key"])
            values = self._seals.seal(table, opened, tenant, **left)
            await conn.execute(sa.update(table).where(key == opened[key.name]).values(**values))
        return len(rows)

    async def _tenant(self, conn: AsyncConnection, key: str) -> str:
        """Whose the ledger's key is: its run's."""
        run = tables.run
        return (await conn.execute(sa.select(run.c.tenant).where(run.c.id == key.split("/", 1)[0]))).scalar_one()

    async def _files(
        self, conn: AsyncConnection, tenant: str, before: datetime, *, without: Iterable[str] = ()
    ) -> list[_Stored]:
        """Uploads that are old enough and that no run which still holds contents names. `without`: but for these."""
        file = tables.file
        found = await conn.execute(
            sa.select(file.c.id, file.c.sha256, file.c.created_at)
            .where(file.c.tenant == tenant, file.c.created_at < before).order_by(file.c.id)
        )  # fmt: skip
        holds = await holds_of(conn, tenant)
        every = [_Stored(*row) for row in found]
        old = [one for one in every if not _held(holds, None, one.created_at, one.created_at)]
        if not old:
            return []
        run, named, gone = tables.run, set[str](), frozenset(without)
        rows = await conn.execute(
            sa.select(*(run.c[name] for name in ("id", "tenant", "files")))
            .where(run.c.tenant == tenant, run.c.contents_removed_at.is_(None))
        )  # fmt: skip
        for row in rows:
            if row.id not in gone:
                named.update(str(ref["sha256"]) for ref in json.loads(self._seals.open(run, row)["files"]))
        return [one for one in old if one.sha256 not in named]

    async def _forget_answers(self, tenant: str, before: datetime) -> None:
        """Answers to requests, which are forgotten within days where requests come: without the lock that those wait
        for while they do so."""
        idem = tables.idempotency_key
        async with self._db.begin() as conn:
            held = {hold.run_id for hold in await holds_of(conn, tenant)}
            if None not in held:
                old = sa.and_(idem.c.tenant == tenant, idem.c.created_at < before)
                await conn.execute(sa.delete(idem).where(old, idem.c.resource_id.not_in(held)))

    async def _record(self, conn: AsyncConnection, tenant: str, before: datetime, what: JsonObject) -> None:
        body: JsonObject = {"tenant": tenant, "before": times.to_text(before), **what}
        event = AuditEvent(new_id("removed"), "retention.contents_removed", tenant, None, ACTOR, body)
        await self._audit.append(event, conn=conn)


def _batches(found: Sequence[_T]) -> Iterator[Sequence[_T]]:
    return (found[start : start + BATCH] for start in range(0, len(found), BATCH))


async def _ids(conn: AsyncConnection, table: sa.Table, where: sa.ColumnElement[bool]) -> list[str]:
    """Primary keys of the rows."""
    (key,) = table.primary_key.columns
    return list((await conn.execute(sa.select(key).where(where))).scalars())


def _left(value: str | None, rule: Callable[[str], str]) -> str | None:
    return None if value is None else rule(value)


def _of_runs(conn: AsyncConnection, table: sa.Table, runs: Sequence[str]) -> sa.ColumnElement[bool]:
    """Rows of these runs."""
    if "run_id" in table.c:
        return table.c.run_id.in_(runs)
    if table is tables.run:
        return table.c.id.in_(runs)
    # The ledger's key begins with the run's id.
    key = table.c.key
    if conn.dialect.name == "postgresql":
        return sa.func.split_part(key, "/", 1).in_(runs)
    return sa.func.substr(key, 1, sa.func.instr(key, "/") - 1).in_(runs)


def _held(holds: Sequence[Hold], run_id: str | None, begun: datetime, ended: datetime) -> bool:
    """Whether a hold names the run, or something of no run, that lasted so long."""
    return any(
        hold.run_id in (None, run_id)
        and (hold.since is None or hold.since <= ended)
        and (hold.until is None or begun < hold.until)
        for hold in holds
    )
