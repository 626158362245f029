"""SQLite connections whose statements take one trip to the connection's thread.

The driver runs SQLite in a thread of its own. Making a cursor, executing, fetching and closing would be four trips
there and back for each statement; in a transaction of a few short statements that costs more than the disk.
"""

import sqlite3
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Self

import aiosqlite
from typing_extensions import override


def connector(path: Path, timeout_s: float, pragmas: Sequence[str]) -> Callable[[], Awaitable[aiosqlite.Connection]]:
    """What opens connections to `path` with these pragmas set, waiting up to `timeout_s` for other processes' locks.

    Transactions are left to the caller (`BEGIN IMMEDIATE`): the driver begins none by itself.
    """

    def connect() -> sqlite3.Connection:
        # The engine hands the connection to one thread at a time.
        connection = sqlite3.connect(path, timeout=timeout_s, isolation_level=None, check_same_thread=False)
        try:
            for pragma in pragmas:
                connection.execute(f"PRAGMA {pragma}")
        except BaseException:
            connection.close()
            raise
        return connection

    async def opened() -> aiosqlite.Connection:
        return await _Connection(connect)

    return opened


class _Connection(aiosqlite.Connection):
    """As the driver's, with cursors of our own."""

    def __init__(self, connect: Callable[[], sqlite3.Connection]) -> None:
        super().__init__(connect, iter_chunk_size=64)
        # A process that ends without closing must not wait for this thread for ever.
        self._thread.daemon = True

    @override
    def cursor(self) -> Any:
        return _Cursor(self)

    async def run(self, work: Callable[[sqlite3.Connection], "_Done"]) -> "_Done":
        """Run `work` in the connection's thread."""
        return await self._execute(partial(work, self._conn))  # pyright: ignore[reportUnknownMemberType]


class _Done:
    """What a statement left behind."""

    def __init__(self, cursor: sqlite3.Cursor) -> None:
        self.rows = cursor.fetchall() if cursor.description else []
        self.description = cursor.description
        self.rowcount = cursor.rowcount
        self.lastrowid = cursor.lastrowid
        cursor.close()


class _Cursor:
    """The part of a cursor that SQLAlchemy's adapter uses."""

    arraysize = 1

    def __init__(self, connection: _Connection) -> None:
        self._connection = connection
        self._rows: list[Any] = []
        self.description: Any = None
        self.rowcount = -1
        self.lastrowid: int | None = None

    async def __aenter__(self) -> Self:
        return self

    async def execute(self, statement: str, parameters: Sequence[Any] = ()) -> Self:
        return self._take(await self._connection.run(lambda c: _Done(c.execute(statement, parameters))))

    async def executemany(self, statement: str, parameters: Iterable[Sequence[Any]]) -> Self:
        return self._take(await self._connection.run(lambda c: _Done(c.executemany(statement, parameters))))

    async def fetchall(self) -> list[Any]:
        rows, self._rows = self._rows, []
        return rows

    async def close(self) -> None:
        self._rows = []

    def _take(self, done: _Done) -> Self:
        self._rows, self.description = done.rows, done.description
        self.rowcount, self.lastrowid = done.rowcount, done.lastrowid
        return self
