"""Boxes started ahead: each serves one call, none is forgotten, and a call never waits for one."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.fixtures.sandbox import leftovers, nothing_left
from tools.contract import Limits
from worker.sandbox.container import Ending, Job, Sandbox
from worker.sandbox.engine import Engine, installation_id
from worker.sandbox.pool import PoolSettings
from worker.sandbox.profile import Box, WorkspaceMount
from worker.sandbox.workspace import Workspaces


@pytest.fixture
async def warm(engine: Engine, sandbox_data: Path) -> AsyncIterator[Sandbox]:
    opened = Sandbox(engine, data=sandbox_data, owner=installation_id(sandbox_data), pool=PoolSettings(size=1))
    yield opened
    await opened.close()


def job(source: str, **limits: float) -> Job:
    return Job("run_pool", "k", source.encode(), b"", Limits.model_validate(limits))


async def ready(warm: Sandbox, wanted: Job) -> None:
    warm.pool.want(await warm.kind(wanted))
    assert await warm.pool.full(60)


async def test_a_box_serves_one_call_and_leaves_nothing_to_the_next(warm: Sandbox) -> None:
    leave = job(
        "import os; open('/tmp/left', 'w').write('x'); open('/dev/shm/left', 'w').write('x'); print(os.getpid())"
    )
    await ready(warm, leave)
    first = await warm.run(leave)
    assert (first.ending, first.pooled) == (Ending.SUCCEEDED, True)
    assert await warm.pool.full(60)
    look = await warm.run(job("import os; print(os.listdir('/tmp'), os.listdir('/dev/shm'), os.listdir('/work'))"))
    assert (look.pooled, look.stdout) == (True, b"[] [] ['run.py']\n")


async def test_dry_pool_starts_cold_and_says_so(warm: Sandbox) -> None:
    ran = await warm.run(job("print(1)"))
    assert (ran.pooled, warm.pool.stats.dry, warm.pool.stats.hits) == (False, 1, 0)


async def test_other_limits_are_another_kind_but_time_and_output_are_not(warm: Sandbox) -> None:
    await ready(warm, job(""))
    assert not (await warm.run(job("print(1)", memory_mb=64))).pooled
    ran = await warm.run(job("import time; time.sleep(9)", timeout_s=0.5))
    assert (ran.pooled, ran.ending) == (True, Ending.TIMEOUT)


async def test_a_box_that_died_waiting_is_not_handed_out(warm: Sandbox) -> None:
    await ready(warm, job(""))
    async with asyncio.timeout(60):
        while len(found := await leftovers(warm)) != 1:  # noqa: ASYNC110  (those of other tests go)
            await asyncio.sleep(0.05)
    (name,) = found
    await warm.engine.dispose(name.strip("[]'/"), patience_s=0)
    ran = await warm.run(job("print(1)"))
    assert (ran.ending, ran.pooled) == (Ending.SUCCEEDED, False)


async def test_old_boxes_are_replaced(engine: Engine, sandbox_data: Path) -> None:
    settings = PoolSettings(size=1, max_age_s=0.3)
    old = Sandbox(engine, data=sandbox_data, owner=installation_id(sandbox_data), pool=settings)
    await ready(old, job(""))
    await asyncio.sleep(0.4)
    assert not (await old.run(job("print(1)"))).pooled
    assert old.pool.stats.expired >= 1
    await old.close()
    await nothing_left(old)


async def test_the_total_is_bounded_and_the_longest_unused_gives_way(engine: Engine, sandbox_data: Path) -> None:
    settings = PoolSettings(size=1, total=1)
    small = Sandbox(engine, data=sandbox_data, owner=installation_id(sandbox_data), pool=settings)
    await ready(small, job(""))
    small.pool.want(await small.kind(job("", memory_mb=64)))
    deadline = time.monotonic() + 60
    while not (ran := await small.run(job("print(1)", memory_mb=64))).pooled:
        assert time.monotonic() < deadline
    assert ran.ending is Ending.SUCCEEDED
    assert small.pool.waiting <= 1
    await small.close()
    await nothing_left(small)


async def test_an_engine_that_refuses_is_not_pestered(warm: Sandbox) -> None:
    kind = await warm.kind(job(""))
    warm.pool.want(Box("sha256:" + "0" * 64, kind.architecture, kind.limits, kind.command, {}))
    async with asyncio.timeout(60):
        while not warm.pool.stats.failed:  # noqa: ASYNC110  (a number)
            await asyncio.sleep(0.02)
    await asyncio.sleep(0.5)
    assert warm.pool.stats.failed == 1


async def test_boxes_of_a_run_go_with_it(warm: Sandbox, workspaces: Workspaces) -> None:
    await workspaces.open("run_own", ())
    try:
        mount = await workspaces.mount("run_own", writable=True)
        own = Job("run_own", "k", b"open('out/x', 'a').write('x')", b"", workspace=mount)
        await warm.run(own)
        assert await warm.pool.full(60)
        assert (await warm.run(own)).pooled
        assert await warm.pool.full(60)
        other = WorkspaceMount(mount.volume + "x", mount.writable, mount.labels)
        assert warm.pool.take(await warm.kind(Job("run_own", "k", b"", b"", workspace=other))) is None
        # The next run in a workspace is expected to begin as this one did.
        await warm.expect(mount)
        assert await warm.clear_run("run_own") == 0
        assert [name for name in await leftovers(warm, "run_own") if "call" in name] == []
    finally:
        await workspaces.remove("run_own")


async def test_a_run_closed_by_another_worker_is_not_waited_for(
    warm: Sandbox, sandbox: Sandbox, workspaces: Workspaces
) -> None:
    """Two workers of one installation: the one that closes the run finds the other's boxes in its way."""
    await workspaces.open("run_shared", ())
    mount = await workspaces.mount("run_shared", writable=True)
    await ready(warm, Job("run_shared", "k", b"", b"", workspace=mount))
    assert warm.pool.waiting == 1
    # Not cleared before: also a box that came up after the clearing must not hold the volume.
    await workspaces.remove("run_shared")
    assert await leftovers(sandbox, "run_shared") == []
    deadline = time.monotonic() + 60
    while warm.pool.waiting:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.1)
    assert await warm.pool.full(60)
    assert warm.pool.waiting == warm.pool.stats.started - 1 == 0
    assert await leftovers(sandbox, "run_shared") == []


async def test_the_waiting_interpreter_looks_freshly_started(warm: Sandbox) -> None:
    """Same arguments, flags, variables and traceback as one started by name."""
    source = """
import os, sys, pickle
class Thing: pass
print(sys.argv, sys.flags, __name__, __file__, sorted(os.environ), sorted(n for n in globals() if n[0] != '_'))
print(sys.path, os.getcwd(), sorted(os.listdir('/proc/self/fd')), type(pickle.loads(pickle.dumps(Thing()))).__name__)
sys.stdout.flush()
def deep(): raise ValueError('why')
deep()
"""
    waited = await warm.run(job(source))
    by_name = await warm.run(Job("r", "k", source.encode(), b"", command=("python3", "-IB", "/work/run.py")))
    assert waited.stdout == by_name.stdout
    assert waited.stderr == by_name.stderr
    assert waited.exit_code == by_name.exit_code == 1


async def test_many_calls_at_once_all_finish(engine: Engine, sandbox_data: Path) -> None:
    """Fifty on two processors: none starves, and no more boxes than slots exist at any time."""
    busy = Sandbox(engine, data=sandbox_data, owner=installation_id(sandbox_data), max_boxes=8, pool=PoolSettings())
    most = 0
    await nothing_left(busy)

    async def watch() -> None:
        nonlocal most
        while True:
            most = max(most, len(await leftovers(busy)))
            await asyncio.sleep(0.25)

    watching = asyncio.create_task(watch())
    try:
        ran = await asyncio.gather(*(busy.run(job(f"print({n})")) for n in range(50)))
    finally:
        watching.cancel()
        await busy.close()
    assert [r.stdout for r in ran] == [b"%d\n" % n for n in range(50)]
    assert most <= 8 + PoolSettings().total
    await nothing_left(busy)
