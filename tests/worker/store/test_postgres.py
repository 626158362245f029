"""The connection that runs whole transactions in its thread: what comes back, what fails, and that the loop goes on."""

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import psycopg
import pytest

from tests.fixtures import store
from worker.store.postgres import Connection, Server, Statement

BEGIN, COMMIT, DIVIDED = (
    Statement.of(name, text)
    for name, text in (("begin", "BEGIN"), ("commit", "COMMIT"), ("divided", "SELECT 1 / CAST(:by AS int)"))
)
MADE = Statement.of("made", "CREATE TABLE kept (n bigint)")
KEEP = Statement.of("keep", "INSERT INTO kept VALUES (:n)")
KEPT = Statement.of("kept", "SELECT n FROM kept ORDER BY n")
LOCK = Statement.of("lock", "SELECT pg_advisory_xact_lock(1)::text")


@pytest.fixture
async def url(postgres_server: store.Server) -> AsyncIterator[str]:
    found = await postgres_server.take()
    yield found.replace("postgresql+psycopg", "postgresql")
    postgres_server.give_back(found)


@pytest.fixture
async def server(url: str) -> AsyncIterator[Server]:
    found = Server(url)
    yield found
    await trip(found, (Statement.of("dropped", "DROP TABLE IF EXISTS kept"), {}))
    await found.close()


def trip(server: Server, *asked: tuple[Statement, dict[str, Any]]) -> Any:
    def work(connection: Connection) -> Any:
        return connection.trip(*asked)

    return server.run(work)


async def test_values_come_back_as_they_went(server: Server) -> None:
    values = Statement.of(
        "values", "SELECT CAST(:n AS bigint), CAST(:n AS int), CAST(:words AS text), CAST(:raw AS bytea), NULL::text"
    )
    for n, words, raw in ((1, "a", b"b"), (-7, "Grüße: ':n' \\", bytes(range(256))), (0, "", b"")):
        given = {"n": n, "words": words, "raw": raw}
        assert await trip(server, (BEGIN, {}), (values, given), (COMMIT, {})) == [[], [(n, n, words, raw, None)], []]


async def test_more_than_the_socket_takes_at_once(server: Server) -> None:
    """The server answers the first while the second is still on its way to it."""
    echo, other = (Statement.of(name, "SELECT CAST(:words AS text)") for name in ("echo", "other"))
    big = "x" * 20_000_000
    assert await trip(server, (echo, {"words": big}), (other, {"words": big})) == [[(big,)], [(big,)]]


async def test_a_trip_that_fails_leaves_nothing_and_the_next_has_a_new_connection(server: Server) -> None:
    await trip(server, (MADE, {}))
    with pytest.raises(psycopg.errors.DivisionByZero, match=r"^division by zero$"):
        await trip(server, (BEGIN, {}), (KEEP, {"n": 1}), (DIVIDED, {"by": 0}), (KEEP, {"n": 2}), (COMMIT, {}))
    assert await trip(server, (KEEP, {"n": 3}), (KEPT, {})) == [[], [(3,)]]
    with pytest.raises(psycopg.errors.UndefinedTable):
        await trip(server, (Statement.of("absent", "SELECT n FROM absent"), {}))
    assert await trip(server, (KEPT, {})) == [[(3,)]]


async def test_a_transaction_may_take_several_trips(server: Server) -> None:
    def work(connection: Connection, fails: bool) -> None:
        connection.trip((BEGIN, {}), (KEEP, {"n": 1}))
        connection.trip((KEEP, {"n": 2}))
        connection.trip((DIVIDED, {"by": 0 if fails else 1}), (COMMIT, {}))

    await trip(server, (MADE, {}))
    with pytest.raises(psycopg.errors.DivisionByZero):
        await server.run(partial(work, fails=True))
    assert await trip(server, (KEPT, {})) == [[]]
    await server.run(partial(work, fails=False))
    assert await trip(server, (KEPT, {})) == [[(1,), (2,)]]


async def test_a_server_that_ends_the_connection_is_a_fault_and_then_forgotten(server: Server) -> None:
    ended = Statement.of("ended", "SELECT pg_terminate_backend(pg_backend_pid())::text")
    with pytest.raises(psycopg.OperationalError):
        await trip(server, (ended, {}))
    assert await trip(server, (DIVIDED, {"by": 1})) == [[(1,)]]


async def test_the_loop_goes_on_while_the_server_keeps_it_waiting(server: Server, url: str) -> None:
    other = Server(url)

    def hold(connection: Connection) -> None:
        connection.trip((BEGIN, {}), (LOCK, {}))

    def let_go(connection: Connection) -> None:
        connection.trip((COMMIT, {}))

    await other.run(hold)
    waiting = asyncio.ensure_future(trip(server, (LOCK, {})))
    for _ in range(20):  # each turn needs the interpreter, which a thread that waits must not hold
        await asyncio.sleep(0.01)
    assert not waiting.done()
    await other.run(let_go)
    await asyncio.wait_for(waiting, 10)
    await other.close()
