"""What encryption costs: the payloads of a real governed step through the codec, against that step's own time.

A run of governed steps is timed on a real server (as benchmarks/governed_step.py does) with encryption on; every
payload of its history is then encrypted and decrypted again, many times, by the same codec and by compression alone.
Each payload is encoded once and decoded once or twice on its way; two decodings are charged.

    python -m benchmarks.codec [--steps N]
"""

import argparse
import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from google.protobuf.message import Message
from temporalio.api.common.v1 import Payload
from temporalio.converter import PayloadCodec, WorkflowSerializationContext

from benchmarks._steps import NullBox, installation
from benchmarks._workflow import Timed, TimedSteps
from benchmarks.governed_step import bare
from worker.codec import ENCODING, CompressingCodec, EncryptingCodec
from worker.encryption import open_keyring
from workflows.contracts import QUEUE_RUNS

LIMIT = 0.02
"""Share of a governed step's median that encryption may take."""
ROUNDS = 30


def payloads(message: Message) -> Iterator[Payload]:
    """Every payload in a message, however deep."""
    if isinstance(message, Payload):
        yield message
        return
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        values: Any = [value]
        if field.message_type.GetOptions().map_entry:
            values = list(value.values())
        elif field.is_repeated:
            values = list(value)
        for inner in values:
            if isinstance(inner, Message):
                yield from payloads(inner)


async def both_ways(codec: PayloadCodec, plain: list[Payload]) -> float:
    """Median seconds for encoding all of them once and decoding them twice."""
    times: list[float] = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        for payload in plain:
            encoded = await codec.encode([payload])
            for _ in range(2):
                await codec.decode(encoded)
        times.append(time.perf_counter() - started)
    return statistics.median(times)


async def main(steps: int) -> bool:
    """Measure, print, and say whether the limit holds."""
    with tempfile.TemporaryDirectory() as folder:
        async with installation(Path(folder), NullBox(), workflows=[TimedSteps], extra=[bare]) as bench:
            request = await bench.request()
            handle = await bench.client.start_workflow(
                "TimedSteps", args=[request, steps, 10], id=request.run_id, task_queue=QUEUE_RUNS, result_type=Timed
            )
            timed: Timed = await handle.result()
            codec = EncryptingCodec(open_keyring(bench.settings), bench.settings.temporal_namespace)
            codec = codec.with_context(WorkflowSerializationContext("default", request.run_id))
            events = (await handle.fetch_history()).events
        found = [payload for event in events for payload in payloads(event)]
        plain = await codec.decode([payload for payload in found if payload.metadata.get("encoding") == ENCODING])
        calls = 2 * (steps + 10)  # bare steps too, so what is charged to a governed step is too much by those
        encrypted = await both_ways(codec, plain)
        compressed = await both_ways(CompressingCodec(), plain)
    step, cost = statistics.median(timed.governed), (encrypted - compressed) / (calls / 2)
    share = cost / step
    print(f"governed step  p50 {step * 1000:8.2f} ms   n {len(timed.governed)}")
    print(f"encryption     {cost * 1e6:8.0f} us a step, {len(plain) / (calls / 2):.1f} payloads a step")
    print(f"encryption takes {share:.2%} of a governed step (limit {LIMIT:.0%})")
    load = [round(x, 2) for x in os.getloadavg()]
    medians = {"step_ms": round(step * 1000, 2), "encryption_us": round(cost * 1e6, 1)}
    found_all = {"name": "codec", "medians": medians, "ratios": {"codec": round(share, 5)}, "load": load}
    print(json.dumps({**found_all, "limit": LIMIT, "holds": share <= LIMIT}))
    return share <= LIMIT


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="What encryption costs a governed step.")
    parser.add_argument("--steps", type=int, default=50, help="measured steps")
    status = 0 if asyncio.run(main(parser.parse_args().steps)) else 1
    sys.stdout.flush()
    os._exit(status)  # the SDK's runtime may abort while the interpreter winds down
