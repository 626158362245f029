"""One API for the folder; tests share its store and therefore make their own runs, names and keys."""

from collections.abc import AsyncIterator

import httpx
import pytest

from tests.api.running import Api, running, staffed
from tests.fixtures.temporal import TemporalServer


@pytest.fixture(scope="session")
async def api(tmp_path_factory: pytest.TempPathFactory, temporal_server: TemporalServer) -> AsyncIterator[Api]:
    """Serving, connected to a real Temporal server; no workers, so runs stay queued."""
    async with running(tmp_path_factory.mktemp("api"), temporal_server.address) as found:
        yield found


@pytest.fixture(scope="session")
async def house(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Api]:
    """An API with workers: what is asked for runs."""
    async with staffed(tmp_path_factory.mktemp("house")) as found:
        yield found


@pytest.fixture(scope="session")
async def operator(api: Api) -> httpx.AsyncClient:
    """Starts runs."""
    return await api.client("operator")


@pytest.fixture(scope="session")
async def approver(api: Api) -> httpx.AsyncClient:
    """Answers questions."""
    return await api.client("approver")


@pytest.fixture(scope="session")
async def admin(api: Api) -> httpx.AsyncClient:
    """May do everything."""
    return await api.client("admin")
