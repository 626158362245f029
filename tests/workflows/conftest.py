"""The installation the workflow tests share."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.fixtures.provider import Provider
from tests.fixtures.temporal import TemporalServer
from tests.workflows.house import House, opened, workers
from worker.sandbox.container import Sandbox
from worker.settings import Settings
from worker.store.blobs import Blobs


@pytest.fixture(scope="session")
async def house(
    temporal_server: TemporalServer, provider: Provider, sandbox: Sandbox, blobs: Blobs, sandbox_data: Path
) -> AsyncIterator[House]:
    settings = settings_for(temporal_server, provider, sandbox_data)
    async with opened(provider, sandbox, blobs, settings) as house, workers(house):
        yield house


@pytest.fixture
async def lone_house(provider: Provider, sandbox: Sandbox, blobs: Blobs, sandbox_data: Path) -> AsyncIterator[House]:
    """An installation on a Temporal server of its own, whose workers the test starts and stops."""
    server = TemporalServer()
    await server.start()
    async with opened(provider, sandbox, blobs, settings_for(server, provider, sandbox_data)) as house:
        yield house
    server.stop()


def settings_for(server: TemporalServer, provider: Provider, data: Path) -> Settings:
    """Every provider configured, all of them the loopback one."""
    return Settings.model_validate(
        {
            "data": data,
            "plain_payloads": False,
            "temporal_address": server.address,
            "practice_model_url": f"{provider.url}/v1",
            "OPENAI_API_KEY": "sk-test-0123456789abcdefghij",
            "OPENAI_BASE_URL": f"{provider.url}/v1",
            "ANTHROPIC_API_KEY": "sk-ant-test-0123456789abcdefghij",
            "ANTHROPIC_BASE_URL": provider.url,
            "model_timeout_s": 6.0,
        }
    )
