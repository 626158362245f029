"""A workflow task is lost right after something was recorded, and done again when it would decide otherwise: what
is on record, what the run does and what people were told stay one.

From the moment a record is written the runs worker chokes on all it reads, as long as the test wants: to Temporal it is
as if a worker were killed there, again and again.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic_ai.durable_exec.temporal import PydanticAIPlugin
from temporalio import activity
from temporalio.api.common.v1 import Payload
from temporalio.client import Client, WorkflowFailureError, WorkflowUpdateFailedError
from temporalio.converter import PayloadCodec
from temporalio.exceptions import CancelledError
from temporalio.worker import ActivityInboundInterceptor, ExecuteActivityInput, Interceptor

from policies.redaction import Redactor
from policies.terms import Terms
from tests.workflows.house import House, automation, one_call, until, workers
from worker.codec import CompressingCodec
from worker.temporal import data_converter
from workflows.contracts import ApprovalState, Phase


class Losing(Interceptor, PayloadCodec):
    """The worker's codec, which reads nothing more once `port` has recorded, until `over`."""

    def __init__(self, port: str) -> None:
        self._port = port
        self._plain = CompressingCodec()
        self._losing = False
        self.lost = 0
        self.over = False

    async def encode(self, payloads: Sequence[Payload]) -> list[Payload]:
        return await self._plain.encode(payloads)

    async def decode(self, payloads: Sequence[Payload]) -> list[Payload]:
        if self._losing and not self.over:
            self.lost += 1
            raise RuntimeError("this workflow task is lost")
        return await self._plain.decode(payloads)

    def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:  # noqa: A002
        return _Recorded(next, self)

    def done(self, port: str) -> None:
        """Called after each activity."""
        self._losing = self._losing or port == self._port


class _Recorded(ActivityInboundInterceptor):
    def __init__(self, next: ActivityInboundInterceptor, losing: Losing) -> None:  # noqa: A002
        super().__init__(next)
        self._losing = losing

    async def execute_activity(self, input: ExecuteActivityInput) -> Any:  # noqa: A002
        result = await super().execute_activity(input)
        self._losing.done(activity.info().activity_type)
        return result


async def connected(house: House, codec: PayloadCodec) -> Client:
    converter = data_converter(house.blobs, Redactor([]), codec)
    return await Client.connect(house.settings.temporal_address, data_converter=converter, plugins=[PydanticAIPlugin()])


PORTS = ("approval.open", "approval.note", "approval.close")


@pytest.mark.parametrize("port", PORTS)
async def test_what_is_recorded_stands_though_its_task_is_lost(lone_house: House, port: str) -> None:
    text, losing = f"lost after {port}", Losing(port)
    people = replace(lone_house, client=await connected(lone_house, CompressingCodec()))
    needed, deadline_s = (2 if port == "approval.note" else 1), (None if port == "approval.open" else 4)
    people.gate.terms[text] = Terms(needed=needed, deadline_s=deadline_s)
    async with workers(replace(lone_house, client=await connected(lone_house, losing)), interceptors=(losing,)):
        run = await people.start(automation(rules=one_call(text)))
        if port == "approval.open":
            await _lost(losing)
            losing.over = True
        question = await run.question()
        sending = asyncio.create_task(_told(people.say(run, question, "approve")))
        if port != "approval.open":
            await _lost(losing)
            await until(lambda: _passed(question.deadline))
            losing.over = True
        counted = await sending
        result = await run.result()
    assert result.phase is Phase.SUCCEEDED, result.failure
    row = await people.approvals.get(None, question.id)
    assert row is not None
    [closed] = [r for r in await people.records(run) if r.event_id.endswith(f"{question.id}/closed")]
    assert closed.type == f"approval.{row.state.value}"
    assert await people.effects(result) == ([text] if row.state is ApprovalState.APPROVED else [])
    assert ([a.principal.id for a in row.progress.answers] == ["ruth"]) is counted
    assert (len(await people.records(run, "approval.answered")) == 1) is (counted and port == "approval.note")


async def test_an_answer_that_counts_stands_though_its_run_is_cancelled_before_the_question_was_put(
    lone_house: House,
) -> None:
    """People read the question before its run knows that they can; their answer and a cancellation meet in one task."""
    losing = Losing("approval.open")
    people = replace(lone_house, client=await connected(lone_house, CompressingCodec()))
    people.gate.terms["old"] = Terms()
    async with workers(replace(lone_house, client=await connected(lone_house, losing)), interceptors=(losing,)):
        run = await people.start(automation(rules=one_call("old")))
        await _lost(losing)
        asked = await people.approvals.get(None, f"{run.id}.1")
        assert asked is not None
        sending = asyncio.create_task(_told(people.say(run, asked.request, "approve")))
        await asyncio.sleep(1)  # the server has it
        await run.handle.cancel()
        losing.over = True
        assert await sending
        with pytest.raises(WorkflowFailureError) as ended:
            await run.result()
    assert isinstance(ended.value.cause, CancelledError)
    row = await people.approvals.get(None, asked.request.id)
    assert row is not None
    assert (row.state, [a.principal.id for a in row.progress.answers]) == (ApprovalState.APPROVED, ["ruth"])
    [closed] = [r for r in await people.records(run) if r.event_id.endswith(f"{row.request.id}/closed")]
    assert closed.type == "approval.approved"
    assert set((await people.outcomes(run)).values()) == {"cancelled"}


async def _lost(losing: Losing) -> None:
    async def lost() -> bool:
        return losing.lost > 0

    await until(lost)


async def _passed(moment: datetime) -> bool:
    return datetime.now(UTC) > moment


async def _told(saying: Any) -> bool:
    """Whether the sender was told that the answer counts."""
    try:
        await saying
    except WorkflowUpdateFailedError:
        return False
    return True
