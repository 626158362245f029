"""A PostgreSQL connection in a thread of its own, where a whole transaction is one trip there and back.

On an event loop each answer of the server costs turns of the loop: for a transaction of a few short statements more
processor time than the statements. A thread waits for the socket itself, and the loop goes on meanwhile. For the same
reason statements go through libpq's own calls, which psycopg offers as `psycopg.pq`: a cursor and a pipeline for a
handful of short statements cost more processor time than all the rest that this side does for them.
"""

import asyncio
import re
import select
import threading
import weakref
from collections.abc import Callable, Mapping
from queue import SimpleQueue
from typing import Any, NamedTuple, TypeVar

import psycopg
from psycopg import pq

_TYPES = psycopg.adapters.types
_INTEGERS = frozenset(_TYPES[name].oid for name in ("int2", "int4", "int8"))
_TEXT = _TYPES["text"].oid
_BYTES = _TYPES["bytea"].oid


class Statement(NamedTuple):
    """A statement that is prepared once per connection, under a name of its own."""

    name: bytes
    text: bytes
    parameters: tuple[str, ...]

    @classmethod
    def of(cls, name: str, text: str) -> "Statement":
        """`text` has its parameters as `:name`."""
        found = tuple(dict.fromkeys(_PARAMETER.findall(text)))
        numbered = _PARAMETER.sub(lambda one: f"${found.index(one[1]) + 1}", text)
        return cls(name.encode(), numbered.encode(), found)


_PARAMETER = re.compile(r"(?<!:):([a-z_]+)")


class Connection:
    """A connection that takes several statements in one trip. For one thread at a time, and done for once it raises."""

    def __init__(self, opened: "psycopg.Connection[Any]") -> None:
        self._opened = opened
        self._pq = opened.pgconn
        self._prepared: set[bytes] = set()
        self._poll = select.poll()
        self._poll.register(self._pq.socket, select.POLLIN)

    def close(self) -> None:
        """What is not committed is undone by the server."""
        self._opened.close()

    def trip(self, *asked: tuple[Statement, Mapping[str, Any]]) -> list[list[tuple[Any, ...]]]:
        """The rows of each of these different statements, sent together; columns and parameters are integers, texts and
        bytes.

        Raises psycopg.Error with the words of the first statement that failed; those after it were not run.
        """
        self._pq.enter_pipeline_mode()
        new = {statement.name for statement, _ in asked} - self._prepared
        for statement, values in asked:
            if statement.name in new:
                self._pq.send_prepare(statement.name, statement.text)
            given = [values[name] for name in statement.parameters]
            self._pq.send_query_prepared(
                statement.name,
                [value if isinstance(value, bytes) else str(value).encode() for value in given],
                [pq.Format.BINARY if isinstance(value, bytes) else pq.Format.TEXT for value in given],
                pq.Format.BINARY,
            )
        self._pq.pipeline_sync()
        self._send()
        found: list[list[tuple[Any, ...]]] = []
        for statement, _ in asked:
            if statement.name in new:
                _whole(self._result())
            found.append(_rows(self._result()))
        self._next()
        self._pq.exit_pipeline_mode()
        self._prepared |= new
        return found

    def _send(self) -> None:
        """What the socket did not take at once."""
        while self._pq.flush():
            self._poll.modify(self._pq.socket, select.POLLIN | select.POLLOUT)
            self._poll.poll()
            self._poll.modify(self._pq.socket, select.POLLIN)
            self._pq.consume_input()

    def _result(self) -> pq.abc.PGresult:
        """Of the next statement; libpq says with None that there are no more of it."""
        if (found := self._next()) is None or self._next() is not None:
            raise psycopg.InterfaceError("a statement has not exactly one result")
        return found

    def _next(self) -> pq.abc.PGresult | None:
        # Waiting inside libpq would stop every thread of the process.
        while self._pq.is_busy():
            self._poll.poll()
            self._pq.consume_input()
        return self._pq.get_result()


def _rows(result: pq.abc.PGresult) -> list[tuple[Any, ...]]:
    columns = [(number, _READ[result.ftype(number)]) for number in range(_whole(result).nfields)]
    return [
        tuple(None if (value := result.get_value(row, column)) is None else read(value) for column, read in columns)
        for row in range(result.ntuples)
    ]


def _whole(result: pq.abc.PGresult) -> pq.abc.PGresult:
    if result.status in (pq.ExecStatus.COMMAND_OK, pq.ExecStatus.TUPLES_OK):
        return result
    state = (result.error_field(pq.DiagnosticField.SQLSTATE) or b"").decode()
    words = result.error_field(pq.DiagnosticField.MESSAGE_PRIMARY) or result.error_message
    try:
        kind = psycopg.errors.lookup(state)
    except KeyError:  # a lost server has no state
        kind = psycopg.OperationalError
    raise kind(words.decode(errors="replace").strip())


def _integer(value: bytes) -> int:
    return int.from_bytes(value, "big", signed=True)


_READ: dict[int, Callable[[bytes], Any]] = {_TEXT: bytes.decode, _BYTES: bytes, **dict.fromkeys(_INTEGERS, _integer)}

_Found = TypeVar("_Found")
_Job = Callable[[Connection], Any]
_Jobs = SimpleQueue[tuple[_Job, "asyncio.Future[Any]"] | None]


class Server:
    """One connection, opened when it is first needed. What is run on it waits in line."""

    def __init__(self, url: str, **connecting: Any) -> None:
        """`connecting`: options of `psycopg.connect`. The connection is in autocommit: who wants a transaction begins
        and ends it."""
        self._connect = lambda: Connection(psycopg.connect(url, autocommit=True, **connecting))
        self._jobs: _Jobs = SimpleQueue()
        self._thread: threading.Thread | None = None
        # Dropped without being closed, it leaves no connection behind. The thread knows the jobs, not this object.
        self._ending = weakref.finalize(self, self._jobs.put, None)

    async def run(self, work: Callable[[Connection], _Found]) -> _Found:
        """Run `work` in the connection's thread. If it raises, the connection is closed and the next one opened anew.

        A caller that is cancelled stops nothing. Raises psycopg.Error, and what `work` raises.
        """
        if self._thread is None:
            # A daemon: a process that ends without closing must not wait for the server for ever.
            self._thread = threading.Thread(
                target=_serve, args=(self._connect, self._jobs), name="postgresql", daemon=True
            )
            self._thread.start()
        done: asyncio.Future[_Found] = asyncio.get_running_loop().create_future()
        self._jobs.put((work, done))
        return await done

    async def close(self) -> None:
        """Close the connection, after what was asked for before. Nothing can be run afterwards."""
        self._ending()
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join)


def _serve(connect: Callable[[], Connection], jobs: _Jobs) -> None:
    """The thread: one job after the other, until there is None."""
    connection: Connection | None = None
    while (job := jobs.get()) is not None:
        work, done = job
        try:
            if connection is None:
                connection = connect()
            answer: tuple[Any, BaseException | None] = (work(connection), None)
        except BaseException as fault:  # noqa: BLE001  (it belongs to whoever waits)
            if connection is not None:
                connection.close()
                connection = None
            answer = (None, fault)
        try:
            done.get_loop().call_soon_threadsafe(_tell, done, *answer)
        except RuntimeError:
            pass  # the loop is closed: nobody waits any more
        del work, done, job, answer
    if connection is not None:
        connection.close()


def _tell(done: "asyncio.Future[Any]", found: Any, fault: BaseException | None) -> None:
    if done.done():
        return
    if fault is not None:
        done.set_exception(fault)
    else:
        done.set_result(found)
