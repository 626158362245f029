"""The installation the workflow tests share."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.fixtures.provider import Provider
from tests.fixtures.temporal import TemporalServer
from tests.workflows.house import House, opened
from worker.sandbox.container import Sandbox
from worker.settings import Settings
from worker.store.blobs import Blobs


@pytest.fixture(scope="session")
async def house(
    temporal_server: TemporalServer, provider: Provider, sandbox: Sandbox, blobs: Blobs, sandbox_data: Path
) -> AsyncIterator[House]:
    settings = Settings.model_validate(
        {
            "data": sandbox_data,
            "temporal_address": temporal_server.address,
            "practice_model_url": f"{provider.url}/v1",
            "OPENAI_API_KEY": "sk-test-0123456789abcdefghij",
            "OPENAI_BASE_URL": f"{provider.url}/v1",
            "ANTHROPIC_API_KEY": "sk-ant-test-0123456789abcdefghij",
            "ANTHROPIC_BASE_URL": provider.url,
            "model_timeout_s": 2.0,
        }
    )
    async with opened(temporal_server.address, provider, sandbox, blobs, settings) as house:
        yield house
