"""Reads the stored log from end to end, fast: straight from the driver, in the thread that asks.

Batches by number, so that no long read holds anything up and appends may go on meanwhile.
"""

import sqlite3
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from typing import Any, NamedTuple

import psycopg
from psycopg.rows import tuple_row

from worker.store.chain import Envelope, envelope_bytes
from worker.store.checking import BadRecord
from worker.store.database import LOCK_TIMEOUT_S, Database, StoreUnavailable
from worker.store.lines import Entry, new

_BATCH = 1000
"""More would not stay in the processor's cache until they are hashed."""
# Any number will do, as long as every process uses the same.
_ALONE = f"SELECT pg_advisory_lock({0x616E63686F72})"
# By the key, in order: a planner that knows nothing of the table yet would sort what is left of it for each batch.
_IN_ORDER = f"-c lock_timeout={LOCK_TIMEOUT_S}s -c enable_seqscan=off -c enable_bitmapscan=off -c enable_sort=off"
_COLUMNS = "seq, leaf_hash, chain_hash, event_id, ts, tenant, run_id, run_seq, type, actor, body"


class Head(NamedTuple):
    """Where the log ends."""

    seq: int
    chain: bytes
    newest: int | None
    """The largest number of any record, which is the head's unless somebody meddled."""


class Reader:
    """A connection for reading the log. Not for use by two threads at once."""

    def __init__(self, query: "_Query") -> None:
        self._query = query

    def alone(self) -> None:
        """Wait until nobody else holds this, on any machine, and hold it until the connection ends, however it does.

        For what is done to the log's anchor by one at a time. SQLite is on one machine, and the anchor has a lock.
        """
        self._query(_ALONE, ())

    def head(self) -> Head | None:
        """The head row, and the newest record as of the same moment; None when the row is missing."""
        rows = self._query(
            "SELECT seq, chain_hash, (SELECT max(seq) FROM audit_event) FROM audit_head WHERE id = 1", ()
        )
        return Head(rows[0][0], bytes(rows[0][1]), rows[0][2]) if rows else None

    def rows(self, after: int | None, last: int) -> Iterator[list[tuple[Any, ...]]]:
        """Batches of rows with `after` < seq <= `last`, in order. None begins with whatever there is."""
        while True:
            start = -(2**63) if after is None else after
            found = self._query(
                f"SELECT {_COLUMNS} FROM audit_event WHERE seq > ? AND seq <= ? ORDER BY seq LIMIT {_BATCH}",  # noqa: S608
                (start, last),
            )
            if found:
                yield found
            if len(found) < _BATCH:
                return
            after = found[-1][0]

    def entries(self, after: int | None, last: int) -> Iterator[Entry]:
        """The records of these rows, for a check. Raises BadRecord for one that cannot be read."""
        for batch in self.rows(after, last):
            for seq, leaf, chained, *hashed in batch:
                try:
                    envelope: Envelope = new(Envelope, hashed)
                    whole = envelope_bytes(envelope)
                    leaf, chained = bytes(leaf), bytes(chained)
                except (TypeError, ValueError, AttributeError) as error:
                    # SQLite stores whatever type it is given, so a forged column need not even be text.
                    raise BadRecord(seq, f"the record cannot be read: {error}") from error
                event_id, ts, _, run_id, run_seq, type_, _, _ = envelope
                yield new(Entry, (seq, whole, leaf, chained, event_id, run_id, run_seq, ts, type_))


class _Query:
    """Runs a statement with `?` for its parameters."""

    def __init__(self, connection: sqlite3.Connection | psycopg.Connection[Any]) -> None:
        self._connection = connection

    def __call__(self, statement: str, parameters: tuple[Any, ...]) -> list[tuple[Any, ...]]:
        if isinstance(self._connection, sqlite3.Connection):
            if statement == _ALONE:
                return []
            return self._connection.execute(statement, parameters).fetchall()
        with self._connection.cursor(binary=True, row_factory=tuple_row) as cursor:
            return cursor.execute(statement.replace("?", "%s").encode(), parameters).fetchall()


@contextmanager
def reading(db: Database) -> Generator[Reader]:
    """A reader of the store's log. Blocks: use it in a thread. Raises StoreUnavailable."""
    try:
        if db.sqlite_path is not None:
            # As a URI, because opening must not create the file.
            connection = sqlite3.connect(f"{db.sqlite_path.as_uri()}?mode=rw", uri=True, timeout=15)
            with closing(connection):
                connection.execute("PRAGMA query_only=ON")
                yield Reader(_Query(connection))
        else:
            with psycopg.connect(db.libpq_url or "", autocommit=True, connect_timeout=5, options=_IN_ORDER) as server:
                yield Reader(_Query(server))
    except (sqlite3.OperationalError, sqlite3.DatabaseError, psycopg.Error) as fault:
        raise StoreUnavailable(f"{type(fault).__name__}: {str(fault).strip()[:300]}") from fault
