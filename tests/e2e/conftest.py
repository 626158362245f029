"""One installation for the whole folder: starting five processes per test would cost more than the tests."""

import contextlib
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.e2e.system import PARTS, System
from tests.fixtures.postgres import Killable
from tests.fixtures.temporal import free_port

HOME = Path(__file__).with_name("home")


@pytest.fixture(scope="session")
async def installation(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[System]:
    """A running system, shared by the tests of this folder. A test that kills a part starts it again."""
    system = System(data=tmp_path_factory.mktemp("installation"), home=HOME)
    try:
        await system.start_all()
        yield system
    finally:
        system.stop_all()


@pytest.fixture(scope="session")
async def on_postgres(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[System, Killable]]:
    """Another one, that serves its numbers, and the PostgreSQL server it is alone on."""
    server = Killable()
    data = tmp_path_factory.mktemp("on_postgres")
    system = System(data=data, home=HOME, database_url=server.url, metrics=four_free_ports())
    try:
        await system.start_all()
        yield system, server
    finally:
        system.stop_all()
        server.remove()


def four_free_ports() -> int:
    """The first of four in a row."""
    while True:
        first = free_port()
        with contextlib.suppress(OSError), contextlib.ExitStack() as probes:
            for port in range(first, first + 4):
                probes.enter_context(socket.socket()).bind(("127.0.0.1", port))
            return first


@pytest.fixture
async def system(installation: System) -> AsyncIterator[System]:
    """The shared system with every part alive, before and after."""
    yield installation
    for part in PARTS:
        process = installation.processes.get(part)
        if process is None or process.poll() is not None:
            installation.start(part)
    await installation.ready()
