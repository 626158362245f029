"""What a box costs: a call from the pool and a cold one, beside no box, a shared container, and `docker run --rm`.

`python -m benchmarks.sandbox`; all paths interleaved in one run. The last line is one JSON object: name, medians (ms),
ratios, load. Exit status 1 when a target is missed. Each path runs the same command; `waiting` runs `print(1)` as a
tool's program does, in an interpreter that was started ahead in the same single-use box.
"""

import asyncio
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import docker

from tools.contract import JsonObject, Limits
from worker.sandbox.container import PROGRAM_COMMAND, Ending, Job, Sandbox
from worker.sandbox.engine import Engine, installation_id
from worker.sandbox.images import ImageStore
from worker.sandbox.pool import PoolSettings
from worker.sandbox.profile import Box
from worker.sandbox.standing import Standing

ROUNDS = int(os.environ.get("ROUNDS", "30"))
# Long enough for the boxes that wait unused at its end not to count much.
BURST = int(os.environ.get("BURST", "60"))
PYTHON = "/usr/bin/python3" if Path("/usr/bin/python3").exists() else sys.executable
SH = ("sh", "-c", "true")
PY = ("python3", "-c", "print(1)")
TARGETS = {
    "pooled_python_to_plain": 1.3, "pooled_python_to_docker_run": 1 / 12, "waiting_python_to_plain": 0.6,
    "cold_python_to_docker_run": 1.0,
}  # fmt: skip
THROUGHPUT_TARGET = 0.9


def job(command: tuple[str, ...], program: bytes = b"") -> Job:
    return Job(run_id="bench", key="bench", program=program, stdin=b"", limits=Limits(timeout_s=30), command=command)


WAITING = job(PROGRAM_COMMAND, b"print(1)")


class Paths:
    """Every way to run a command, each a coroutine that returns when the result is in hand."""

    def __init__(self, sandbox: Sandbox, cold: Sandbox, image: str) -> None:
        self.sandbox, self.cold, self.image = sandbox, cold, image
        self.api: Any = docker.APIClient(version="auto")
        body: JsonObject = {"Image": image, "Cmd": ["sleep", "3600"], "Labels": {"gatehouse.bench": "1"}}
        body["HostConfig"] = {"NetworkMode": "none", "AutoRemove": True}
        self.shared = str(self.api.create_container_from_config(body)["Id"])
        self.api.start(self.shared)

    def close(self) -> None:
        self.api.kill(self.shared)
        self.api.close()

    async def plain(self, command: tuple[str, ...]) -> None:
        own = (PYTHON, *command[1:]) if command[0] == "python3" else command
        await asyncio.to_thread(subprocess.run, own, stdout=subprocess.PIPE, check=True)

    async def docker_exec(self, command: tuple[str, ...]) -> None:
        def work() -> None:
            made = self.api.exec_create(self.shared, list(command))
            self.api.exec_start(made["Id"])
            assert self.api.exec_inspect(made["Id"])["ExitCode"] == 0

        await asyncio.to_thread(work)

    async def docker_run(self, command: tuple[str, ...]) -> None:
        name = ["docker", "run", "--rm", "--network", "none", "--label", "gatehouse.bench=1", self.image]
        await asyncio.to_thread(subprocess.run, [*name, *command], stdout=subprocess.PIPE, check=True)

    async def boxed(self, sandbox: Sandbox, wanted: Job, *, pooled: bool) -> None:
        ran = await sandbox.run(wanted)
        assert (ran.ending, ran.pooled) == (Ending.SUCCEEDED, pooled), ran

    def all(self) -> dict[str, Callable[[], Awaitable[None]]]:
        found: dict[str, Callable[[], Awaitable[None]]] = {
            "waiting_python": lambda: self.boxed(self.sandbox, WAITING, pooled=True)
        }
        for name, command in (("sh", SH), ("python", PY)):
            found |= {
                f"plain_{name}": lambda c=command: self.plain(c),
                f"pooled_{name}": lambda c=command: self.boxed(self.sandbox, job(c), pooled=True),
                f"docker_exec_{name}": lambda c=command: self.docker_exec(c),
                f"cold_{name}": lambda c=command: self.boxed(self.cold, job(c), pooled=False),
            }
            if shutil.which("docker"):
                found[f"docker_run_{name}"] = lambda c=command: self.docker_run(c)
        return found

    async def calm(self) -> None:
        """Refills and removals are over: what follows is measured alone."""
        assert await self.sandbox.pool.full(30)
        await self.sandbox.settled()
        await self.cold.settled()


async def latencies(paths: Paths) -> dict[str, list[float]]:
    times: dict[str, list[float]] = {name: [] for name in paths.all()}
    for _ in range(ROUNDS):
        for name, call in paths.all().items():
            await paths.calm()
            started = time.perf_counter()
            await call()
            times[name].append((time.perf_counter() - started) * 1000)
    return times


async def rate(work: Callable[[], Awaitable[None]], after: Callable[[], Awaitable[object]]) -> float:
    """How many a second, four at a time, everything cleared away at the end."""
    left = list(range(BURST))

    async def one() -> None:
        while left:
            left.pop()
            await work()

    started = time.perf_counter()
    await asyncio.gather(*(one() for _ in range(4)))
    await after()
    return BURST / (time.perf_counter() - started)


async def throughput(engine: Engine, data: Path, kind: Box) -> tuple[float, float, float]:
    """Calls a second beyond what a pool can hold, containers a second that are only made and removed, hit rate."""
    alone: list[float] = []
    calls: list[float] = []
    hits = 0.0

    async def make_and_remove() -> None:
        standing = Standing(engine, kind)
        body = standing.box.body()
        await engine.call(lambda api: api.create_container_from_config(body, standing.name))
        await engine.call(lambda api: api.start(standing.name))
        await engine.dispose(standing.name, patience_s=0)

    async def nothing() -> None:
        pass

    for _ in range(3):
        alone.append(await rate(make_and_remove, nothing))
        sandbox = Sandbox(engine, data=data, owner=installation_id(data), pool=PoolSettings(size=2))

        async def call(sandbox: Sandbox = sandbox) -> None:
            assert (await sandbox.run(WAITING)).ending is Ending.SUCCEEDED

        calls.append(await rate(call, sandbox.close))
        hits = sandbox.pool.stats.hit_rate
    return statistics.median(calls), statistics.median(alone), hits


async def paced(engine: Engine, data: Path, seconds: int = 15) -> tuple[float, float, float]:
    """One call a second from a pool of two: hit rate, median ms, refill ms for each box."""
    sandbox = Sandbox(engine, data=data, owner=installation_id(data), pool=PoolSettings(size=2))
    sandbox.pool.want(await sandbox.kind(WAITING))
    await sandbox.pool.full(30)
    times: list[float] = []
    for _ in range(seconds):
        started = time.perf_counter()
        await sandbox.run(WAITING)
        times.append(time.perf_counter() - started)
        await asyncio.sleep(max(0.0, 1 - times[-1]))
    await sandbox.close()
    stats = sandbox.pool.stats
    return stats.hit_rate, statistics.median(times) * 1000, stats.refill_ms / max(1, stats.started)


async def measure(data: Path) -> int:
    before = round(os.getloadavg()[0], 2)
    image = ImageStore(data, lambda line: print(line, file=sys.stderr)).ensure().id
    async with Engine() as engine:
        owner = installation_id(data)
        sandbox = Sandbox(engine, data=data, owner=owner, pool=PoolSettings(size=1))
        cold = Sandbox(engine, data=data, owner=owner)
        paths = Paths(sandbox, cold, image)
        try:
            for wanted in (WAITING, job(SH)):
                sandbox.pool.want(await sandbox.kind(wanted))
            times = await latencies(paths)
        finally:
            paths.close()
            await sandbox.close()
            await cold.close()
        # A kind's labels are those of whoever starts it.
        kind = cold.labelled(await cold.kind(WAITING))
        calls, alone, burst_hits = await throughput(engine, data, kind)
        hit_rate, paced_ms, refill_ms = await paced(engine, data)
    return report(times, calls, alone, burst_hits, (hit_rate, paced_ms, refill_ms), before)


def report(
    times: dict[str, list[float]], calls: float, alone: float, burst_hits: float,
    paced_: tuple[float, float, float], before: float,
) -> int:  # fmt: skip
    medians = {name: round(statistics.median(found), 2) for name, found in times.items()}
    for name, found in sorted(times.items(), key=lambda item: medians[item[0]]):
        found.sort()
        low, high = found[len(found) // 10], found[len(found) * 9 // 10]
        print(f"{name:<20} {medians[name]:8.1f} ms   p10 {low:7.1f}   p90 {high:7.1f}")
    pairs = [
        (f"{way}_{name}", f"{other}_{name}")
        for name in ("python", "sh")
        for way in ("pooled", "waiting", "cold")
        for other in ("plain", "docker_exec", "docker_run")
    ]
    ratios = {
        f"{ours}_to_{theirs.rpartition('_')[0]}": round(medians[ours] / medians[theirs], 3)
        for ours, theirs in pairs
        if ours in medians and theirs in medians
    }
    ratios["sustained_to_containers_alone"] = round(calls / alone, 3)
    hit_rate, paced_ms, refill_ms = paced_
    medians |= {
        "sustained_calls_per_s": round(calls, 2), "containers_alone_per_s": round(alone, 2),
        "refill": round(refill_ms, 1), "paced_1_per_s": round(paced_ms, 1),
    }  # fmt: skip
    print(f"sustained {calls:.2f} calls/s ({burst_hits:.0%} from the pool); containers alone {alone:.2f}/s")
    print(
        f"one call/s from a pool of two: hit rate {hit_rate:.0%}, {paced_ms:.1f} ms; a refill costs {refill_ms:.0f} ms"
    )
    missed = 0
    for name, ratio in ratios.items():
        line, good = f"{name:<32} {ratio:7.3f}", True
        if name in TARGETS:
            good = ratio <= TARGETS[name]
            line += f"   at most {TARGETS[name]:.3f}: {'held' if good else 'missed'}"
        elif name == "sustained_to_containers_alone":
            good = ratio >= THROUGHPUT_TARGET
            line += f"   at least {THROUGHPUT_TARGET}: {'held' if good else 'missed'}"
        missed += not good
        print(line)
    load = [round(number, 2) for number in os.getloadavg()]
    print(f"{ROUNDS} interleaved rounds on {os.cpu_count()} processors; load {before:.2f} before, {load[0]:.2f} after")
    hits = {"paced": round(hit_rate, 3), "burst": round(burst_hits, 3)}
    result = {
        "name": "sandbox",
        "medians": medians,
        "ratios": ratios,
        "hit_rate": hits,
        "load": load[0],
        "load_before": before,
    }
    print(json.dumps(result))
    return 1 if missed else 0


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="gatehouse-bench-") as folder:
        sys.exit(asyncio.run(measure(Path(folder))))
