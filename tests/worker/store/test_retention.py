"""Bodies of old records go, the log stays provable, holds keep what they name, and nothing hides behind it."""

import asyncio
import secrets
import signal
from datetime import timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy import exc

from tests.fixtures.processes import spawn
from tests.worker.store import jobs
from tests.worker.store.facts import calls, closing, loose
from worker.store import anchor, offline, times
from worker.store.anchor import Vouched
from worker.store.audit import AuditLog
from worker.store.checking import BadRecord
from worker.store.checkpoints import CheckpointKey, Publisher, load_or_create, public_keys
from worker.store.database import Database
from worker.store.emptying import EMPTY
from worker.store.holds import Holds
from worker.store.proofs import check_proof, prove_record
from worker.store.retention import Policy, Retention
from worker.store.verification import Follower

YEAR = Policy(365)


class Kept:
    """A log of two closed runs and one that goes on, under a checkpoint, seen two years later."""

    def __init__(self, db: Database, folder: Path) -> None:
        self.db, self.folder = db, folder
        self.audit = AuditLog(db)
        self.publisher = Publisher(db, folder / "keys", folder / "anchor.jsonl")
        self.key = load_or_create(folder / "keys")

    def vouched(self) -> Vouched:
        return anchor.read(self.folder / "anchor.jsonl", public_keys(self.folder / "keys"))

    async def prune(self) -> int:
        done = await Retention(self.audit, YEAR).run(self.vouched(), self.key)
        return sum(one.records for one in done)

    async def emptied(self) -> list[int]:
        async with self.db.read() as conn:
            rows = await conn.execute(sa.text("SELECT seq, body FROM audit_event ORDER BY seq"))
            return [seq for seq, body in rows if bytes(body) == EMPTY]

    async def verified(self) -> None:
        """Online with and without the anchor, and offline, on top of a new checkpoint."""
        assert (await self.audit.verify()).problem is None
        self.publisher.publish()
        found = await self.audit.verify(self.vouched())
        assert found.ok, found.problem
        lines = [line[:-1] async for line in self.audit.export()]
        assert offline.check_lines(iter(lines), self.vouched()).problem is None
        again = Publisher(self.db, self.folder / "keys", self.folder / "anchor.jsonl").publish()
        assert again.size == len(lines)

    async def meddle(self, statement: str) -> None:
        """As the owner of the database may: past the triggers."""
        sqlite = self.db.dialect == "sqlite"
        async with self.db.begin() as conn:
            if sqlite:
                await conn.execute(sa.text("DROP TRIGGER audit_event_no_update"))
            else:
                await conn.execute(sa.text("ALTER TABLE audit_event DISABLE TRIGGER USER"))
            await conn.execute(sa.text(statement))


@pytest.fixture
async def kept(db: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Kept:
    made = Kept(db, tmp_path)
    with monkeypatch.context() as then:
        long_ago = times.now() - timedelta(days=730)
        then.setattr(times, "now", lambda: long_ago)
        for n in (1, 2):
            await made.audit.append(*calls(f"run_{n}", 2), closing(f"run_{n}", 5))
        await made.audit.append(loose(), *calls("run_open", 1))
    made.publisher.publish()
    return made


OLD = [1, 2, 3, 4, 6, 7, 8, 9, 11]
"""All but `run.closed`, and the records of the run that goes on."""


async def test_old_bodies_go_and_the_log_still_verifies(kept: Kept) -> None:
    follower = Follower(kept.db)
    assert (await follower.verify()).ok
    before = kept.vouched()
    [line] = [line async for line in kept.audit.export() if b'"seq":7,' in line]
    would = await Retention(kept.audit, YEAR).status(before)
    assert [one.records for one in would] == [9]
    assert await kept.emptied() == []
    assert await kept.prune() == 9
    assert await kept.emptied() == OLD
    await kept.verified()
    assert (await follower.verify()).ok
    assert check_proof(prove_record(before, 7, line[:-1]), public_keys(kept.folder / "keys"))
    assert await kept.prune() == 0, "there is nothing more to do"
    [first, *_] = await kept.audit.page(tenant=None, run_id="run_1")
    assert first.body == {}
    assert (await kept.audit.append(calls("run_1", 1)[0]))[0].seq == 1, "what is recorded stays recorded"


async def test_what_is_young_unsigned_or_without_a_policy_stays(kept: Kept) -> None:
    await kept.audit.append(*calls("run_young", 1), closing("run_young", 3))
    assert await Retention(kept.audit, Policy()).run(kept.vouched(), kept.key) == []
    assert await Retention(kept.audit, Policy(365, {"default": 1000})).run(kept.vouched(), kept.key) != []
    assert await kept.emptied() == []
    vouched = kept.vouched()
    part = Vouched(vouched.leaves[: 3 * 32], [], {}, vouched.keys)
    await Retention(kept.audit, YEAR).run(part, kept.key)
    assert await kept.emptied() == [1, 2, 3]


async def test_a_hold_keeps_what_it_names_until_it_is_lifted(kept: Kept) -> None:
    holds = Holds(kept.audit)
    run = await holds.place("default", "case 17", "ada", run_id="run_1")
    other = await holds.place("other", "not this tenant", "ada")
    past = await holds.place("default", "before all", "ada", until=times.now() - timedelta(days=900))
    assert await kept.prune() == 5
    assert await kept.emptied() == [6, 7, 8, 9, 11]
    assert {hold.id for hold in await holds.in_force()} == {run.id, other.id, past.id}
    assert await holds.lift("other", run.id, "settled", "bob") is None, "not theirs"
    assert await holds.lift(None, run.id, "settled", "bob")
    assert not await holds.lift(None, run.id, "settled", "bob")
    assert await kept.prune() == 4
    placed = await kept.audit.page(tenant="default", type="hold.placed")
    assert placed[0].actor == "ada"
    assert placed[0].body["reason"] == "case 17"
    assert len(await kept.audit.page(tenant="default", type="hold.lifted")) == 1
    await kept.verified()


async def test_two_passes_at_once_empty_each_body_once(kept: Kept) -> None:
    other = Kept(Database(str(kept.db.libpq_url or f"sqlite:///{kept.db.sqlite_path}")), kept.folder)
    done = await asyncio.gather(kept.prune(), other.prune())
    assert sum(done) == 9
    await other.db.close()
    await kept.verified()


async def test_a_pass_that_ends_half_way_leaves_its_batch_undone(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    append = AuditLog.append

    async def dying(*given: object, **named: object) -> object:
        await append(*given, **named)  # pyright: ignore[reportArgumentType]
        raise RuntimeError("killed")

    with monkeypatch.context() as dead:
        dead.setattr(AuditLog, "append", dying)
        with pytest.raises(RuntimeError, match="killed"):
            await kept.prune()
    assert await kept.emptied() == []
    await kept.verified()
    assert await kept.prune() == 9


@pytest.mark.parametrize(("moment", "batch"), [("before", 1), ("after", 1), ("before", 2), ("after", 2)])
async def test_a_pass_that_is_killed_leaves_whole_batches(kept: Kept, store_url: str, moment: str, batch: int) -> None:
    done = 4 * (batch - 1)
    pruning = spawn(jobs.prune, store_url, str(kept.folder), moment, batch)
    await asyncio.to_thread(pruning.join, 240)
    assert pruning.exitcode == -signal.SIGKILL
    assert await kept.emptied() == OLD[:done]
    await kept.verified()
    assert await kept.prune() == 9 - done
    assert await kept.emptied() == OLD
    await kept.verified()


async def test_retention_covers_up_no_edit(kept: Kept) -> None:
    await kept.meddle("UPDATE audit_event SET actor = 'nobody' WHERE seq = 7")
    with pytest.raises(BadRecord) as bad:
        await kept.prune()
    assert bad.value.seq == 7
    assert await kept.emptied() == []


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ("body = {empty} WHERE seq = 12", 12),
        ("body = {empty} WHERE seq = 5", 5),
        ("actor = 'nobody' WHERE seq = 2", 2),
        ("type = 'call.intent' WHERE seq = 4", 4),
        ("event_id = 'run_1/call/c9/outcome' WHERE seq = 2", 2),
        ("run_id = 'run_3' WHERE seq = 3", 3),
        ("tenant = 'other' WHERE seq = 11", 11),
    ],
)
async def test_what_is_changed_of_a_pruned_log_is_named(kept: Kept, change: str, named: int) -> None:
    await kept.prune()
    kept.publisher.publish()
    empty = "x'6e756c6c'" if kept.db.dialect == "sqlite" else "'\\x6e756c6c'"
    await kept.meddle(f"UPDATE audit_event SET {change.format(empty=empty)}")
    for vouched in (kept.vouched(), Vouched()):
        found = await kept.audit.verify(vouched)
        assert (found.ok, found.first_bad) == (False, named), found.problem
    lines = [line[:-1] async for line in kept.audit.export()]
    assert offline.check_lines(iter(lines), kept.vouched()).first_bad == named


async def test_only_the_checkpoint_key_covers(kept: Kept) -> None:
    """Whoever owns the database may append a record that claims to be retention's; it is not signed."""
    forger = CheckpointKey(kept.key.public.name, secrets.token_bytes(32))
    await Retention(kept.audit, YEAR).run(kept.vouched(), forger)
    found = await kept.audit.verify(kept.vouched())
    assert (found.ok, found.first_bad) == (False, 14), found.problem


async def test_the_database_lets_nothing_else_be_changed(kept: Kept) -> None:
    async with kept.db.begin() as conn:
        await conn.execute(sa.text("SELECT 1"))
    for change in (
        "body = body",
        "actor = 'x'",
        "body = {other}",
        "body = {empty}, actor = 'x'",
        "leaf_hash = {empty}",
    ):
        quoted = ("x'{}'" if kept.db.dialect == "sqlite" else "'\\x{}'").format
        statement = change.format(empty=quoted("6e756c6c"), other=quoted("7b7d"))
        with pytest.raises(exc.DBAPIError, match="append-only"):
            async with kept.db.begin() as conn:
                await conn.execute(sa.text(f"UPDATE audit_event SET {statement}"))
