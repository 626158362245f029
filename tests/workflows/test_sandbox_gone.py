"""No sandbox worker takes a call: the run waits as long as it is told to, goes on without, and says so."""

import asyncio

from temporalio.worker import Worker

from api.gateway import Gateway
from tests.fixtures.provider import answer, calls
from tests.workflows.house import House, automation, until, workers
from worker.activities.sandbox import SandboxActivities
from worker.sandbox.workspace import Workspaces
from worker.store.ledger import Ledger
from workflows import contracts
from workflows.contracts import Phase, Question


async def test_a_run_without_a_sandbox_worker_goes_to_a_human_soon(lone_house: House) -> None:
    house, gateway = lone_house, Gateway(lone_house.settings)
    async with workers(house, boxes=False):
        run = await house.start(automation("practice:unused"), sandbox_wait_s=1)
        question = await run.question()
        assert question.question is Question.HANDOVER
        assert "no worker took it in time" in question.reason

        async def only_the_sandbox() -> bool:
            return await gateway.deserted() == [contracts.QUEUE_SANDBOX]

        assert await until(only_the_sandbox)


async def test_a_call_whose_worker_is_gone_fails_by_name_and_the_run_goes_on(lone_house: House) -> None:
    house, gateway = lone_house, Gateway(lone_house.settings)

    async def everybody() -> bool:
        return await gateway.deserted() == []

    sandbox = SandboxActivities(
        house.sandbox, Ledger(house.db, house.audit), house.blobs, Workspaces(house.sandbox, house.blobs), house.audit
    )
    worker = Worker(house.client, task_queue=contracts.QUEUE_SANDBOX, activities=sandbox.all())
    # The first call may still be taken, and two without a worker end the rung.
    house.provider.script("gone", *(calls(("note", {"text": text})) for text in "abcd"), answer(said="x"))
    async with workers(house, boxes=False):
        # It opens the workspace and goes; it comes back for the artifacts.
        polling = asyncio.create_task(worker.run())
        await until(everybody)
        run = await house.start(automation("practice:gone"), sandbox_wait_s=5)
        await until(lambda: house.records(run, "model.requested"))
        await worker.shutdown()
        await polling
        question = await run.question()
        assert question.question is Question.HANDOVER
        again = Worker(house.client, task_queue=contracts.QUEUE_SANDBOX, activities=sandbox.all())
        async with again:
            await house.say(run, question, "approve", output={"said": "by hand"})
            result = await run.result()
    assert (result.phase, result.output) == (Phase.SUCCEEDED, {"said": "by hand"})
    records = await house.records(run, "call.outcome")
    assert [r.body["error"] for r in records].count("sandbox_unavailable") == 2
    assert any("no sandbox for" in why for why in result.degraded), result.degraded
