"""PostgreSQL itself is killed while processes write: what it had acknowledged is there when it is back, once, and the
writers go on by themselves."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from tests.fixtures.postgres import Killable
from tests.fixtures.processes import finished, spawn
from tests.fixtures.store import migrate
from tests.worker.store import jobs
from worker.store.audit import AuditLog
from worker.store.database import Database

WRITERS = 5


@pytest.fixture
def server() -> Iterator[Killable]:
    found = Killable()
    yield found
    found.remove()


async def more(paths: list[Path], many: int) -> None:
    """Wait until each file has so many lines more."""
    wanted = {path: len(jobs.notes(path)) + many for path in paths}
    async with asyncio.timeout(240):
        while any(len(jobs.notes(path)) < lines for path, lines in wanted.items()):  # noqa: ASYNC110  (other processes)
            await asyncio.sleep(0.02)


async def test_a_server_killed_under_load_loses_nothing_acknowledged(server: Killable, tmp_path: Path) -> None:
    await migrate(server.url)
    taken, refused = ([tmp_path / f"{what}{n}" for n in range(WRITERS)] for what in ("taken", "refused"))
    enough = tmp_path / "enough"
    writers = [
        spawn(jobs.append_until, server.url, f"run_{n}", str(taken[n]), str(refused[n]), str(enough))
        for n in range(WRITERS)
    ]
    for _ in range(2):
        await more(taken, 20)
        await asyncio.to_thread(server.kill)
        await more(refused, 1)  # each was told that it cannot be done now
        await asyncio.to_thread(server.start)
        await more(taken, 20)
    enough.touch()
    await finished(*writers)

    db = Database(server.url)
    found = await AuditLog(db).verify()
    assert found.ok, found
    async with db.read() as conn:
        rows = (await conn.execute(sa.text(_KEPT))).all()
    await db.close()
    kept = {(str(run), int(number)) for run, number, _ in rows}
    assert len(kept) == len(rows) == found.count, "0 duplicates"
    acknowledged = {(run, int(n)) for path in taken for run, n in (line.split() for line in jobs.notes(path))}
    assert acknowledged <= kept
    for n in range(WRITERS):
        numbers = sorted(run_seq for run, _, run_seq in rows if run == f"run_{n}")
        assert numbers == list(range(1, len(numbers) + 1)), "0 gaps"


_KEPT = "SELECT run_id, substr(event_id, length(run_id) + 8), run_seq FROM audit_event"
