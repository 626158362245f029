"""How much history a long run leaves: 50 steps, each with a tool result of 4 kB, every continued part counted.

Real server, store, model protocol and activities; the box runs nothing. Compared are the bytes Temporal keeps with what
the same payloads would take uncompressed and without the claim check.

    python -m benchmarks.history [--steps N] [--bytes N]
"""

import argparse
import asyncio
import json
import os
import random
import sys
import tempfile
from pathlib import Path

from pydantic_ai.durable_exec.temporal import TemporalDurability
from temporalio.worker import Worker

from benchmarks._steps import Bench, NullBox, installation
from tests.fixtures.provider import Provider, answer, calls
from worker.models import Models
from workflows.agents import build_agent
from workflows.automation import AutomationWorkflow
from workflows.contracts import QUEUE_MODELS, QUEUE_RUNS, Phase

LIMIT = 2_000_000
"""Bytes of history of all parts together."""


def log_text(size: int) -> str:
    """Text like a log, which compresses like one."""
    dice = random.Random(7)
    words = [
        "timeout",
        "upstream",
        "db-3",
        "retry",
        "connection",
        "refused",
        "queue",
        "worker",
        "payload",
        "GET /v1/items",
    ]
    lines: list[str] = []
    while sum(map(len, lines)) < size:
        text = " ".join(dice.choices(words, k=6))
        at = f"2026-11-22T10:{dice.randrange(60):02}:{dice.randrange(60):02}Z"
        lines.append(f"{at} ERROR {text} id={dice.randrange(10**9)}\n")
    return "".join(lines)[:size]


async def main(steps: int, size: int) -> bool:
    """Measure, print, and say whether the limit holds."""
    provider = Provider()
    await provider.start()
    provider.script("long", *[calls(("look", {"text": str(n)})) for n in range(steps)], answer(text="done"))
    box = NullBox(json.dumps({"text": log_text(size)}).encode())
    with tempfile.TemporaryDirectory() as folder:
        url = f"{provider.url}/v1"
        async with installation(Path(folder), box, workflows=[AutomationWorkflow], practice_model_url=url) as bench:
            durability = TemporalDurability[None].from_agent(build_agent(Models(bench.settings).resolve))
            assert durability is not None
            async with Worker(bench.client, task_queue=QUEUE_MODELS, activities=durability.temporal_activities):
                parts = await measure(bench)
    sent = sum(len(json.dumps(body)) for body in provider.asked["long"])
    return report(parts, sent, steps, size)


async def measure(bench: Bench) -> list[tuple[int, int]]:
    """Events and bytes of each part of one run, in order."""
    request = await bench.request("practice:long")
    handle = await bench.client.start_workflow(
        AutomationWorkflow.run, request, id=request.run_id, task_queue=QUEUE_RUNS
    )
    result = await handle.result()
    assert result.phase is Phase.SUCCEEDED, result
    await asyncio.sleep(2)  # the list of runs lags behind
    parts = [w async for w in bench.client.list_workflows(f"WorkflowId = '{request.run_id}'")]
    parts.sort(key=lambda part: part.start_time)
    found: list[tuple[int, int]] = []
    for part in parts:
        history = await bench.client.get_workflow_handle(part.id, run_id=part.run_id).fetch_history()
        found.append((len(history.events), sum(event.ByteSize() for event in history.events)))
    return found


def report(parts: list[tuple[int, int]], sent: int, steps: int, size: int) -> bool:
    """A table for people, then one JSON object on the last line."""
    for number, (events, length) in enumerate(parts, 1):
        print(f"part {number}: {events} events, {length / 1000:.0f} kB")
    total = sum(length for _, length in parts)
    print(f"{steps} steps of {size} bytes: {total / 1e6:.2f} MB of history in {len(parts)} parts (limit 2 MB)")
    print(f"the model was sent {sent / 1e6:.1f} MB in all, which a history without claims would hold too")
    load = [round(x, 2) for x in os.getloadavg()]
    medians = {"history_bytes": total, "events": sum(events for events, _ in parts), "sent_bytes": sent}
    ratios = {"of_limit": round(total / LIMIT, 2), "of_sent": round(total / sent, 3)}
    holds = total < LIMIT
    print(
        json.dumps(
            {"name": "history", "medians": medians, "ratios": ratios, "load": load, "limit": LIMIT, "holds": holds}
        )
    )
    return holds


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="History of a long run.")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--bytes", type=int, default=4000, help="size of each tool result")
    given = parser.parse_args()
    status = 0 if asyncio.run(main(given.steps, given.bytes)) else 1
    sys.stdout.flush()
    os._exit(status)  # the SDK's runtime may abort while the interpreter winds down
