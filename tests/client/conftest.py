"""One API for the folder, connected to a real Temporal server; no workers, so runs stay queued."""

from collections.abc import AsyncIterator, Callable, Coroutine

import pytest

from gatehouse_client import Gatehouse
from tests.api.running import Api, running
from tests.fixtures.temporal import TemporalServer

Speaks = Callable[[str], Coroutine[None, None, Gatehouse]]


@pytest.fixture(scope="package")
async def api(tmp_path_factory: pytest.TempPathFactory, temporal_server: TemporalServer) -> AsyncIterator[Api]:
    async with running(tmp_path_factory.mktemp("client"), temporal_server.address) as found:
        yield found


@pytest.fixture
async def speaks(api: Api) -> AsyncIterator[Speaks]:
    """The client of somebody with that role, closed after the test."""
    opened: list[Gatehouse] = []

    async def client(role: str) -> Gatehouse:
        await api.client(role)
        opened.append(Gatehouse(api.url, api.keys[role]))
        return opened[-1]

    yield client
    for each in opened:
        await each.aclose()
