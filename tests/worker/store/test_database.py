"""The store opens, migrates and fails in ways its callers can rely on."""

import asyncio
import shutil
import sqlite3
import stat
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy.engine import Connection

from tests.fixtures.processes import finished, spawn
from tests.worker.store import jobs
from tests.worker.store.facts import fact
from worker.store import migration
from worker.store.audit import AuditLog
from worker.store.database import Database, StoreUnavailable, insert_if_absent
from worker.store.tables import audit_head, ledger, metadata


async def test_an_empty_database_becomes_a_store(empty_url: str) -> None:
    db = Database(empty_url)
    with pytest.raises(StoreUnavailable):
        await db.check()
    await db.migrate()
    await db.check()
    await db.migrate()
    assert (await AuditLog(db).append(fact("run_a", 1)))[0].seq == 1
    await db.close()


async def test_four_processes_may_migrate_at_once(empty_url: str, tmp_path: Path) -> None:
    done = tmp_path / "done"
    await finished(*(spawn(jobs.migrate, empty_url, str(done)) for _ in range(4)))
    assert jobs.notes(done) == ["migrated"] * 4
    db = Database(empty_url)
    found = await AuditLog(db).verify()
    assert (found.ok, found.count) == (True, 4)
    await db.close()


async def test_the_migrations_create_the_tables_of_the_code(db: Database) -> None:
    def differences(conn: Connection) -> list[object]:
        context = MigrationContext.configure(conn, opts={"compare_type": True})
        return list(compare_metadata(context, metadata))

    async with db.begin() as conn:
        assert await conn.run_sync(differences) == []


def test_the_head_of_the_code_is_the_newest_migration() -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(migration.__file__).with_name("migrations")))
    assert ScriptDirectory.from_config(config).get_heads() == [migration.HEAD]


async def test_a_newer_database_is_refused(db: Database) -> None:
    async with db.begin() as conn:
        await conn.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(StoreUnavailable, match="9999"):
        await db.check()
    with pytest.raises(RuntimeError, match="cannot use the database"):
        await db.migrate()


async def test_what_was_half_done_is_undone(db: Database) -> None:
    with pytest.raises(RuntimeError, match="crash"):
        await _insert_and_crash(db)
    async with db.read() as conn:
        assert (await conn.execute(sa.select(sa.func.count()).select_from(ledger))).scalar_one() == 0


async def _insert_and_crash(db: Database) -> None:
    async with db.begin() as conn:
        assert await insert_if_absent(conn, ledger, _row("k"))
        raise RuntimeError("crash")


async def test_a_cancelled_transaction_leaves_nothing_and_blocks_nobody(db: Database) -> None:
    inside = asyncio.Event()

    async def stuck() -> None:
        async with db.begin() as conn:
            await insert_if_absent(conn, ledger, _row("k"))
            inside.set()
            await asyncio.sleep(60)

    task = asyncio.create_task(stuck())
    await inside.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    async with db.begin() as conn:
        assert await insert_if_absent(conn, ledger, _row("k"))


async def test_insert_if_absent_says_whether_it_inserted(db: Database) -> None:
    async with db.begin() as conn:
        assert await insert_if_absent(conn, ledger, _row("k"))
        assert not await insert_if_absent(conn, ledger, _row("k") | {"owner": "other"})
        assert (await conn.execute(sa.select(ledger.c.owner))).scalar_one() == "w1"


def _row(key: str) -> dict[str, object]:
    return {"key": key, "tool": "t", "generation": 1, "attempt": 1, "owner": "w1", "claimed_at": _MOMENT}


_MOMENT = jobs.moment()


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:", "mysql://localhost/x"])
def test_a_database_other_processes_cannot_share_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"SQLite needs a plain file|not supported"):
        Database(url)


async def test_a_commit_is_on_disk_before_it_returns(db: Database) -> None:
    """The settings that make it so, as the connections have them."""
    async with db.begin() as conn:
        if db.dialect == "postgresql":
            assert (await conn.execute(sa.text("SHOW synchronous_commit"))).scalar_one() == "on"
            return
        assert (await conn.execute(sa.text("PRAGMA journal_mode"))).scalar_one() == "wal"
        assert (await conn.execute(sa.text("PRAGMA synchronous"))).scalar_one() == 2  # FULL
        assert (await conn.execute(sa.text("PRAGMA foreign_keys"))).scalar_one() == 1


async def test_reading_connections_cannot_write_to_sqlite(tmp_path: Path, sqlite_template: Path) -> None:
    db = Database(f"sqlite:///{sqlite_template}")
    with pytest.raises(StoreUnavailable, match="readonly"):
        await _write_by_reader(db)
    await db.close()


async def _write_by_reader(db: Database) -> None:
    async with db.read() as conn:
        await conn.execute(sa.update(audit_head).values(seq=7))


async def test_the_file_is_for_its_owner_only(tmp_path: Path) -> None:
    db = Database(f"sqlite:///{tmp_path / 'new' / 'store.db'}")
    await db.migrate()
    await AuditLog(db).append(fact("run_a", 1))
    for path in (tmp_path / "new").glob("store.db*"):
        if not path.name.endswith(".migrating"):
            assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    await db.close()


async def test_a_store_that_is_gone_is_unavailable(tmp_path: Path) -> None:
    gone = [
        Database(f"sqlite:///{tmp_path / 'no' / 'such' / 'folder' / 'x.db'}"),
        Database(f"postgresql://nobody@/none?host={tmp_path}"),
    ]
    (tmp_path / "noise.db").write_bytes(b"this is not a database" * 100)
    gone.append(Database(f"sqlite:///{tmp_path / 'noise.db'}"))
    for db in gone:
        with pytest.raises(StoreUnavailable):
            await db.check()
        with pytest.raises(StoreUnavailable):
            await AuditLog(db).append(fact("run_a", 1))
        await db.close()


async def test_a_caller_s_own_fault_is_not_the_store_s(db: Database) -> None:
    with pytest.raises(TimeoutError):
        async with db.begin():
            raise TimeoutError("a socket of the caller")


async def test_a_full_disk_is_unavailable_and_keeps_the_log_whole(tmp_path: Path, sqlite_template: Path) -> None:
    path = Path(shutil.copy(sqlite_template, tmp_path / "small.db"))
    db = Database(f"sqlite:///{path}")
    log = AuditLog(db)
    async with db.begin() as conn:
        pages = (await conn.execute(sa.text("PRAGMA page_count"))).scalar_one()
        # The limit is the connection's own; the store has one that writes.
        await conn.execute(sa.text(f"PRAGMA max_page_count={pages + 8}"))
    with pytest.raises(StoreUnavailable, match="full"):
        await _append_many(log)
    found = await log.verify()
    assert found.ok
    assert found.count > 0
    await db.close()


async def _append_many(log: AuditLog) -> None:
    for n in range(200):
        await log.append(fact("run_a", n, words="x" * 1000))


async def test_a_lock_held_by_another_program_is_waited_for(tmp_path: Path, sqlite_template: Path) -> None:
    path = Path(shutil.copy(sqlite_template, tmp_path / "busy.db"))
    other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    db = Database(f"sqlite:///{path}")
    append = asyncio.create_task(AuditLog(db).append(fact("run_a", 1)))
    await asyncio.sleep(0.2)
    assert not append.done()
    other.execute("COMMIT")
    assert (await append)[0].seq == 1
    other.close()
    await db.close()
