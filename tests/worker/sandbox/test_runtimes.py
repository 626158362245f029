"""What an engine may offer beyond the usual: gVisor's runtime, a remapped user namespace. Engines of the tests' own.

Each test that needs gVisor is skipped, with the reason, where the program `runsc` is missing.
"""

import asyncio
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.fixtures import own_engine
from tests.fixtures.egress import HOST, Sites
from tests.fixtures.own_engine import OwnEngine
from tests.fixtures.sandbox import leftovers, nothing_left
from tests.worker.sandbox.abuse.probes import BOMBS, ESCAPES, INIT, Probe
from tools.contract import JsonObject, Limits
from tools.egress import rules
from worker.sandbox.container import BoxLost, Ending, Job, Sandbox
from worker.sandbox.egress import Egress, through
from worker.sandbox.engine import Engine, SandboxUnavailable, installation_id
from worker.sandbox.grant import Grant
from worker.sandbox.pool import PoolSettings
from worker.sandbox.profile import BOX_UID
from worker.sandbox.proven import ProvenSandbox, choose
from worker.sandbox.workspace import Workspaces
from worker.store.blobs import Blobs

FIRST_UID = 231_072
PROBES = {probe.name: probe for probe in (*BOMBS, *ESCAPES, *INIT)}


def _ready(engine: OwnEngine, sandbox_data: Path) -> Iterator[OwnEngine]:
    try:
        engine.start()
        engine.take_images(sandbox_data, engine.folder / "installation")
        yield engine
    finally:
        engine.close()


@pytest.fixture(scope="module")
def gvisor(sandbox_data: Path) -> Iterator[OwnEngine]:
    """Offers runsc, by way of a script that a test may break."""
    reason = own_engine.unavailable()
    runsc = shutil.which("runsc")
    if reason or runsc is None:
        pytest.skip(reason or "not on this machine: runsc (Debian's package of that name)")
    engine = OwnEngine()
    # Of its own network stack a box needs nothing; older releases cannot bring one up on newer kernels.
    settings: JsonObject = {"path": str(engine.folder / "runsc"), "runtimeArgs": ["--network=none"]}
    engine.settings["runtimes"] = {"runsc": settings}
    mend(engine)
    yield from _ready(engine, sandbox_data)


def mend(engine: OwnEngine, script: str = 'exec runsc "$@"') -> None:
    path = engine.folder / "runsc"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


@pytest.fixture(scope="module")
def remapped(sandbox_data: Path) -> Iterator[OwnEngine]:
    """Runs with userns-remap; the ids it may use are written where only this engine sees them."""
    if reason := own_engine.unavailable():
        pytest.skip(reason)
    engine = OwnEngine({"userns-remap": "daemon"})
    for name in ("subuid", "subgid"):
        (engine.folder / name).write_text(f"daemon:{FIRST_UID}:65536\n")
        engine.before.append(f"mount --bind {engine.folder}/{name} /etc/{name}")
    # The remapped root has to get through to its folders.
    engine.folder.chmod(0o711)
    yield from _ready(engine, sandbox_data)


@pytest.fixture
async def guarded(gvisor: OwnEngine) -> AsyncIterator[ProvenSandbox]:
    data = gvisor.folder / "installation"
    async with Engine(gvisor.address) as engine:
        opened = ProvenSandbox(engine, data=data, owner=installation_id(data), pool=PoolSettings(size=1))
        await opened.prove()
        yield opened
        await opened.close()
        await nothing_left(opened)


@pytest.fixture
async def mapped(remapped: OwnEngine) -> AsyncIterator[ProvenSandbox]:
    data = remapped.folder / "installation"
    async with Engine(remapped.address) as engine:
        opened = ProvenSandbox(engine, data=data, owner=installation_id(data))
        await opened.prove()
        yield opened
        await opened.close()
        await nothing_left(opened)


def job(probe: Probe) -> Job:
    limits = Limits.model_validate({"timeout_s": 60, **probe.limits})
    return Job("run_runtime", "k", probe.source.encode(), b"", limits)


# ---------------------------------------------------------------- gVisor


async def test_it_is_used_where_it_is_offered_and_proved(guarded: ProvenSandbox) -> None:
    seen: list[JsonObject] = []

    async def look(box: str) -> None:
        seen.append(await guarded.engine.call(lambda api: api.inspect_container(box)))

    ran = await guarded.run(Job("r", "k", b"import os; print(os.uname().release)", b""), commit=look)
    host = seen[0]["HostConfig"]
    assert isinstance(host, dict)
    assert (guarded.runtime, host["Runtime"]) == ("runsc", "runsc")
    assert ran.stdout.decode().strip() != (await guarded.facts()).kernel


async def test_a_box_of_it_may_wait_in_the_pool(guarded: ProvenSandbox) -> None:
    wanted = Job("r", "k", b"import json, sys; print(json.load(sys.stdin) + 1)", b"41")
    guarded.pool.want(await guarded.kind(wanted))
    assert await guarded.pool.full(60)
    ran = await guarded.run(wanted)
    assert (ran.pooled, ran.stdout) == (True, b"42\n")


async def test_a_run_keeps_its_files(guarded: ProvenSandbox, tmp_path: Path) -> None:
    await carries_files(guarded, tmp_path)


ENDINGS = {
    "busy for ever": Ending.TIMEOUT, "memory bomb": Ending.OOM, "output bomb": Ending.OUTPUT_LIMIT,
    "ignoring every signal": Ending.TIMEOUT, "double fork out of its session": Ending.TIMEOUT,
}  # fmt: skip


@pytest.mark.parametrize("name", ENDINGS)
async def test_endings_are_typed(guarded: ProvenSandbox, name: str) -> None:
    assert (await guarded.run(job(PROBES[name]))).ending is ENDINGS[name]


SHUT = (
    "docker socket", "files of the host", "other processes of the host", "capabilities",
    "secrets in the environment", "overwriting the programs of the box", "network devices",
)  # fmt: skip


@pytest.mark.parametrize("name", SHUT)
async def test_probes_find_nothing(guarded: ProvenSandbox, name: str) -> None:
    # What gVisor's kernel does not show of a process is no way out of it.
    source = PROBES[name].source.replace("if 'NoNewPrivs:\\t1' not in s: won('new privileges')", "")
    ran = await guarded.run(Job("run_runtime", "k", source.encode(), b"", Limits(timeout_s=60)))
    assert b"ESCAPED" not in ran.stdout, ran


FORGE = """
import os
out = os.open("/proc/1/fd/1", os.O_WRONLY)
for report in (b"why=0 code=0 oom=0 ms=1 cpu_us=1 peak=1", b"0 why=0 code=0", b"%d why=0 code=0" % (1 << 64)):
    os.write(out, b"X" + len(report).to_bytes(4, "big") + report)
os._exit(7)
"""


async def test_a_forged_report_is_not_believed(guarded: ProvenSandbox) -> None:
    """Its kernel opens the output of process 1 to the program: the report's token is what counts there."""
    with pytest.raises(BoxLost, match="not from process 1"):
        await guarded.run(Job("r", "k", FORGE.encode(), b""))


@pytest.mark.parametrize("name", ["fork bomb", "killing process 1"])
async def test_what_breaks_its_kernel_breaks_its_own_box_only(guarded: ProvenSandbox, name: str) -> None:
    """No ending is made up for it: the program stands to its limit, or its box is lost; the next one works."""
    try:
        ran = await guarded.run(job(PROBES[name]))
    except BoxLost:
        pass
    else:
        assert PROBES[name].seen(ran), ran
    await guarded.settled()
    assert await leftovers(guarded, "run_runtime") == []
    assert (await guarded.run(Job("r", "k", b"print(1)", b""))).stdout == b"1\n"


async def test_one_that_does_not_work_is_left_out_or_refused(gvisor: OwnEngine) -> None:
    data = gvisor.folder / "installation"
    mend(gvisor, "exit 1")
    try:
        async with Engine(gvisor.address) as engine:
            opened = Sandbox(engine, data=data, owner=installation_id(data))
            assert await choose(opened, "auto") == ""
            assert (await opened.run(Job("r", "k", b"print(1)", b""))).stdout == b"1\n"
            with pytest.raises(SandboxUnavailable):
                await choose(opened, "runsc")
            await opened.close()
    finally:
        mend(gvisor)


async def test_where_it_is_asked_for_and_not_offered_nothing_runs(engine: Engine, sandbox_data: Path) -> None:
    opened = ProvenSandbox(engine, data=sandbox_data, owner=installation_id(sandbox_data), wanted="runsc")
    if "runsc" in (await opened.facts()).runtimes:
        pytest.skip("this machine's engine offers runsc")
    with pytest.raises(SandboxUnavailable, match="does not offer the runtime runsc"):
        await opened.run(Job("r", "k", b"print(1)", b""))
    await opened.close()


# ---------------------------------------------------------------- a remapped user namespace


async def test_its_root_is_nobody_on_the_host(mapped: ProvenSandbox) -> None:
    seen: list[tuple[str, str]] = []

    async def look(box: str) -> None:
        state = (await mapped.engine.call(lambda api: api.inspect_container(box)))["State"]
        assert isinstance(state, dict)
        process = Path(f"/proc/{state['Pid']}")
        seen.append(((process / "uid_map").read_text(), (process / "status").read_text()))

    await mapped.run(Job("r", "k", b"print(1)", b""), commit=look)
    ((uid_map, status),) = seen
    assert uid_map.split() == ["0", str(FIRST_UID), "65536"]
    uid = str(FIRST_UID + BOX_UID)
    assert f"Uid:\t{uid}\t{uid}\t{uid}\t{uid}\n" in status
    assert (await mapped.facts()).userns


async def test_files_are_carried_over_the_mapping(mapped: ProvenSandbox, tmp_path: Path) -> None:
    await carries_files(mapped, tmp_path)


async def test_the_way_out_leads_through_the_mapping(mapped: ProvenSandbox, sites: Sites, tmp_path: Path) -> None:
    source = f"import urllib.request; print(urllib.request.urlopen('http://{HOST}/', timeout=30).read().decode())"
    async with Egress(tmp_path / "egress", resolve=sites.resolve).open(Grant(rules([f"{HOST}:80"]))) as way:
        ran = await mapped.run(through(Job("r", "k", source.encode(), b"", Limits(timeout_s=60)), way))
    assert ran.stdout == b"hello\n", ran


async def carries_files(sandbox: Sandbox, tmp_path: Path) -> None:
    """From a staged file through a call that writes, and one that may only read, to an artifact."""
    blobs = Blobs(tmp_path / "blobs")
    workspaces = Workspaces(sandbox, blobs)
    await workspaces.open("run_files", ())
    write = b"open('/workspace/out/x', 'w').write('from the box')"
    change = b"try: open('/workspace/out/x', 'w')\nexcept OSError: print('read-only')"
    for source, writable in ((write, True), (change, False)):
        mount = await workspaces.mount("run_files", writable=writable)
        ran = await sandbox.run(Job("run_files", "k", source, b"", workspace=mount))
        assert ran.ending is Ending.SUCCEEDED, ran
    assert ran.stdout == b"read-only\n"
    await asyncio.wait_for(sandbox.settled(), 60)
    (artifact,) = (await workspaces.collect("run_files")).artifacts
    assert await blobs.read(artifact.sha256) == b"from the box"
    await workspaces.remove("run_files")
