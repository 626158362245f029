"""Process 1 itself turned hostile: the worker believes no length, no report and no silence.

The worst case of a program that took its box over. Judged by what the worker makes of it, and by what is left on the
host.
"""

import asyncio
import dataclasses
import resource
from pathlib import Path

import pytest

from tests.fixtures.sandbox import leftovers
from tools.contract import Limits
from worker.sandbox.container import BoxLost, Ending, Job, Ran, Sandbox
from worker.sandbox.profile import Box

# Says it is ready, takes the job's first bytes, then does its worst.
BEGIN = """
import os, time
def put(kind, content, length=None):
    os.write(1, kind + (len(content) if length is None else length).to_bytes(4, "big") + content)
put(b"R", b"")
os.read(0, 1 << 20)
"""
REPORT = "why=0 code=0 oom=0 ms=1 cpu_us=1 peak=1"
LOST = {
    "a report without a token": f"put(b'X', b'{REPORT}')",
    "a report with a guessed token": f"put(b'X', b'1 {REPORT}')",
    "a report with an empty token": f"put(b'X', b' {REPORT}')",
    "a report of four gigabytes": "put(b'X', b'', 0xffffffff)",
    "output of four gigabytes": "put(b'O', bytes(1000), 0xffffffff)",
    "half a frame": "os.write(1, b'O\\0\\0')",
    "an early end": "",
    "a frame of no kind, then the end": "put(b'?', b'x' * 1000)",
    "noise": "os.write(1, b'\\xff' * (1 << 16))",
    "words of its own on the other stream": "os.write(2, b'x' * (8 << 20))",
}
ENDED = {
    "silence for ever": ("time.sleep(99)", Ending.TIMEOUT),
    "a drop at a time for ever": ("while True: put(b'O', b''); time.sleep(0.01)", Ending.TIMEOUT),
    "a flood of output": ("while True: put(b'O', bytes(65536))", Ending.OUTPUT_LIMIT),
    "a flood of frames of no kind": ("while True: put(b'?', bytes(65536))", Ending.OUTPUT_LIMIT),
}


class Taken(Sandbox):
    """Boxes whose process 1 runs this program instead of the supervisor."""

    source = ""

    async def kind(self, job: Job) -> Box:
        command = ("python3", "-I", "-S", "-c", BEGIN + self.source)
        return dataclasses.replace(await super().kind(job), command=command)


async def taken_over(sandbox: Sandbox, data: Path, source: str, timeout_s: float = 60) -> Ran:
    taken = Taken(sandbox.engine, data=data, owner=sandbox.owner)
    taken.source = source
    job = Job("run_taken", "k", b"print(1)", b"", Limits(timeout_s=timeout_s, output_bytes=100_000))
    try:
        return await taken.run(job)
    finally:
        await asyncio.wait_for(taken.close(), 60)
        assert await leftovers(sandbox, "run_taken") == []


@pytest.mark.parametrize("what", LOST)
async def test_what_is_no_report_makes_a_lost_call(sandbox: Sandbox, sandbox_data: Path, what: str) -> None:
    """Never a success: a call that may not be repeated is then asked about."""
    with pytest.raises(BoxLost):
        await taken_over(sandbox, sandbox_data, LOST[what])


@pytest.mark.parametrize("what", ENDED)
async def test_what_does_not_end_is_ended(sandbox: Sandbox, sandbox_data: Path, what: str) -> None:
    source, ending = ENDED[what]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    ran = await taken_over(sandbox, sandbox_data, source, 1 if ending is Ending.TIMEOUT else 60)
    assert (ran.ending, ran.exit_code) == (ending, None)
    assert len(ran.stdout) <= 200_000
    grown_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown_kb < 64 << 10
