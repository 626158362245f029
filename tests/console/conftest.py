"""One installation with workers and boxes and one browser for the folder; each test brings its own people and runs."""

from collections.abc import AsyncIterator

import pytest
from playwright.async_api import Browser

from tests.api.running import Api, staffed
from tests.console.people import Desk, chromium


@pytest.fixture(scope="session")
async def browser() -> AsyncIterator[Browser]:
    async with chromium() as found:
        yield found


@pytest.fixture(scope="session")
async def house(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Api]:
    async with staffed(tmp_path_factory.mktemp("console")) as api:
        yield api


@pytest.fixture
async def desk(house: Api, browser: Browser) -> AsyncIterator[Desk]:
    """People may come; whatever their pages complained about fails the test."""
    found = Desk(house, browser)
    found.errors.clear()
    yield found
    await found.close()
    assert found.errors == []
