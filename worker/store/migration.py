"""Runs the Alembic migrations from inside the product: no command line, no configuration file."""

import asyncio
import fcntl
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.util import CommandError
from sqlalchemy.engine import Connection

HEAD = "0011"
"""The revision this version of the code works with; a test compares it with the newest migration."""
_SCRIPTS = Path(__file__).parent / "migrations"
# Any constant will do, as long as every process uses the same: PostgreSQL's advisory locks are plain numbers.
_ADVISORY_LOCK = 0x6761746568


@asynccontextmanager
async def serialised(sqlite_path: Path | None) -> AsyncGenerator[None]:
    """Let one process at a time migrate a SQLite file. The lock goes with its holder, however that ends.

    A file lock, because switching a fresh file to WAL is not covered by SQLite's own waiting. PostgreSQL needs nothing
    here: `upgrade` takes an advisory lock inside its transaction.
    """
    if sqlite_path is None:
        yield
        return
    with sqlite_path.with_name(sqlite_path.name + ".migrating").open("wb") as lock:
        await asyncio.to_thread(fcntl.flock, lock, fcntl.LOCK_EX)
        yield


def upgrade(conn: Connection) -> None:
    """Upgrade to HEAD in the open transaction. Raises RuntimeError when the database is newer than this code."""
    if conn.dialect.name == "postgresql":
        conn.execute(sa.text("SELECT pg_advisory_xact_lock(:key)"), {"key": _ADVISORY_LOCK})
    if current(conn) == HEAD:
        return
    config = Config()
    config.set_main_option("script_location", str(_SCRIPTS).replace("%", "%%"))
    config.attributes["connection"] = conn
    try:
        command.upgrade(config, "head")
    except CommandError as error:
        raise RuntimeError(f"this version cannot use the database: {error}") from error


def current(conn: Connection) -> str | None:
    """The revision the database is at; None when it is empty."""
    return MigrationContext.configure(conn).get_current_revision()
