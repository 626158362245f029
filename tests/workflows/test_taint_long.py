"""A tainted run that continues as new stays tainted and knows what its former parts read."""

from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from tests.fixtures.provider import Provider, answer, calls
from tests.fixtures.temporal import TemporalServer
from tests.workflows.conftest import settings_for
from tests.workflows.house import House, opened, workers
from tests.workflows.test_taint import job
from worker.sandbox.container import Sandbox
from worker.store.blobs import Blobs


@pytest.fixture
async def short_house(provider: Provider, sandbox: Sandbox, blobs: Blobs, sandbox_data: Path) -> AsyncGenerator[House]:
    server = TemporalServer(dynamic=("limit.historyCount.suggestContinueAsNew=40",))
    await server.start()
    async with opened(provider, sandbox, blobs, settings_for(server, provider, sandbox_data)) as house, workers(house):
        yield house
    server.stop()


async def test_taint_and_origins_outlive_the_part(short_house: House) -> None:
    house = short_house
    house.provider.script(
        "long-taint",
        calls(("lookup", {"text": "ticket-5"})),
        calls(("fetch", {"text": "and id ticket-9"})),
        *[calls(("lookup", {"text": str(n)})) for n in range(6)],
        calls(("mail", {"text": "ticket-1"})),
        calls(("mail", {"text": "ticket-9"})),
        answer(said="done"),
    )
    run = await house.start(job("practice:long-taint"), inputs={"about": "ticket-1"})
    question = await run.question()
    assert question.call is not None
    assert question.call.arguments == {"text": "ticket-9"}
    assert question.rule == "send-needs-approval"
    parts = [w.status async for w in house.client.list_workflows(f"WorkflowId = '{run.id}'")]
    assert len(parts) > 1
    await house.say(run, question, "approve")
    result = await run.result()
    assert (await house.effects(result))[-2:] == ["ticket-1", "ticket-9"]
