"""A run that outgrows one history continues as new between two turns, and nobody can tell from what it did."""

from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
from temporalio.client import WorkflowExecutionStatus, WorkflowUpdateFailedError
from temporalio.exceptions import ApplicationError

from tests.fixtures.provider import Provider, answer, calls
from tests.fixtures.temporal import TemporalServer
from tests.workflows.conftest import settings_for
from tests.workflows.house import RUTH, House, automation, opened, workers
from worker.sandbox.container import Sandbox
from worker.store.blobs import Blobs
from workflows.contracts import Phase, Rung

STEPS = 9


@pytest.fixture
async def short_house(provider: Provider, sandbox: Sandbox, blobs: Blobs, sandbox_data: Path) -> AsyncGenerator[House]:
    """On a server that suggests to continue as new after a few events."""
    server = TemporalServer(dynamic=("limit.historyCount.suggestContinueAsNew=60",))
    await server.start()
    async with opened(provider, sandbox, blobs, settings_for(server, provider, sandbox_data)) as house, workers(house):
        yield house
    server.stop()


async def test_a_long_run_continues_as_new_without_repeating_or_losing_anything(short_house: House) -> None:
    house = short_house
    turns = [calls(("note", {"text": str(n)})) for n in range(STEPS)]
    turns[1], turns[8] = (calls(("erase", {"text": str(n)})) for n in (1, 8))
    house.provider.script("long", *turns, answer(said="done"))
    run = await house.start(automation("mistral:none", "practice:long"))
    question = await run.question()
    await house.say(run, question, "approve")
    later = await run.question(2)
    for old, why in ((question, "already_decided"), (question.model_copy(update={"id": f"{run.id}.3"}), "not_found")):
        with pytest.raises(WorkflowUpdateFailedError) as refused:
            await house.say(run, old, "deny", RUTH.model_copy(update={"id": "ray"}))
        assert isinstance(refused.value.cause, ApplicationError)
        assert refused.value.cause.type == why, "a later part knows of what a former one asked"
    await house.say(run, later, "approve")
    result = await run.result()
    assert (result.phase, result.rung, result.steps) == (Phase.SUCCEEDED, Rung.FALLBACK_MODEL, STEPS + 1)
    assert (result.tool_calls, result.input_tokens) == (STEPS, 100 * (STEPS + 1))
    assert result.degraded == (
        "mistral:none: not configured: known are openai:<name>, anthropic:<name>, practice:<name>",
    )
    lines = await house.effect_lines(result)
    assert [e["text"] for e in lines] == [str(n) for n in range(STEPS)]
    assert {e["key"].split("/")[1] for e in lines} == {run.handle.first_execution_run_id}, "keys outlive the parts"
    assert len({e["call"] for e in lines}) == STEPS
    assert set((await house.outcomes(run)).values()) == {"succeeded"}
    parts = [w.status async for w in house.client.list_workflows(f"WorkflowId = '{run.id}'")]
    assert len(parts) > 2
    assert parts.count(WorkflowExecutionStatus.CONTINUED_AS_NEW) == len(parts) - 1
    assert len(await house.records(run, "run.opened")) == 1
    assert '"did": "0"' in house.provider.told("long")[0], "the conversation went along"
