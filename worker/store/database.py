"""One process's access to the store: SQLite in a file, or PostgreSQL, behind the same few calls.

Several processes use one store at the same time. On SQLite every write transaction begins with BEGIN IMMEDIATE, so it
never fails half-way for want of the lock; on PostgreSQL rows that matter are locked by the statements themselves.
A commit is durable when it returns (SQLite: WAL with synchronous=FULL; PostgreSQL: synchronous_commit=on).
"""

import errno
import os
import sqlite3
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import psycopg
import sqlalchemy as sa
from pydantic import JsonValue
from sqlalchemy import event, exc
from sqlalchemy.dialects import postgresql
from sqlalchemy.dialects import sqlite as sqlite_dialect
from sqlalchemy.engine import URL, Connection, make_url
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool

from policies.redaction import redact_all
from worker.store import migration, postgres, sqlite, tenants
from worker.store.keyring import Keyring

LOCK_TIMEOUT_S = 15
"""How long a transaction waits for another process's lock before the store counts as unavailable."""
_READERS = 4
_POSTGRES_CONNECTIONS = 10
_CONNECTING = {
    "options": f"-c synchronous_commit=on -c lock_timeout={LOCK_TIMEOUT_S}s -c timezone=UTC {tenants.AT_START}",
    "application_name": "gatehouse",
    "connect_timeout": 5,
}
# Errors that mean "cannot be done now", as against a mistake in a statement. sqlite3 says DatabaseError for a damaged
# file; psycopg puts deadlock, serialisation failure and a lost server under OperationalError.
_DRIVER_FAULTS = (
    sqlite3.OperationalError, psycopg.OperationalError, psycopg.InterfaceError, psycopg.errors.UndefinedTable,
)  # fmt: skip
_FAULTS = (exc.OperationalError, exc.InterfaceError, exc.TimeoutError, exc.DisconnectionError)


Redact = Callable[[JsonValue], JsonValue]
"""Takes what is private out of a JSON value; a string stays a string, an object an object."""


class StoreUnavailable(Exception):  # noqa: N818  (says what is the case)
    """The database cannot be used now (gone, locked, full, not migrated). Nothing of the transaction was kept, unless
    the fault came while committing: then nobody knows, which is why every write here may be repeated."""


class StoreFull(StoreUnavailable):
    """There is no room left where the store lies. Once there is, everything goes on."""


def unavailable(fault: BaseException, words: str) -> StoreUnavailable:
    """What to raise for a fault of the database or of a disk; `words` are what the caller is told."""
    full = isinstance(fault, psycopg.errors.DiskFull) or getattr(fault, "errno", None) in _NO_ROOM
    full = full or getattr(fault, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL
    return StoreFull(words) if full else StoreUnavailable(words)


_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


class Database:
    """Opens connections lazily; one instance per process and event loop, shared by everything in it."""

    def __init__(self, url: str, keyring: Keyring | None = None, *, redact: Redact = redact_all) -> None:
        """`url` is `sqlite+aiosqlite:///<path>` or `postgresql+psycopg://...` (the driver may be left out). Without a
        keyring, columns that hold what runs work with (`worker.store.sealing`) can be neither read nor written.
        `redact` cleans what people wrote before it goes into the log, the outbox or a name.

        Raises ValueError for any other database, and for SQLite in memory: other processes could not see it.
        """
        self.keyring = keyring
        self.redact = redact
        parsed = make_url(url)
        if parsed.get_backend_name() == "sqlite":
            self._url = parsed.set(drivername="sqlite+aiosqlite")
            self.sqlite_path: Path | None = (path := _sqlite_path(self._url))
            self._writer, self._reader = _sqlite_engines(self._url, path)
            self._server: postgres.Server | None = None
        elif parsed.get_backend_name() == "postgresql":
            self._url = parsed.set(drivername="postgresql+psycopg")
            self.sqlite_path = None
            self._writer, self._reader = _postgres_engines(self._url)
            self._server = postgres.Server(self.libpq_url or "", **_CONNECTING)
        else:
            raise ValueError(f"database {parsed.get_backend_name()!r} is not supported: use sqlite or postgresql")

    @property
    def dialect(self) -> str:
        """`sqlite` or `postgresql`."""
        return self._url.get_backend_name()

    @property
    def libpq_url(self) -> str | None:
        """What a bare PostgreSQL connection is opened with, password included; None on SQLite."""
        if self.sqlite_path is not None:
            return None
        return self._url.set(drivername="postgresql").render_as_string(hide_password=False)

    @asynccontextmanager
    async def begin(self) -> AsyncGenerator[AsyncConnection]:
        """One write transaction: committed, durably, when the block ends; rolled back when it raises.

        Lock order, to keep PostgreSQL free of deadlocks: rows first, the audit head (`AuditLog.append`) last.
        Raises StoreUnavailable.
        """
        with _store_faults():
            async with self._writer.begin() as conn:
                await tenants.declare(conn)
                yield conn

    @asynccontextmanager
    async def driver(self) -> AsyncGenerator[Any]:
        """A connection whose `run` does work in its thread, for whoever begins and ends a transaction in one trip.

        On SQLite it is the writing one, on PostgreSQL one for this alone. Raises StoreUnavailable.
        """
        with _store_faults():
            if self._server is not None:
                yield self._server
                return
            async with self._writer.connect() as conn:
                yield (await conn.get_raw_connection()).driver_connection

    @asynccontextmanager
    async def read(self) -> AsyncGenerator[AsyncConnection]:
        """A connection for reading; each statement sees what is committed when it starts. Raises StoreUnavailable."""
        if tenants.narrowed() and self.sqlite_path is None:
            # Whose rows may be seen is told for a transaction: it cannot be left behind on a pooled connection.
            async with self.begin() as conn:
                yield conn
            return
        with _store_faults():
            async with self._reader.connect() as conn:
                yield conn

    async def migrate(self) -> None:
        """Bring the schema up to date, creating the database file if needed. Several processes may do so at once.

        Raises StoreUnavailable; RuntimeError when the database was written by a newer version.
        """
        with _store_faults():
            if self.sqlite_path is not None:
                try:
                    _create_private(self.sqlite_path)
                except OSError as fault:
                    raise unavailable(fault, f"{self.sqlite_path}: {fault}") from fault
            async with migration.serialised(self.sqlite_path), self._writer.begin() as conn:
                await conn.run_sync(migration.upgrade)

    async def check(self) -> None:
        """Raise StoreUnavailable unless the database answers and its schema is the one this code needs."""
        async with self.read() as conn:
            found = await conn.run_sync(migration.current)
        if found != migration.HEAD:
            raise StoreUnavailable(f"the schema is at {found!r}, this version needs {migration.HEAD!r}: run migrate")

    async def close(self) -> None:
        """Close every connection. The instance must not be used afterwards."""
        if self._server is not None:
            await self._server.close()
        await self._writer.dispose()
        await self._reader.dispose()


async def insert_if_absent(conn: AsyncConnection, table: sa.Table, values: dict[str, Any]) -> bool:
    """Insert a row unless its primary key is taken; says whether it did. A taken row is left as it is."""
    dialect = sqlite_dialect if conn.dialect.name == "sqlite" else postgresql
    keys = list(table.primary_key.columns)
    statement = dialect.insert(table).values(values).on_conflict_do_nothing(index_elements=keys)
    # RETURNING, because drivers do not agree on the row count of an INSERT.
    return (await conn.execute(statement.returning(keys[0]))).first() is not None


@contextmanager
def _store_faults() -> Generator[None]:
    """Turn what the drivers raise when the database cannot be used into StoreUnavailable."""
    try:
        yield
    except (*_FAULTS, *_DRIVER_FAULTS) as fault:
        raise _unavailable(fault) from fault
    except sqlite3.DatabaseError as fault:
        if type(fault) is sqlite3.DatabaseError:
            raise _unavailable(fault) from fault
        raise
    except exc.DBAPIError as fault:
        # IntegrityError and its kin are mistakes or races that callers handle; a broken connection or a damaged file
        # is neither.
        if fault.connection_invalidated or type(fault) is exc.DatabaseError or _undefined_table(fault):
            raise _unavailable(fault) from fault
        raise


def _undefined_table(fault: exc.DBAPIError) -> bool:
    return getattr(fault.orig, "sqlstate", None) == "42P01"


def _unavailable(fault: BaseException) -> StoreUnavailable:
    """With the driver's own words, without the statement and its parameters: those may hold data."""
    orig = (fault.orig if isinstance(fault, exc.DBAPIError) else fault) or fault
    return unavailable(orig, f"{type(orig).__name__}: {str(orig).strip()[:300]}")


def _sqlite_path(url: URL) -> Path:
    if not url.database or url.database == ":memory:" or url.database.startswith("file:"):
        raise ValueError("SQLite needs a plain file: other processes could not see a database in memory")
    return Path(url.database).resolve()


def _create_private(path: Path) -> None:
    """The database file, readable by its owner only; SQLite gives its WAL the same mode."""
    path.parent.mkdir(parents=True, exist_ok=True)
    os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))


def _sqlite_engines(url: URL, path: Path) -> tuple[AsyncEngine, AsyncEngine]:
    """One writing connection (waiting in line beats retrying a busy lock) and some reading ones."""
    line = {"poolclass": AsyncAdaptedQueuePool, "max_overflow": 0, "pool_timeout": 2 * LOCK_TIMEOUT_S}
    # recursive_triggers: without it REPLACE deletes rows behind the back of a DELETE trigger. secure_delete: what was
    # deleted or replaced does not stay in the file.
    writing = (
        "journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "recursive_triggers=ON", "secure_delete=ON",
    )  # fmt: skip
    writer = create_async_engine(
        url, pool_size=1, async_creator=sqlite.connector(path, LOCK_TIMEOUT_S, writing),
        # `begin` ends every transaction it starts; one more ROLLBACK on return would be a trip for nothing.
        pool_reset_on_return=None, **line,
    )  # fmt: skip
    event.listen(writer.sync_engine, "begin", _begin_immediate)
    reader = create_async_engine(
        url, pool_size=_READERS, async_creator=sqlite.connector(path, LOCK_TIMEOUT_S, ("query_only=ON",)),
        skip_autocommit_rollback=True, isolation_level="AUTOCOMMIT", **line,
    )  # fmt: skip
    return writer, reader


def _begin_immediate(conn: Connection) -> None:
    conn.exec_driver_sql("BEGIN IMMEDIATE")


def _postgres_engines(url: URL) -> tuple[AsyncEngine, AsyncEngine]:
    """One pool; reads run outside transactions, which saves two round trips each."""
    writer = create_async_engine(
        url, pool_size=_POSTGRES_CONNECTIONS, max_overflow=0, pool_timeout=2 * LOCK_TIMEOUT_S,
        connect_args=_CONNECTING,
    )  # fmt: skip
    return writer, writer.execution_options(isolation_level="AUTOCOMMIT")
