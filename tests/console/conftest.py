"""One installation with workers and boxes and one browser for the folder; each test brings its own people and runs."""

from collections.abc import AsyncIterator

import pytest
from playwright.async_api import Browser

from tests.api.running import Api, running
from tests.console.people import Desk, chromium
from tests.fixtures.temporal import TemporalServer
from worker import main, temporal
from worker.sandbox.images import ImageStore


@pytest.fixture(scope="session")
async def browser() -> AsyncIterator[Browser]:
    async with chromium() as found:
        yield found


@pytest.fixture(scope="session")
async def house(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Api]:
    """An API with workers of every queue it needs, composed as in production, on a Temporal server of their own."""
    data = tmp_path_factory.mktemp("console")
    ImageStore(data, lambda _: None).ensure()
    server = TemporalServer()
    await server.start()
    async with running(data, server.address) as api:
        client = await temporal.connect(api.settings)
        async with (
            main._runs(api.settings, client) as runs,  # pyright: ignore[reportPrivateUsage]
            main._sandbox(api.settings, client) as sandbox,  # pyright: ignore[reportPrivateUsage]
            runs,
            sandbox,
        ):
            yield api
    server.stop()


@pytest.fixture
async def desk(house: Api, browser: Browser) -> AsyncIterator[Desk]:
    """People may come; whatever their pages complained about fails the test."""
    found = Desk(house, browser)
    found.errors.clear()
    yield found
    await found.close()
    assert found.errors == []
