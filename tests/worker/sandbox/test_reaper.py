"""Leftovers of dead workers go; what lives, or belongs to others, stays."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Collection
from pathlib import Path

from tests.fixtures.sandbox import leftovers
from worker.sandbox import engine as names
from worker.sandbox import lifetime
from worker.sandbox.container import Job, Sandbox
from worker.sandbox.process import is_dead, this_process
from worker.sandbox.reaper import Reaper
from worker.sandbox.workspace import Workspaces

ROOT = Path(__file__).resolve().parents[3]

# A worker that starts a long call and is then killed. With "kept", its box stays although its worker is gone.
WORKER = """
import asyncio, sys
from pathlib import Path
from worker.sandbox.engine import Engine, installation_id
from worker.sandbox.container import Job, Sandbox

async def main():
    data = Path(sys.argv[1])
    async with Engine() as engine:
        sandbox = Sandbox(engine, data=data, owner=installation_id(data))
        async def standing(_: str):
            print("standing", flush=True)
        job = Job(run_id="run_killed", key="k", program=b"import time; time.sleep(100)", stdin=b"")
        await sandbox.run(job, commit=standing)

asyncio.run(main())
"""


async def none_closed(_: Collection[str]) -> set[str]:
    return set()


def start_worker(data: Path) -> subprocess.Popen[bytes]:
    worker = subprocess.Popen([sys.executable, "-c", WORKER, str(data)], cwd=ROOT, stdout=subprocess.PIPE)
    assert worker.stdout is not None
    assert worker.stdout.readline() == b"standing\n"
    return worker


def name_of_a_dead_process() -> str:
    source = "from worker.sandbox.process import this_process; print(this_process())"
    return subprocess.check_output([sys.executable, "-c", source], cwd=ROOT, text=True).strip()


async def test_box_of_a_killed_worker_ends_by_itself(sandbox: Sandbox, sandbox_data: Path) -> None:
    worker = await asyncio.to_thread(start_worker, sandbox_data)
    assert len(await leftovers(sandbox, "run_killed")) == 1
    worker.kill()
    worker.wait()
    started = time.monotonic()
    while await leftovers(sandbox, "run_killed"):
        assert time.monotonic() - started < 60  # its heartbeat is 1 s, its program 100 s
        await asyncio.sleep(0.1)


async def test_sweep_removes_what_a_killed_worker_left(sandbox: Sandbox, sandbox_data: Path) -> None:
    """Killed between creating and starting: such a container would stay for ever."""
    process = await asyncio.to_thread(name_of_a_dead_process)
    assert is_dead(process)
    image = (await sandbox.image("base")).id
    tag = os.urandom(4).hex()

    async def make(name: str, **labels: str) -> str:
        ours = {names.LABEL_OWNER: sandbox.owner, names.LABEL_RUN: f"run_swept_{tag}", names.LABEL_KIND: "call"}
        body = {"Image": image, "Cmd": ["true"], "Labels": {**ours, **labels}}
        await sandbox.engine.call(lambda api: api.create_container_from_config(body, name))
        return name

    soon, past = ({lifetime.LABEL_DEADLINE: str(int(time.time()) + s)} for s in (300, -1))
    early, late = ({lifetime.LABEL_DEADLINE_MONOTONIC: str(int(time.monotonic()) + s)} for s in (300, -1))
    dead, alive, afar = (
        {lifetime.LABEL_PROCESS: name} for name in (process, this_process(), "elsewhere.1:99999999:1")
    )  # fmt: skip
    gone = [
        await make(f"swept-dead-{tag}", **soon, **early, **dead),
        await make(f"swept-late-{tag}", **past, **late, **alive),
        await make(f"swept-late-by-a-clock-set-back-{tag}", **soon, **late, **alive),
        await make(f"swept-late-afar-{tag}", **past, **early, **afar),
        await make(f"swept-late-of-before-{tag}", **past, **alive),
    ]
    stays = [
        await make(f"kept-alive-{tag}", **soon, **early, **alive),
        await make(f"kept-under-a-clock-set-ahead-{tag}", **past, **early, **alive),
        await make(f"kept-other-{tag}", **{names.LABEL_OWNER: "other"}, **past),
        await make(f"kept-afar-{tag}", **soon, **late, **afar),
    ]
    try:
        assert (await Reaper(sandbox.engine, sandbox.owner, none_closed).sweep()).containers == len(gone)
        left = await sandbox.engine.find_containers({names.LABEL_RUN: f"run_swept_{tag}"})
        assert sorted(str(c["Names"]) for c in left) == sorted(str([f"/{name}"]) for name in stays)
    finally:
        for name in stays:
            await sandbox.engine.dispose(name)


async def test_volumes_of_closed_runs_go(sandbox: Sandbox, workspaces: Workspaces) -> None:
    await workspaces.open("run_closed", ())
    await workspaces.open("run_open", ())

    async def closed(run_ids: Collection[str]) -> set[str]:
        assert {"run_closed", "run_open"} <= set(run_ids)
        return {"run_closed"}

    assert (await Reaper(sandbox.engine, sandbox.owner, closed).sweep()).volumes == 1
    assert await leftovers(sandbox, "run_closed") == []
    assert len(await leftovers(sandbox, "run_open")) == 1
    await workspaces.remove("run_open")


async def test_living_calls_are_left_alone(sandbox: Sandbox) -> None:
    async def sweep(_: str) -> None:
        assert (await Reaper(sandbox.engine, sandbox.owner, none_closed).sweep()).containers == 0

    ran = await sandbox.run(Job(run_id="run_alive", key="k", program=b"print(1)", stdin=b""), commit=sweep)
    assert ran.stdout == b"1\n"


def test_a_process_is_known_by_more_than_its_pid() -> None:
    here, pid, start = this_process().split(":")
    assert not is_dead(this_process())
    assert is_dead(f"{here}:{pid}:{int(start) - 1}")
    assert not is_dead(f"elsewhere:{pid}:1")
    assert not is_dead("")
    child = subprocess.Popen(["sleep", "60"])
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert is_dead(f"{here}:{child.pid}:1")
