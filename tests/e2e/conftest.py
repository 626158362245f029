"""One installation for the whole folder: starting five processes per test would cost more than the tests."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.e2e.system import PARTS, System

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


@pytest.fixture
async def system(installation: System) -> AsyncIterator[System]:
    """The shared system with every part alive, before and after."""
    yield installation
    for part in PARTS:
        process = installation.processes.get(part)
        if process is None or process.poll() is not None:
            installation.start(part)
    await installation.ready()
