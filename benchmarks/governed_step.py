"""A governed step against a bare Temporal activity, in alternation within one workflow run.

The governed step is a whole `tool_call`: intent and gate recorded (two durable commits), the hop to the sandbox queue,
the claim on the effect ledger, result and outcome recorded together. The container is left out: its time is the
sandbox's own. The bare step is an activity on the same queue that returns at once.

    python -m benchmarks.governed_step [--rounds N]
"""

import argparse
import asyncio
import json
import os
import statistics
import sys
import tempfile
from pathlib import Path

from temporalio import activity

from benchmarks._steps import NullBox, installation
from benchmarks._workflow import BARE, Timed, TimedSteps
from tools.contract import Outcome, ToolCall, ToolResult
from workflows.contracts import QUEUE_RUNS

LIMIT = 1.5
"""A governed step may take at most this many times a bare one's median."""
WARM_UP = 10
PER_RUN = 50


@activity.defn(name=BARE)
async def bare(call: ToolCall) -> ToolResult:
    """Returns at once."""
    return ToolResult(outcome=Outcome.SUCCEEDED, content=call.id)


async def main(rounds: int) -> bool:
    """Measure, print, and say whether the limit holds."""
    times: dict[str, list[float]] = {"bare": [], "governed": []}
    with tempfile.TemporaryDirectory() as folder:
        async with installation(Path(folder), NullBox(), workflows=[TimedSteps], extra=[bare]) as bench:
            for _ in range(max(1, rounds // PER_RUN)):
                request = await bench.request()
                timed = await bench.client.execute_workflow(
                    "TimedSteps", args=[request, min(rounds, PER_RUN), WARM_UP], id=request.run_id,
                    task_queue=QUEUE_RUNS, result_type=Timed,
                )  # fmt: skip
                times["bare"] += timed.bare
                times["governed"] += timed.governed
    return report(times)


def report(times: dict[str, list[float]]) -> bool:
    """A table for people, then one JSON object on the last line."""
    medians = {name: round(statistics.median(values) * 1000, 2) for name, values in times.items()}
    ratio = round(medians["governed"] / medians["bare"], 2)
    for name, values in times.items():
        p95 = statistics.quantiles(values, n=20)[-1] * 1000
        print(f"{name:<9} p50 {medians[name]:7.2f} ms   p95 {p95:7.2f} ms   n {len(values)}")
    print(f"a governed step is {ratio}x a bare activity (limit {LIMIT}x)")
    holds = ratio <= LIMIT
    load = [round(x, 2) for x in os.getloadavg()]
    ratios = {"governed": ratio}
    found = {"name": "governed_step", "medians": medians, "ratios": ratios, "load": load}
    print(json.dumps({**found, "limit": LIMIT, "holds": holds}))
    return holds


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A governed step against a bare Temporal activity.")
    parser.add_argument("--rounds", type=int, default=100, help="measured steps of each kind")
    status = 0 if asyncio.run(main(parser.parse_args().rounds)) else 1
    sys.stdout.flush()
    os._exit(status)  # the SDK's runtime may abort while the interpreter winds down
