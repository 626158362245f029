"""Callers that come together share a commit, and each gets its own answer; whoever dies when, the log stays dense."""

import asyncio
import resource
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from tests.fixtures.processes import spawn
from tests.worker.store import jobs
from tests.worker.store.facts import closing, fact, loose
from worker.store import times
from worker.store.audit import AuditEvent, AuditLog, RunAlreadyClosed
from worker.store.database import Database, StoreUnavailable


class Counted(Database):
    """A store that counts its write transactions, and can be out of order."""

    transactions = 0
    broken = False

    @asynccontextmanager
    async def driver(self) -> AsyncGenerator[Any]:
        self.transactions += 1
        if self.broken:
            raise StoreUnavailable("gone")
        async with super().driver() as connection:
            yield connection


@pytest.fixture
async def counted(store_url: str) -> AsyncIterator[Counted]:
    db = Counted(store_url)
    yield db
    await db.close()


async def test_callers_that_come_together_share_a_commit(counted: Counted) -> None:
    log = AuditLog(counted)
    found = await asyncio.gather(*(log.append(fact(f"run_{n % 7}", n), loose()) for n in range(60)))
    assert counted.transactions <= 3
    assert sorted(r.seq for records in found for r in records) == list(range(1, 121))
    assert all(one.seq + 1 == other.seq for one, other in found), "what one caller brings stays together"
    for n in range(7):
        numbers = [r.run_seq for records in found for r in records if r.run_id == f"run_{n}"]
        assert sorted(filter(None, numbers)) == list(range(1, len(numbers) + 1))
    assert (await log.verify()).count == 120


async def test_each_caller_gets_its_own_answer(audit: AuditLog) -> None:
    await audit.append(fact("run_a", 1), closing("run_a", 2))
    late, known, fine, both = await asyncio.gather(
        audit.append(loose(), fact("run_a", 2)),
        audit.append(fact("run_a", 1)),
        audit.append(fact("run_b", 1), fact("run_b", 1)),
        audit.append(closing("run_b", 2), fact("run_b", 2)),
        return_exceptions=True,
    )
    assert isinstance(late, RunAlreadyClosed)
    assert isinstance(both, RunAlreadyClosed), "a run that is closed by these very events takes no more"
    assert not isinstance(known, BaseException)
    assert not isinstance(fine, BaseException)
    assert [r.seq for r in [*known, *fine]] == [1, 3, 3]
    assert (await audit.verify()).count == 3, "of what was refused nothing is kept"


async def test_one_callers_mistake_is_not_the_others(audit: AuditLog, db: Database) -> None:
    if db.dialect != "postgresql":
        return  # SQLite takes any text
    bad = AuditEvent("run_b/\0", "model.requested", "default", "run_b", "bob", {})
    refused, *rest = await asyncio.gather(
        audit.append(bad), *(audit.append(fact("run_a", n)) for n in range(5)), return_exceptions=True
    )
    assert isinstance(refused, Exception)
    assert not any(isinstance(one, BaseException) for one in rest)
    assert (await audit.verify()).count == 5


async def test_nothing_is_acknowledged_that_was_not_committed(counted: Counted) -> None:
    log = AuditLog(counted)
    counted.broken = True
    found = await asyncio.gather(*(log.append(fact("run_a", n)) for n in range(8)), return_exceptions=True)
    assert all(isinstance(one, StoreUnavailable) for one in found)
    counted.broken = False
    assert (await log.verify()).count == 0
    assert [r.seq for n in range(8) for r in await log.append(fact("run_a", n))] == list(range(1, 9))


async def test_a_caller_that_is_cancelled_stops_nobody_else(audit: AuditLog) -> None:
    impatient = asyncio.create_task(audit.append(fact("run_a", 0)))
    others = [asyncio.create_task(audit.append(fact("run_a", n))) for n in range(1, 6)]
    await asyncio.sleep(0)
    impatient.cancel()
    assert len(await asyncio.gather(*others)) == 5
    [record] = await audit.append(fact("run_a", 0))
    assert (record.body["step"], (await audit.verify()).count) == (0, 6)


async def test_five_processes_killed_under_load_lose_nothing_acknowledged(
    audit: AuditLog, store_url: str, tmp_path: Path
) -> None:
    """Two that append alone, like the API, and three that append in transactions too, like the workers."""
    noted = [tmp_path / str(n) for n in range(5)]
    writers = [spawn(jobs.append_together, store_url, str(n), 8, str(noted[n]), n > 1) for n in range(5)]
    await jobs.wait_for_notes(*noted)
    for writer in writers:
        await asyncio.sleep(0.05)
        writer.kill()
    for writer in writers:
        await asyncio.to_thread(writer.join)
    found = await audit.verify()
    assert found.ok, found
    async with audit.db.read() as conn:
        kept = {(str(run), int(step)) for run, step in await conn.execute(sa.text(_KEPT))}
        count = (await conn.execute(sa.text("SELECT count(*) FROM audit_event"))).scalar_one()
    assert (len(kept), found.count) == (count, count), "0 gaps, 0 duplicates"
    acknowledged = {(run, int(n)) for path in noted for run, _, n in (line.partition(" ") for line in jobs.notes(path))}
    assert acknowledged
    assert acknowledged <= kept


_KEPT = "SELECT run_id, substr(event_id, length(run_id) + 8) FROM audit_event"


async def test_a_clock_that_is_set_back_shows_and_breaks_nothing(
    audit: AuditLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Times are recorded as the clock had them; the order is the numbers'."""
    now = datetime(2026, 11, 22, 18, 0, tzinfo=UTC)
    for minute in (0, 10, 4, 5):
        monkeypatch.setattr(times, "now", lambda minute=minute: now + timedelta(minutes=minute))
        await audit.append(loose())
    found = await audit.verify()
    assert (found.ok, found.count) == (True, 4)
    assert (found.clock.back, found.clock.back_at) == (1, 3)
    assert (found.clock.silences, found.clock.longest_after) == (1, 1)


async def _append_many(audit: AuditLog) -> None:
    for n in range(2, 40):
        await audit.append(fact("run_a", n, words="x" * 5000))


async def test_a_full_disk_refuses_and_loses_nothing(audit: AuditLog, db: Database) -> None:
    if db.sqlite_path is None:
        return  # the server's disk is the server's
    await audit.append(fact("run_a", 1))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    size = db.sqlite_path.with_name(db.sqlite_path.name + "-wal").stat().st_size
    # What a write beyond the limit gets is EFBIG, which the database treats like a full disk. Python ignores SIGXFSZ.
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 20_000, before[1]))
    try:
        with pytest.raises(StoreUnavailable):
            await _append_many(audit)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    kept = await audit.verify()
    assert kept.ok, kept
    assert kept.count >= 1
    [record] = await audit.append(loose())
    assert record.seq == kept.count + 1
    assert (await audit.verify()).ok
