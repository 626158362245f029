"""A copy of everything an installation holds, taken while it runs, and put back into an empty place.

What is copied later knows at least as much: Temporal's file and the anchor, then the store, then blobs. A run that
Temporal remembers as less far than the store does the rest again, which the store makes harmless; the other way round
records would be missing. Blobs are copied as they lie, encrypted. Keys go in under a passphrase, or not at all.
"""

import asyncio
import os
import shutil
import sqlite3
import tarfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from pydantic import ValidationError
from sqlalchemy.engine import make_url

from tools.contract import Wire
from worker import backup_parts as parts
from worker.artifacts import open_backend
from worker.backup_parts import MANIFEST, BackupError
from worker.settings import Settings
from worker.storage import restoring
from worker.store.database import Database

FORMAT: Final = 1
STORE, DUMP, TEMPORAL, BLOBS = "gatehouse.db", "store.dump", "temporal.db", "blobs"
KEYS, ANCHOR = "keys.sealed", "anchor/audit.jsonl"
MIN_PASSPHRASE = 12


class Manifest(Wire):
    """What a backup holds. A file that is not named here is no part of it."""

    format: int
    created_at: datetime
    store: str
    """`sqlite` or `postgresql`."""
    audit_count: int
    audit_head: str
    """Of the copied log, in hex: what a restored log must have."""
    anchored: int
    """Up to which record signed checkpoints vouch for it."""
    with_keys: bool
    files: dict[str, str]
    """Path -> hex SHA-256."""


async def create(settings: Settings, out: Path, passphrase: str | None) -> Manifest:
    """Take a backup into the new folder `out`: whole, or there is none. `passphrase` None leaves the keys out.

    Raises BackupError, StoreUnavailable.
    """
    if passphrase is not None and len(passphrase) < MIN_PASSPHRASE:
        raise BackupError(f"the passphrase is shorter than {MIN_PASSPHRASE} characters")
    if out.exists():  # noqa: ASYNC240  (nothing else runs on this loop)
        raise BackupError(f"{out} exists: a backup never overwrites")
    partial = out.with_name(f"{out.name}.partial")
    try:
        partial.mkdir(parents=True, mode=0o700)
    except FileExistsError:
        raise BackupError(f"{partial} exists: another backup is being taken, or was cut off; remove it") from None
    try:
        manifest = await _take(settings, partial, passphrase)
        partial.rename(out)
    except (OSError, sqlite3.Error) as error:
        raise BackupError(str(error)) from error
    finally:
        await asyncio.to_thread(shutil.rmtree, partial, ignore_errors=True)
    return manifest


async def _take(settings: Settings, folder: Path, passphrase: str | None) -> Manifest:
    if (temporal := settings.data / TEMPORAL).exists():
        await asyncio.to_thread(parts.copy_sqlite, temporal, folder / TEMPORAL)
    if settings.anchor.exists():
        await asyncio.to_thread(parts.copy_anchor, settings.anchor, folder / ANCHOR)
    kind = make_url(settings.sql_url).get_backend_name()
    if kind == "sqlite":
        await asyncio.to_thread(parts.copy_sqlite, await _sqlite_path(settings), folder / STORE)
        log = await parts.verified(f"sqlite:///{folder / STORE}", settings.keys, folder / ANCHOR)
    else:
        # What is dumped is at least what was verified.
        log = await parts.verified(settings.sql_url, settings.keys, folder / ANCHOR)
        await asyncio.to_thread(parts.dump_postgres, settings.sql_url, folder / DUMP)
    await parts.copy_blobs(open_backend(settings), folder / BLOBS)
    if passphrase is not None:
        parts.write(folder / KEYS, await asyncio.to_thread(parts.seal_keys, settings, passphrase))
    manifest = Manifest(
        format=FORMAT, created_at=datetime.now(UTC), store=kind, audit_count=log.count, audit_head=log.head,
        anchored=log.anchored, with_keys=passphrase is not None,
        files=await asyncio.to_thread(parts.digests, folder),
    )  # fmt: skip
    parts.write(folder / MANIFEST, manifest.model_dump_json(indent=1).encode())
    return manifest


async def _sqlite_path(settings: Settings) -> Path:
    source = Database(settings.sql_url)
    await source.close()
    if source.sqlite_path is None or not source.sqlite_path.exists():
        raise BackupError(f"there is no store at {source.sqlite_path}")
    return source.sqlite_path


async def check(folder: Path) -> Manifest:
    """Whether the backup is whole: every file that its manifest names, and none other. Raises BackupError."""
    try:
        manifest = Manifest.model_validate_json((folder / MANIFEST).read_bytes())
    except (OSError, ValidationError) as error:
        raise BackupError(f"{folder} is no backup: {error}") from error
    if manifest.format != FORMAT:
        raise BackupError(f"{folder} has format {manifest.format}; this version reads {FORMAT}")
    found = await asyncio.to_thread(parts.digests, folder)
    wrong = sorted(name for name in {*manifest.files, *found} if manifest.files.get(name) != found.get(name))
    if wrong:
        raise BackupError(f"{len(wrong)} files are missing, changed or too many; the first is {wrong[0]}")
    return manifest


async def restore(settings: Settings, folder: Path, passphrase: str | None) -> Manifest:
    """Put a backup back where nothing is yet, its log verified. Raises BackupError, StoreUnavailable.

    A store on PostgreSQL goes into the empty database of the settings. Keys come from the backup, by its passphrase, or
    must lie in their places already.
    """
    manifest = await check(folder)
    data = settings.data.resolve()
    if manifest.store != make_url(settings.sql_url).get_backend_name():
        raise BackupError(f"the backup's store is {manifest.store}, the installation's is another")
    if manifest.store == "sqlite" and settings.database_url is not None:
        raise BackupError("a SQLite store is put back into the data folder: unset GATEHOUSE_DATABASE_URL")
    if manifest.with_keys and passphrase is None:
        raise BackupError("the backup holds its keys under a passphrase: give it")
    taken = [name for name in (STORE, TEMPORAL, BLOBS, "anchor") if (data / name).exists()]
    taken += ["keys"] if manifest.with_keys and (data / "keys").exists() else []
    if taken:
        raise BackupError(f"{data} holds {', '.join(taken)} already: nothing is overwritten")
    if manifest.store == "postgresql":
        await asyncio.to_thread(parts.check_empty, settings.sql_url)
    staging = restoring(settings)
    try:
        staging.mkdir(parents=True, mode=0o700)
    except FileExistsError:
        raise BackupError(
            f"{staging} exists: another restore is under way, or was cut off; then remove what it had put into {data}"
        ) from None
    try:
        await _put_back(settings, folder, staging, manifest, passphrase)
    finally:
        # Last of all: nothing starts while it is there. A kill leaves it.
        await asyncio.to_thread(shutil.rmtree, staging, ignore_errors=True)
    return manifest


async def _put_back(
    settings: Settings, folder: Path, staging: Path, manifest: Manifest, passphrase: str | None
) -> None:
    """All of it, or nothing: what was put into the database and the data folder is taken away when the rest fails."""
    moved: list[Path] = []
    try:
        await _stage(settings, folder, staging, manifest, passphrase)
        for name in sorted(os.listdir(staging)):
            (staging / name).rename(staging.parent / name)
            moved.append(staging.parent / name)
    except BaseException as error:
        for path in moved:
            await asyncio.to_thread(_take_back, path)
        if manifest.store == "postgresql":
            await asyncio.to_thread(parts.empty_postgres, settings.sql_url)
        if isinstance(error, OSError | tarfile.TarError):
            raise BackupError(str(error)) from error
        raise


def _take_back(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink()


async def _stage(settings: Settings, folder: Path, staging: Path, manifest: Manifest, passphrase: str | None) -> None:
    def copied() -> None:
        for name in manifest.files:
            if name not in (KEYS, DUMP) and (settings.artifacts is None or not name.startswith(f"{BLOBS}/")):
                target = staging / name
                target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                shutil.copyfile(folder / name, target)
                target.chmod(0o600)
        if manifest.with_keys and passphrase is not None:
            parts.open_keys((folder / KEYS).read_bytes(), passphrase, staging / "keys")

    await asyncio.to_thread(copied)
    keys = staging / "keys" if manifest.with_keys else settings.keys
    url = f"sqlite:///{staging / STORE}"
    if manifest.store != "sqlite":
        url = settings.sql_url
        await asyncio.to_thread(parts.restore_postgres, url, folder / DUMP)
    log = await parts.verified(url, keys, staging / ANCHOR)
    # A dump is taken after its log was verified, and may hold more.
    more = manifest.store != "sqlite" and log.count > manifest.audit_count
    if log.anchored < manifest.anchored:
        raise BackupError(f"checkpoints vouch for {log.anchored} records where they did for {manifest.anchored}")
    if not more and (log.count, log.head) != (manifest.audit_count, manifest.audit_head):
        raise BackupError(f"the log has {log.count} records where {manifest.audit_count} were copied, or another head")
    if settings.artifacts is not None:
        await parts.put_blobs(folder / BLOBS, open_backend(settings))
