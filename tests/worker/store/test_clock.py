"""The clock is set back by an hour: what is of the time after that holds nothing up, and proves nothing."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from policies.decision import Principal
from tests.worker.store.test_keeping import keeper
from worker.store import times
from worker.store.audit import AuditLog
from worker.store.database import Database
from worker.store.idempotency import Idempotency, ReserveState
from worker.store.leases import Lease
from worker.store.outbox import Notice, Outbox
from worker.store.sessions import Sessions
from worker.store.stops import Stops

NOON = datetime(2026, 11, 22, 12, 0, 30, tzinfo=UTC)
SetClock = Callable[[timedelta], None]


@pytest.fixture
def set_clock(monkeypatch: pytest.MonkeyPatch) -> SetClock:
    def to(after_noon: timedelta) -> None:
        monkeypatch.setattr(times, "now", lambda: NOON + after_noon)

    to(timedelta())
    return to


async def test_a_duty_of_a_dead_process_is_taken_over(db: Database, set_clock: SetClock) -> None:
    assert await Lease(db, "duty", "dead").take()
    set_clock(timedelta(seconds=-30))
    assert not await Lease(db, "duty", "two").take(), "clocks of two machines are never quite the same"
    set_clock(timedelta(hours=-1))
    assert await Lease(db, "duty", "two").take()


async def test_an_engine_that_reported_in_the_future_is_silent(db: Database, set_clock: SetClock) -> None:
    """Nothing would be confirmed of a silent engine; of one that only seems to have reported, everything would."""
    await Stops(db).engine_seen("docker")
    assert await Stops(db).engines() == {"docker": True}
    set_clock(timedelta(hours=-1))
    assert await Stops(db).engines() == {"docker": False}


async def test_a_request_that_died_is_taken_over(db: Database, set_clock: SetClock) -> None:
    keys, who = Idempotency(db), Principal(id="alice")
    await keys.reserve(who, "key", "f", resource_id="run_1")
    set_clock(timedelta(hours=-1))
    heir = await keys.reserve(who, "key", "f", resource_id="run_2")
    assert (heir.state, heir.resource_id) == (ReserveState.NEW, "run_1")
    assert (await keys.reserve(who, "key", "f", resource_id="run_3")).state is ReserveState.IN_PROGRESS


async def test_a_notice_does_not_wait_for_the_hour_to_come_again(db: Database, set_clock: SetClock) -> None:
    outbox = Outbox(db)
    notice = Notice(id="n", type="run.closed", tenant="default", body={}, created_at=times.now())
    async with db.begin() as conn:
        await outbox.add(conn, notice)
    await outbox.direct(notice, ["c"])
    [(made, _)] = await outbox.due()
    await outbox.failed(made, "no", again_in=timedelta(hours=3))
    assert not await outbox.due()
    set_clock(timedelta(hours=-1))
    [(again, _)] = await outbox.due()
    assert again.attempts == 1


async def test_a_session_that_was_used_since_is_over(audit: AuditLog, set_clock: SetClock) -> None:
    sessions = Sessions(audit.db, audit, idle=timedelta(minutes=30), life=timedelta(hours=8))
    token = await sessions.open(Principal(id="ruth"), "oidc")
    set_clock(timedelta(seconds=-30))
    assert await sessions.find(token)
    set_clock(timedelta(hours=-1))
    assert await sessions.find(token) is None


async def test_heartbeats_go_on_in_minutes_that_had_theirs(
    audit: AuditLog, tmp_path: Path, set_clock: SetClock
) -> None:
    both = [keeper(audit, tmp_path), keeper(audit, tmp_path)]
    for minute in (-2, -1, 0, -2, -1, 0, 1):
        set_clock(timedelta(minutes=minute))
        for one in both:
            await one.look()
    beats = await audit.page(tenant="-", type="log.heartbeat")
    assert [str(beat.body["minute"])[-2:] for beat in beats] == ["58", "59", "00", "58", "59", "00", "01"]
    found = await audit.verify()
    assert (found.ok, found.clock.back, found.clock.back_at, found.clock.silences) == (True, 1, 4, 0)
