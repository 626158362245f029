"""The abuse suite: every probe in a cold box and in one from the pool, the host looking on; and what shows that the
probes would notice."""

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import cast

import pytest

from tests.fixtures.sandbox import nothing_left
from tests.worker.sandbox.abuse import host
from tests.worker.sandbox.abuse.host import HOLD, Observer, Seen
from tests.worker.sandbox.abuse.probes import ALL, BOXES, SYSTEM_CALLS, Probe
from tools.contract import JsonObject, Limits
from worker.sandbox.container import Job, Ran, Sandbox
from worker.sandbox.engine import Engine, installation_id
from worker.sandbox.pool import PoolSettings
from worker.sandbox.profile import Box
from worker.sandbox.standing import Standing

BY_NAME = {probe.name: probe for probe in ALL}


def job(probe: Probe) -> Job:
    limits = Limits.model_validate({"timeout_s": 120 if probe.holds else 60, **probe.limits})
    return Job("run_abuse", "abuse", probe.program.encode(), b"", limits)


@pytest.fixture(scope="module")
async def pooled(engine: Engine, sandbox_data: Path) -> AsyncIterator[Sandbox]:
    settings = PoolSettings(size=3, total=6)
    opened = Sandbox(engine, data=sandbox_data, owner=installation_id(sandbox_data), pool=settings)
    yield opened
    await opened.close()
    await nothing_left(opened)


def test_there_are_enough_and_no_two_are_called_the_same() -> None:
    assert len(ALL) == len(BY_NAME) >= 50


# In groups of boxes, four boxes at a time: more is not faster on two processors.
GROUPS = [BOXES[start : start + 12] for start in range(0, len(BOXES), 12)]


async def watched(sandbox: Sandbox, probe: Probe) -> tuple[Ran, Seen | None]:
    """The probe's end, and what the host saw of it."""
    wanted = job(probe)
    observer = Observer(sandbox.engine, await sandbox.kind(wanted), lets_go=HOLD in probe.program)
    ran = await sandbox.run(wanted, commit=observer.commit if host.available() else None)
    return ran, await observer.done()


def problems(probe: Probe, ran: Ran, seen: Seen | None) -> list[str]:
    """What is wrong by the end of the call, and by the host's look at it."""
    found = [] if probe.seen(ran) else [f"it ended like this: {ran}"]
    # Of the program's own time: a cold start on a busy machine is no fault of the box, nor is a host slow to look.
    if not probe.holds and ran.duration_ms / 1000 > probe.within_s:
        found.append(f"it took {ran.duration_ms} ms")
    if seen is not None:
        found += [*seen.violations, *([] if probe.host(seen) else [f"the host saw {seen}"])]
    elif probe.holds and host.available():
        found.append(f"it never stood still: {ran}")
    return found


async def failures(run: Callable[[Probe], Awaitable[tuple[Ran, Seen | None]]], probes: tuple[Probe, ...]) -> list[str]:
    few = asyncio.Semaphore(4)

    async def one(probe: Probe) -> list[str]:
        async with few:
            return [f"{probe.name}: {problem}" for problem in problems(probe, *await run(probe))]

    before = host.host_state()
    found = [problem for one_s in await asyncio.gather(*(one(probe) for probe in probes)) for problem in one_s]
    return found + host.changes(before)


@pytest.mark.parametrize("probes", GROUPS, ids=[f"{group[0].name} to {group[-1].name}" for group in GROUPS])
async def test_cold(sandbox: Sandbox, probes: tuple[Probe, ...]) -> None:
    assert await failures(lambda probe: watched(sandbox, probe), probes) == []


@pytest.mark.parametrize("probes", GROUPS, ids=[f"{group[0].name} to {group[-1].name}" for group in GROUPS])
async def test_from_the_pool(pooled: Sandbox, probes: tuple[Probe, ...]) -> None:
    async def run(probe: Probe) -> tuple[Ran, Seen | None]:
        pooled.pool.want(await pooled.kind(job(probe)))
        await pooled.pool.full(60)
        while not (ran := await watched(pooled, probe))[0].pooled:
            await pooled.pool.full(60)
        return ran

    assert await failures(run, probes) == []


@dataclasses.dataclass(frozen=True)
class Loose(Box):
    """A box with one thing not as it must be."""

    change: Callable[[JsonObject], None] = lambda _: None

    def body(self) -> JsonObject:
        body = super().body()
        self.change(body)
        return body

    def mismatches(self, inspected: JsonObject) -> list[str]:  # noqa: ARG002 - overridden
        # What the verification notices is tested elsewhere; here the box shall come up nevertheless.
        return []


SHUT = "rw,noexec,nosuid,nodev"
SCRATCH = {"/tmp": f"{SHUT},size=64m,nr_inodes=8192,mode=1777",
           "/work": "rw,noexec,nosuid,nodev,size=64m,mode=0700,uid=41001,gid=41001"}  # fmt: skip
NO_FILTER = ["no-new-privileges:true", "seccomp=unconfined"]
# What is loosened: the probe that must fail then, by what the host sees, and how the create request is changed.
LOOSENED: dict[str, tuple[str, str, dict[str, object]]] = {
    "filter": ("unshare user namespace", "Seccomp", {"SecurityOpt": ["no-new-privileges:true", "seccomp=unconfined"]}),
    "namespaces": ("unshare user namespace", "another user", {"SecurityOpt": ["seccomp=unconfined"]}),
    "capabilities": ("capabilities", "CapBnd", {"CapDrop": [], "CapAdd": ["NET_RAW"]}),
    "raw sockets": ("raw socket", "raw socket", {"CapDrop": [], "CapAdd": ["NET_RAW"], "User": "0:0"}),
    "user": ("root by setuid", "user: ", {"User": "0:0", "Tmpfs": {"/tmp": SHUT, "/work": SHUT}}),
    "no new privileges": ("capabilities", "NoNewPrivs", {"SecurityOpt": []}),
    "processes": ("thread bomb", "the host saw", {"PidsLimit": 400}),
    "memory": ("memory bomb in many children", "it ended", {"Memory": 0, "MemorySwap": 0}),
    "memory, by its number": ("capabilities", "limit: memory", {"Memory": 1 << 30, "MemorySwap": 1 << 30}),
    "processor": ("capabilities", "limit: cpu", {"CpuQuota": 0}),
    "network": ("network devices", "interface eth0", {"NetworkMode": "bridge"}),
    "host's network": ("capabilities", "host's net", {"NetworkMode": "host"}),
    "masks": ("masked kernel files", "is not covered", {"MaskedPaths": []}),
    "read-only paths": ("capabilities", "/proc/sys is not covered", {"ReadonlyPaths": []}),
    "root": ("overwriting the programs of the box", "root can be written", {"ReadonlyRootfs": False}),
    "tmpfs": ("running what it wrote", "/tmp is ", {"Tmpfs": {name: f"{how},exec" for name, how in SCRATCH.items()}}),
    "scratch": ("disk bomb", "the host saw", {"Tmpfs": {**SCRATCH, "/tmp": f"{SHUT},size=256m,mode=1777"}}),
    "inodes": ("inode bomb", "the host saw", {"Tmpfs": {**SCRATCH, "/tmp": f"{SHUT},nr_inodes=9999,mode=1777"}}),
    "shared memory": ("shared memory bomb", "the host saw", {"ShmSize": 64 << 20}),
    "files": ("open file bomb", "Max open files", {"Ulimits": [{"Name": "nofile", "Soft": 1024, "Hard": 1024}]}),
    "core dumps": ("capabilities", "Max core file", {"Ulimits": [{"Name": "nofile", "Soft": 256, "Hard": 256}]}),
    "host's queues": ("capabilities", "host's ipc", {"IpcMode": "host"}),
    "host's name": ("files of the host", "host's uts", {"UTSMode": "host"}),
    "host's control groups": ("capabilities", "host's cgroup", {"CgroupnsMode": "host"}),
    "host's folders": ("files of the host", "/mnt/host", {"Binds": ["/usr/share/doc:/mnt/host:ro"]}),
    "devices": ("devices of the host", "/dev/kvm", {"Devices": [
        {"PathOnHost": "/dev/full", "PathInContainer": "/dev/kvm", "CgroupPermissions": "rwm"}]}),
}  # fmt: skip


@pytest.mark.parametrize("what", LOOSENED)
async def test_loosened_and_its_probe_fails(engine: Engine, sandbox_data: Path, what: str) -> None:
    if not host.available():
        pytest.skip("only root can look at a box from the host")
    name, by, values = LOOSENED[what]
    probe = BY_NAME[name]

    class Loosened(Sandbox):
        async def kind(self, job: Job) -> Box:
            real = await super().kind(job)
            fields = {field.name: getattr(real, field.name) for field in dataclasses.fields(real)}

            def change(body: JsonObject) -> None:
                changed = cast(JsonObject, dict(values))
                if "User" in changed:
                    body["User"] = changed.pop("User")
                if "UTSMode" in changed or "NetworkMode" in changed:
                    # An engine refuses a name for a box that has not its own.
                    body.pop("Hostname")
                cast(JsonObject, body["HostConfig"]).update(changed)

            return Loose(**fields, change=change)

    loose = Loosened(engine, data=sandbox_data, owner=installation_id(sandbox_data))
    try:
        found = problems(probe, *await watched(loose, probe))
        assert any(by in problem for problem in found), (probe.name, found)
    finally:
        await loose.close()


async def test_the_verification_stops_what_the_probes_would_find(engine: Engine, sandbox_data: Path) -> None:
    class Careless(Box):
        def body(self) -> JsonObject:
            body = super().body()
            cast(JsonObject, body["HostConfig"])["PidsLimit"] = 0
            return body

    kind = await Sandbox(engine, data=sandbox_data, owner="nobody").kind(job(SYSTEM_CALLS[0]))
    labelled = Sandbox(engine, data=sandbox_data, owner=installation_id(sandbox_data)).labelled(kind)
    fields = {field.name: getattr(labelled, field.name) for field in dataclasses.fields(labelled)}
    standing = Standing(engine, Careless(**fields))
    try:
        with pytest.raises(Exception, match="pids: asked"):
            await standing.start()
    finally:
        await standing.end()
