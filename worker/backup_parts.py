"""How each part of an installation is copied and put back; worker/backup.py says in which order and when not at all."""

import asyncio
import hashlib
import io
import os
import shutil
import sqlite3
import subprocess
import tarfile
from collections.abc import Generator
from contextlib import closing, contextmanager
from pathlib import Path

import psycopg
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt
from sqlalchemy.engine import make_url

from worker.encryption import key_file
from worker.settings import Settings
from worker.store import anchor, checkpoints
from worker.store.audit import AuditLog
from worker.store.blobs_backend import BlobBackend
from worker.store.checking import Verification
from worker.store.database import Database

MANIFEST = "manifest.json"
_MARK = b"GHK1"
_SALT_BYTES, _NONCE_BYTES = 16, 12
_SCRYPT_N = 1 << 16  # 64 MB for each guess
_DUMP_S = 3600


class BackupError(Exception):
    """The backup was not taken or not put back; the message says why. What was there is as it was."""


def copy_sqlite(source: Path, target: Path) -> None:
    """A consistent copy of a database that others are writing to. Raises sqlite3.Error, BackupError."""
    with (
        closing(sqlite3.connect(f"file:{source}?mode=ro", uri=True, timeout=60)) as live,
        closing(sqlite3.connect(target)) as copy,
    ):
        live.backup(copy)
        # One file: no journal that could be forgotten.
        copy.execute("PRAGMA journal_mode=DELETE")
        found = copy.execute("PRAGMA quick_check(1)").fetchone()
    if found != ("ok",):
        raise BackupError(f"{source} is damaged: {found}")
    target.chmod(0o600)


def dump_postgres(url: str, target: Path) -> None:
    """The store by pg_dump, in its own format. Raises BackupError."""
    _postgres("pg_dump", url, "--format=custom", "--no-owner", "--file", str(target))
    target.chmod(0o600)


def restore_postgres(url: str, source: Path) -> None:
    """The store by pg_restore, into an empty database: all of it, or BackupError and nothing."""
    _postgres("pg_restore", url, "--single-transaction", "--exit-on-error", "--no-owner", str(source))


def check_empty(url: str) -> None:
    """Raise BackupError unless the database has nothing in it."""
    with _connected(url) as conn:
        found = [row[0] for row in conn.execute(_OBJECTS)]
    if found:
        raise BackupError(f"the database holds {len(found)} objects already ({found[0]}): nothing is overwritten")


def empty_postgres(url: str) -> None:
    """Take away what was put into a database that was empty."""
    with _connected(url) as conn:
        for (drop,) in conn.execute(_OBJECTS).fetchall():
            conn.execute(str(drop).encode())


_OBJECTS = b"""
SELECT format('DROP TABLE IF EXISTS %s CASCADE', c.oid::regclass) FROM pg_class c
WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p')
UNION ALL
SELECT format('DROP FUNCTION IF EXISTS %s CASCADE', p.oid::regprocedure) FROM pg_proc p
WHERE p.pronamespace = 'public'::regnamespace
AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = p.oid AND d.deptype = 'e')
"""
"""What removes each table and function of the database's own."""


@contextmanager
def _connected(url: str) -> Generator[psycopg.Connection]:
    plain = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
    try:
        with psycopg.connect(plain, connect_timeout=10) as conn:
            yield conn
    except psycopg.Error as error:
        raise BackupError(f"the database: {error}") from error


def _postgres(name: str, url: str, *arguments: str) -> None:
    program = shutil.which(name)
    if program is None:
        raise BackupError(f"{name} is not installed: the store is PostgreSQL")
    parsed = make_url(url)
    # The password goes by the environment: a command line is everybody's to read.
    plain = parsed.set(drivername="postgresql", password=None).render_as_string(hide_password=False)
    env = {**os.environ, **({"PGPASSWORD": str(parsed.password)} if parsed.password else {})}
    done = subprocess.run(  # noqa: S603  (no shell; the address is the operator's own)
        [program, "--dbname", plain, *arguments],
        env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_DUMP_S, check=False,
    )  # fmt: skip
    if done.returncode:
        raise BackupError(f"{name}: {done.stderr.strip()[-500:]}")


def copy_anchor(source: Path, target: Path) -> None:
    """Every whole line of the anchor; one may be on its way."""
    lines = source.read_bytes()
    write(target, lines[: lines.rfind(b"\n") + 1])


async def copy_blobs(source: BlobBackend, folder: Path) -> None:
    """Every blob as it lies there."""
    async for found in source.list():
        path = folder / found.name[:2] / found.name[2:4] / found.name
        await asyncio.to_thread(path.parent.mkdir, parents=True, exist_ok=True, mode=0o700)
        with open(path, "xb", opener=_private) as file:  # noqa: ASYNC230  (opening is quick; writing is in a thread)
            async for chunk in source.open(found.name):
                await asyncio.to_thread(file.write, chunk)


async def put_blobs(folder: Path, target: BlobBackend) -> None:
    """Every blob of a backup into another backend."""
    await asyncio.to_thread(target.spool.mkdir, parents=True, exist_ok=True, mode=0o700)
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):  # noqa: ASYNC240  (nothing else runs)
        spooled = target.spool / f"restore-{path.name}"
        await asyncio.to_thread(shutil.copyfile, path, spooled)
        try:
            await target.put(path.name, spooled)
        finally:
            spooled.unlink(missing_ok=True)


def seal_keys(settings: Settings, passphrase: str) -> bytes:
    """The keys folder and the given data keys, under the passphrase."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        if settings.keys.exists():
            for path in sorted(path for path in settings.keys.iterdir() if path.is_file()):
                archive.add(path, path.name, recursive=False)
        if settings.encryption_keys is not None:
            archive.add(key_file(settings), "data.keys", recursive=False)
    salt, nonce = os.urandom(_SALT_BYTES), os.urandom(_NONCE_BYTES)
    return _MARK + salt + nonce + AESGCM(_stretched(passphrase, salt)).encrypt(nonce, packed.getvalue(), _MARK)


def open_keys(sealed: bytes, passphrase: str, target: Path) -> None:
    """Put the keys into a new folder. Raises BackupError for a wrong passphrase."""
    body = sealed.removeprefix(_MARK)
    salt, nonce = body[:_SALT_BYTES], body[_SALT_BYTES : _SALT_BYTES + _NONCE_BYTES]
    try:
        packed = AESGCM(_stretched(passphrase, salt)).decrypt(nonce, body[_SALT_BYTES + _NONCE_BYTES :], _MARK)
    except (InvalidTag, ValueError) as error:
        raise BackupError("the passphrase is not the backup's") from error
    target.mkdir(mode=0o700)
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        archive.extractall(target, filter="data")


def _stretched(passphrase: str, salt: bytes) -> bytes:
    return Scrypt(salt=salt, length=32, n=_SCRYPT_N, r=8, p=1).derive(passphrase.encode())


async def verified(url: str, keys: Path, anchor_file: Path) -> Verification:
    """The log of a store, against its chain and what its anchor vouches for. Raises BackupError, StoreUnavailable."""
    try:
        vouched = await asyncio.to_thread(_vouched, keys, anchor_file)
    except (anchor.AnchorError, ValueError, OSError) as error:
        raise BackupError(f"the anchor {anchor_file}: {error}") from error
    db = Database(url)
    try:
        found = await AuditLog(db).verify(vouched)
    finally:
        await db.close()
    if not found.ok:
        raise BackupError(f"the audit log does not verify from record {found.first_bad} on: {found.problem}")
    return found


def _vouched(keys: Path, anchor_file: Path) -> anchor.Vouched:
    known = checkpoints.public_keys(keys)
    return anchor.read(anchor_file, known) if known and anchor_file.exists() else anchor.Vouched()


def digests(folder: Path) -> dict[str, str]:
    """Path -> hex SHA-256 of every file but the manifest."""
    found: dict[str, str] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise BackupError(f"{path} is no plain file")
        if path.is_file() and path.name != MANIFEST:
            with path.open("rb") as file:
                found[str(path.relative_to(folder))] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


def write(path: Path, data: bytes) -> None:
    """A new private file, on disk when it returns."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with open(path, "xb", opener=_private) as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _private(name: str, flags: int) -> int:
    return os.open(name, flags, 0o600)
