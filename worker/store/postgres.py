"""A PostgreSQL connection in a thread of its own, where a whole transaction is one trip there and back.

On an event loop each answer of the server costs turns of the loop: for a transaction of a few short statements more
processor time than the statements. A thread waits for the socket itself, and the loop goes on meanwhile.
"""

import asyncio
import threading
import weakref
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, TypeVar

import psycopg

Connection = psycopg.Connection[tuple[Any, ...]]
_Found = TypeVar("_Found")
_Job = Callable[[Connection], Any]
_Jobs = SimpleQueue[tuple[_Job, "asyncio.Future[Any]"] | None]


class Server:
    """One connection, opened when it is first needed. What is run on it waits in line."""

    def __init__(self, url: str, **connecting: Any) -> None:
        """`connecting`: options of `psycopg.connect`. The connection is in autocommit: who wants a transaction begins
        and ends it."""
        self._connect = lambda: psycopg.connect(url, autocommit=True, **connecting)
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
