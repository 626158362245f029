"""Which runs a switch stops, and how far that got: requested, asked of the workflow, acknowledged by it, confirmed.

Confirmed means two things at once: the workflow has said that it stands still (or has ended), and after that every
Docker engine that is watched has said that no container of the run is left. Nobody else's word counts.
"""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, cast

import sqlalchemy as sa
from pydantic import Field
from sqlalchemy.dialects import postgresql
from sqlalchemy.dialects import sqlite as sqlite_dialect
from sqlalchemy.ext.asyncio import AsyncConnection

from policies.switches import EVERYWHERE, Switch
from policies.switches import covers as covers_run
from tools.contract import Wire, canonical_json
from worker.store import times
from worker.store.database import Database
from worker.store.tables import approval, engine_watch, ledger, run
from worker.store.tables import switch as switch_table
from worker.store.tables import switch_stop as table
from workflows.contracts import ApprovalState, Phase

ENGINE_SILENT = timedelta(seconds=15)
"""An engine nobody has reported from for that long cannot confirm anything."""
ENGINE_FORGOTTEN = timedelta(hours=1)
"""After that it is not waited for any more."""
_FINAL = tuple(phase.value for phase in Phase if phase.final)


class Stop(Wire):
    """One run that a switch stops."""

    switch_id: str
    run_id: str
    tenant: str
    requested_at: datetime
    asked_at: datetime | None = None
    """When the workflow was last told."""
    acknowledged_at: datetime | None = None
    boxes: dict[str, int] = Field(default_factory=dict)
    """Docker engine -> containers of the run left there, as last reported after the acknowledgement."""
    confirmed_at: datetime | None = None
    resumed_at: datetime | None = None
    phase: Phase
    """Of the run."""


class Counts(Wire):
    """Requested against confirmed stops of one switch."""

    requested: int
    acknowledged: int
    confirmed: int
    resumed: int


class Stops:
    """The stops of one store. Every method may be repeated; StoreUnavailable when it cannot be done now."""

    def __init__(self, db: Database) -> None:
        self.db = db

    async def counts(self, switch_id: str) -> Counts:
        """How far a switch got."""
        query = sa.select(
            sa.func.count(), sa.func.count(table.c.acknowledged_at), sa.func.count(table.c.confirmed_at),
            sa.func.count(table.c.resumed_at),
        ).where(table.c.switch_id == switch_id)  # fmt: skip
        async with self.db.read() as conn:
            requested, acknowledged, confirmed, resumed = (await conn.execute(query)).one()
        return Counts(requested=requested, acknowledged=acknowledged, confirmed=confirmed, resumed=resumed)

    async def of(self, switch_id: str, *, limit: int = 100) -> list[Stop]:
        """Stops of a switch, those not confirmed first."""
        query = (
            _joined().where(table.c.switch_id == switch_id)
            .order_by(sa.case((table.c.confirmed_at.is_(None), 0), else_=1), table.c.run_id).limit(limit)
        )  # fmt: skip
        return await self._read(query)

    async def unconfirmed(self, *, limit: int = 1000) -> list[Stop]:
        """Stops of switches in force that are not confirmed."""
        query = (
            _joined().join(switch_table, switch_table.c.id == table.c.switch_id)
            .where(switch_table.c.state == "stop", table.c.confirmed_at.is_(None))
            .order_by(table.c.requested_at, table.c.run_id).limit(limit)
        )  # fmt: skip
        return await self._read(query)

    async def to_resume(self, *, limit: int = 1000) -> list[Stop]:
        """Runs that a switch stopped which stops nothing any more, and that have not been heard to go on."""
        query = (
            _joined().join(switch_table, switch_table.c.id == table.c.switch_id)
            .where(switch_table.c.state != "stop", table.c.resumed_at.is_(None), run.c.phase.not_in(_FINAL))
            .order_by(table.c.run_id).limit(limit)
        )  # fmt: skip
        return await self._read(query)

    async def note(
        self, stops: Sequence[Stop], column: str, *, conn: AsyncConnection | None = None
    ) -> None:  # fmt: skip
        """Set `asked_at`, `acknowledged_at`, `confirmed_at` or `resumed_at` of these to now; the first time stays for
        all but `asked_at`."""
        keys = [(s.switch_id, s.run_id) for s in stops]
        for start in range(0, len(keys), 200):
            change = sa.update(table).where(sa.tuple_(table.c.switch_id, table.c.run_id).in_(keys[start : start + 200]))
            if column != "asked_at":
                change = change.where(table.c[column].is_(None))
            change = change.values({column: times.now()})
            if conn is not None:
                await conn.execute(change)
            else:
                async with self.db.begin() as own:
                    await own.execute(change)

    async def heard(self, conn: AsyncConnection, switch_id: str, run_id: str, *, held: bool) -> None:
        """The workflow says that it stands still for this switch, or that it does not any more."""
        column = "acknowledged_at" if held else "resumed_at"
        await conn.execute(
            sa.update(table)
            .where(table.c.switch_id == switch_id, table.c.run_id == run_id, table.c[column].is_(None))
            .values({column: times.now()})
        )

    async def engine_seen(self, engine: str) -> None:
        """Somebody watches the containers of that Docker engine."""
        async with self.db.begin() as conn:
            dialect = sqlite_dialect if conn.dialect.name == "sqlite" else postgresql
            now = times.now()
            insert = dialect.insert(engine_watch).values(engine=engine, seen_at=now)
            await conn.execute(insert.on_conflict_do_update(index_elements=["engine"], set_={"seen_at": now}))

    async def engine_gone(self, engine: str) -> None:
        """Its watcher stops and has left nothing behind."""
        async with self.db.begin() as conn:
            await conn.execute(sa.delete(engine_watch).where(engine_watch.c.engine == engine))

    async def engines(self) -> dict[str, bool]:
        """Engines that count -> whether somebody has reported from them lately."""
        forgotten = times.now() - ENGINE_FORGOTTEN
        async with self.db.read() as conn:
            rows = (await conn.execute(sa.select(engine_watch))).all()
        return {r.engine: times.recent(r.seen_at, ENGINE_SILENT) for r in rows if r.seen_at > forgotten}

    async def boxes_left(self, engine: str, left: Mapping[tuple[str, str], int]) -> None:
        """What an engine holds of runs: (switch, run) -> containers. Only of stops the caller saw acknowledged."""
        async with self.db.begin() as conn:
            for (switch_id, run_id), count in sorted(left.items()):
                at = sa.and_(table.c.switch_id == switch_id, table.c.run_id == run_id)
                stored = (await conn.execute(sa.select(table.c.boxes).where(at).with_for_update())).scalar_one_or_none()
                if stored is None:
                    continue
                boxes = {**cast("dict[str, int]", json.loads(stored)), engine: count}
                await conn.execute(sa.update(table).where(at).values(boxes=canonical_json(boxes).decode()))

    async def claimed_boxes(self, run_ids: Sequence[str]) -> dict[str, list[str]]:
        """Run -> containers that calls of it committed to and that have no result yet, as the effect ledger knows.

        A container that was started ahead may carry no run on its labels.
        """
        found: dict[str, list[str]] = {}
        async with self.db.read() as conn:
            for run_id in run_ids:
                # A range, not LIKE: it uses the primary key on both databases. `0` follows `/`.
                query = sa.select(ledger.c.owner).where(
                    ledger.c.key >= f"{run_id}/", ledger.c.key < f"{run_id}0", ledger.c.settled_at.is_(None)
                )
                owners = (await conn.execute(query)).scalars()
                found[run_id] = [box for owner in owners if (box := owner.partition(" ")[2])]
        return found

    async def _read(self, query: sa.Select[Any]) -> list[Stop]:
        async with self.db.read() as conn:
            return [_stop(row) for row in (await conn.execute(query)).mappings()]


async def add_stops(conn: AsyncConnection, switch: Switch) -> int:
    """Write down every run the switch stops that is not written down yet, and freeze their questions; how many.

    Does nothing once the switch was eased: what it froze then would stay frozen.
    """
    still = sa.select(switch_table.c.id).where(switch_table.c.id == switch.id, switch_table.c.state == "stop")
    if (await conn.execute(still.with_for_update())).first() is None:
        return 0
    alive = run.c.phase.not_in(_FINAL)
    if switch.tenant != EVERYWHERE:
        alive = sa.and_(alive, run.c.tenant == switch.tenant)
    kinds = (await conn.execute(sa.select(run.c.tenant, run.c.automation).where(alive).distinct())).all()
    names = sorted({k.automation for k in kinds if covers_run(switch, k.tenant, k.automation)})
    if not names:
        return 0
    now = times.now()
    chosen = sa.select(
        sa.literal(switch.id), run.c.id, run.c.tenant, sa.literal(times.to_text(now)), sa.literal("{}")
    ).where(alive, run.c.automation.in_(names))  # fmt: skip
    dialect = sqlite_dialect if conn.dialect.name == "sqlite" else postgresql
    insert = (
        dialect.insert(table)
        .from_select(["switch_id", "run_id", "tenant", "requested_at", "boxes"], chosen)
        .on_conflict_do_nothing(index_elements=["switch_id", "run_id"])
        .returning(table.c.run_id)
    )
    added = len((await conn.execute(insert)).all())
    stopped = sa.select(table.c.run_id).where(table.c.switch_id == switch.id)
    await conn.execute(
        sa.update(approval)
        .where(approval.c.state == ApprovalState.PENDING.value, approval.c.run_id.in_(stopped))
        .values(state=ApprovalState.FROZEN.value)
    )
    return added


def _joined() -> sa.Select[Any]:
    return sa.select(table, run.c.phase).join(run, run.c.id == table.c.run_id)


def _stop(row: sa.RowMapping) -> Stop:
    return Stop.model_validate({**row, "boxes": json.loads(row["boxes"])})
