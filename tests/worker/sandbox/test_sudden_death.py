"""A worker killed under load leaves nothing, also what only waited."""

import asyncio
import sys
import time
from collections.abc import Collection
from pathlib import Path

from tests.fixtures.sandbox import leftovers
from worker.sandbox.container import Sandbox
from worker.sandbox.reaper import Reaper

ROOT = Path(__file__).resolve().parents[3]

WORKER = """
import asyncio, sys
from pathlib import Path
from worker.sandbox.container import Job, Sandbox
from worker.sandbox.engine import Engine, installation_id
from worker.sandbox.pool import PoolSettings

async def main():
    data = Path(sys.argv[1])
    async with Engine() as engine:
        sandbox = Sandbox(engine, data=data, owner=installation_id(data), pool=PoolSettings(size=3))
        async def call(n):
            await sandbox.run(Job("run_load", f"k{n}", b"import time; time.sleep(0.2)", b""))
            print("one", flush=True)
        await asyncio.gather(*(call(n) for n in range(40)))

asyncio.run(main())
"""


async def none_closed(_: Collection[str]) -> set[str]:
    return set()


async def test_killed_under_load_leaves_nothing(sandbox: Sandbox, sandbox_data: Path) -> None:
    worker = await asyncio.create_subprocess_exec(
        sys.executable, "-c", WORKER, str(sandbox_data), cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    assert worker.stdout is not None
    for _ in range(6):
        assert await worker.stdout.readline() == b"one\n"
    assert await leftovers(sandbox)
    worker.kill()
    await worker.wait()
    started = time.monotonic()
    # What was created and not yet started cannot end by itself: the next worker's sweep at its start takes it.
    while await leftovers(sandbox):
        await Reaper(sandbox.engine, sandbox.owner, none_closed).sweep()
        assert time.monotonic() - started < 120
        await asyncio.sleep(0.2)
