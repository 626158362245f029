"""A workflow that times its own steps: bare activities and governed tool calls, turn about. Not replayed, only run."""

import time
from datetime import timedelta

from temporalio import activity, workflow

from tools.contract import ToolCall, ToolResult, Wire
from workflows.contracts import QUEUE_SANDBOX, RunRequest
from workflows.live import LiveRun
from workflows.tool_call import tool_call

BARE = "bench.bare"


class Timed(Wire):
    """Seconds of each step, in order."""

    bare: tuple[float, ...]
    governed: tuple[float, ...]


@activity.defn(name=BARE)
async def bare_step(call: ToolCall) -> ToolResult:
    """What a workflow without any governance would call."""
    raise NotImplementedError(call.id)


@workflow.defn(name="TimedSteps")
class TimedSteps:
    """Steps of one run, in alternation, after a few that are not counted."""

    @workflow.run
    async def run(self, request: RunRequest, rounds: int, warm_up: int) -> Timed:
        """The times of `rounds` steps of each kind."""
        live = LiveRun(request)
        bare: list[float] = []
        governed: list[float] = []
        for number in range(warm_up + rounds):
            begin = _clock()
            await workflow.execute_activity(
                bare_step,
                ToolCall(id=f"b{number}", tool="look", arguments={"text": "a"}),
                task_queue=QUEUE_SANDBOX,
                start_to_close_timeout=timedelta(seconds=30),
            )
            middle = _clock()
            result = await tool_call(live, ToolCall(id=f"c{number}", tool="look", arguments={"text": "a"}), "rules")
            end = _clock()
            if result.error is not None:
                raise ValueError(f"the governed step failed: {result.content}")
            if number >= warm_up:
                bare.append(middle - begin)
                governed.append(end - middle)
        return Timed(bare=tuple(bare), governed=tuple(governed))


def _clock() -> float:
    with workflow.unsafe.sandbox_unrestricted():
        return time.perf_counter()
