"""The running system keeps its log: heartbeats, checkpoints in time, one of each whoever does it."""

import asyncio
from pathlib import Path

import pytest
import sqlalchemy as sa

from tests.worker.store.facts import fact, loose
from worker.store import anchor, keeping
from worker.store.audit import AuditLog
from worker.store.checkpoints import Publisher, public_keys
from worker.store.database import Database
from worker.store.keeping import Keeper
from worker.store.verification import Follower


def keeper(audit: AuditLog, folder: Path) -> Keeper:
    return Keeper(audit, Publisher(audit.db, folder / "keys", folder / "anchor.jsonl"))


def sizes(folder: Path) -> list[int]:
    return [point.size for point in anchor.read(folder / "anchor.jsonl", public_keys(folder / "keys")).checkpoints]


async def test_two_processes_leave_one_heartbeat_a_minute_and_one_checkpoint(audit: AuditLog, tmp_path: Path) -> None:
    both = [keeper(audit, tmp_path), keeper(audit, tmp_path)]
    for _ in range(2):
        await asyncio.gather(*(one.look() for one in both))
    beats = await audit.page(tenant="-", type="log.heartbeat")
    assert [beat.body["minute"] for beat in beats] == sorted({str(beat.body["minute"]) for beat in beats})
    assert sizes(tmp_path)[0] == 1
    assert sizes(tmp_path) == sorted(set(sizes(tmp_path)))


async def test_a_thousand_records_are_signed_for_before_the_minute_is_over(
    audit: AuditLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeping, "EVERY_S", 3600.0)
    kept = keeper(audit, tmp_path)
    await kept.look()
    before = sizes(tmp_path)[-1]
    await audit.append(loose())
    await kept.look()
    assert sizes(tmp_path)[-1] == before
    await audit.append(*(fact("run_a", n) for n in range(1000)))
    await kept.look()
    assert sizes(tmp_path)[-1] >= before + 1001


async def test_what_was_verified_is_not_looked_at_again_until_something_is_wrong(audit: AuditLog, db: Database) -> None:
    follower = Follower(db)
    assert (await follower.verify()).ok
    await audit.append(*(fact("run_a", n) for n in range(5)))
    assert (await follower.verify()).count == 5
    await audit.append(*(fact("run_a", n) for n in range(5, 8)))
    async with db.begin() as conn:
        guards = {
            "sqlite": ["DROP TRIGGER audit_event_no_update"],
            "postgresql": ["ALTER TABLE audit_event DISABLE TRIGGER ALL"],
        }
        for guard in guards[db.dialect]:
            await conn.execute(sa.text(guard))
        await conn.execute(sa.text("UPDATE audit_event SET actor = 'nobody' WHERE seq IN (2, 7)"))
    found = await follower.verify()
    assert (found.ok, found.first_bad) == (False, 7), "record 2 was verified before"
    found = await follower.verify()
    assert (found.ok, found.first_bad) == (False, 2), "after a finding everything is looked at again"
