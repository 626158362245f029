"""A program that looks for any way out of its box.

What counts is what listeners on the host saw, and the host's own view of the box; never what the program says. A
control shows that the same probe is seen from a box with a network.
"""

import asyncio
import contextlib
import json
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.fixtures.egress import HOST, Sites
from tools.contract import Limits
from tools.egress import rules
from worker.sandbox import engine as names
from worker.sandbox.container import Ending, Job, Ran, Sandbox
from worker.sandbox.egress import Egress, through
from worker.sandbox.engine import Engine, installation_id
from worker.sandbox.grant import Grant
from worker.sandbox.pool import PoolSettings
from worker.sandbox.selftest import IDLE_DEVICES

LIMITS = Limits(timeout_s=120, memory_mb=96)


@dataclass
class Ears:
    """Everything on this host that could hear a box: TCP and UDP on all addresses, and an abstract unix socket."""

    tcp: socket.socket
    udp: socket.socket
    abstract: socket.socket
    name: str = ""
    addresses: list[str] = field(default_factory=list[str])

    @property
    def tcp_port(self) -> int:
        return int(self.tcp.getsockname()[1])

    @property
    def udp_port(self) -> int:
        return int(self.udp.getsockname()[1])

    def heard(self) -> list[str]:
        """What arrived so far."""
        found: list[str] = []
        time.sleep(0.1)
        for name, ear in (("tcp", self.tcp), ("abstract", self.abstract)):
            with contextlib.suppress(BlockingIOError):
                while True:
                    ear.accept()[0].close()
                    found.append(name)
        with contextlib.suppress(BlockingIOError):
            while True:
                found.append(f"udp {self.udp.recv(100)!r}")
        return found


@pytest.fixture
def ears() -> Iterator[Ears]:
    made = Ears(socket.socket(), socket.socket(type=socket.SOCK_DGRAM), socket.socket(socket.AF_UNIX))
    made.name = f"\0gatehouse-ear-{time.monotonic_ns()}"
    made.tcp.bind(("0.0.0.0", 0))
    made.udp.bind(("0.0.0.0", 0))
    made.abstract.bind(made.name)
    for ear in (made.tcp, made.abstract):
        ear.listen(64)
    for ear in (made.tcp, made.udp, made.abstract):
        ear.setblocking(False)
    listed = json.loads(subprocess.run(["ip", "-j", "-4", "addr"], capture_output=True, check=True).stdout)
    made.addresses = [info["local"] for link in listed for info in link["addr_info"]]
    yield made
    for ear in (made.tcp, made.udp, made.abstract):
        ear.close()


@pytest.fixture(params=["cold", "pooled"])
async def box(
    request: pytest.FixtureRequest, engine: Engine, sandbox_data: Path
) -> AsyncIterator[Callable[[str], "asyncio.Future[Ran]"]]:
    """Runs a program in a box of either kind, and makes sure that it was that kind."""
    pooled = request.param == "pooled"
    settings = PoolSettings(size=1) if pooled else None
    opened = Sandbox(engine, data=sandbox_data, owner=installation_id(sandbox_data), pool=settings)

    async def run(source: str) -> Ran:
        job = Job("run_abuse", "k", source.encode(), b"", LIMITS)
        if pooled:
            opened.pool.want(await opened.kind(job))
            assert await opened.pool.full(60)
        ran = await opened.run(job)
        assert ran.pooled is pooled
        return ran

    yield lambda source: asyncio.ensure_future(run(source))
    await opened.close()


def knock(ears: Ears) -> str:
    """A program that tries everything to be heard, and prints how often no error stopped it."""
    addresses = [
        "127.0.0.1",
        "localhost",
        "host.docker.internal",
        "gateway.docker.internal",
        "0.0.0.0",
        *ears.addresses,
    ]
    return f"""
import socket
through = 0
for address in {addresses!r}:
    for kind, port in ((socket.SOCK_STREAM, {ears.tcp_port}), (socket.SOCK_DGRAM, {ears.udp_port})):
        try:
            with socket.socket(type=kind) as s:
                s.settimeout(0.5)
                s.connect((address, port))
                s.send(b"out")
                through += 1
        except OSError:
            pass
try:
    with socket.socket(type=socket.SOCK_DGRAM) as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        s.sendto(b"out", ("255.255.255.255", {ears.udp_port}))
except OSError:
    pass
try:
    with socket.socket(socket.AF_UNIX) as s:
        s.connect({ears.name!r})
        through += 1
except OSError:
    pass
print(through)
"""


Box = Callable[[str], "asyncio.Future[Ran]"]


async def test_host_gateway_and_loopback_hear_nothing(box: Box, ears: Ears) -> None:
    ran = await box(knock(ears))
    assert ran.ending is Ending.SUCCEEDED
    assert ears.heard() == []


async def test_control_the_same_probe_is_heard_from_a_box_with_a_network(sandbox: Sandbox, ears: Ears) -> None:
    """Loosen the network mode, and the probe above fails."""
    image = await sandbox.image("base")
    config = {
        "Image": image.id, "Cmd": ["python3", "-c", knock(ears)], "HostConfig": {"NetworkMode": "bridge"},
        "Labels": {names.LABEL_OWNER: sandbox.owner, names.LABEL_KIND: "call", names.LABEL_RUN: "run_control"},
    }  # fmt: skip
    made = str((await sandbox.engine.call(lambda api: api.create_container_from_config(config)))["Id"])
    try:
        await sandbox.engine.call(lambda api: api.start(made))
        deadline, heard = time.monotonic() + 60, list[str]()
        while not heard and time.monotonic() < deadline:
            heard = ears.heard()
            await asyncio.sleep(0.2)
        assert heard
    finally:
        await sandbox.clear_run("run_control")


SLEEPS = """
import socket, time
for address in (("169.254.169.254", 80), ("fd00:ec2::254", 80), ("100.100.100.200", 80), ("8.8.8.8", 53),
                ("1.1.1.1", 443)):
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        try:
            family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
            with socket.socket(family, kind) as s:
                s.settimeout(0.3)
                s.connect(address)
                s.send(b"x" * 30)
        except OSError:
            pass
try:
    socket.getaddrinfo("leak.example.org", 80)
except OSError:
    pass
time.sleep(2)
"""


async def test_metadata_dns_and_internet_as_the_host_sees_the_box(box: Box, engine: Engine, sandbox_data: Path) -> None:
    """No interface but its own loopback, no route, no packet: read from the host's side while the program tries."""
    running = box(SLEEPS)
    labels = {names.LABEL_OWNER: installation_id(sandbox_data)}
    seen: list[tuple[set[str], int]] = []
    while not running.done():
        for found in await engine.find_containers(labels):
            with contextlib.suppress(Exception):
                state = (await engine.call(lambda api, f=found: api.inspect_container(str(f["Id"]))))["State"]
                pid = state["Pid"] if isinstance(state, dict) else 0
                seen.append(_network_of(int(str(pid))))
        await asyncio.sleep(0.1)
    assert (await running).ending is Ending.SUCCEEDED
    assert seen
    assert all(links <= {"lo", *IDLE_DEVICES} and routes == 0 for links, routes in seen)


def _network_of(pid: int) -> tuple[set[str], int]:
    """Names of the interfaces of this process's network, and how many routes leave it."""
    lines = Path(f"/proc/{pid}/net/dev").read_text().splitlines()[2:]
    routes = Path(f"/proc/{pid}/net/route").read_text().splitlines()[1:]
    assert pid > 0
    return {line.split(":")[0].strip() for line in lines}, len(routes)


async def test_boxes_do_not_hear_each_other(box: Box, sandbox: Sandbox) -> None:
    listener = """
import socket, time
ears = [socket.socket(), socket.socket(socket.AF_UNIX)]
ears[0].bind(("0.0.0.0", 4777)); ears[1].bind("\\0gatehouse-peer")
for ear in ears: ear.listen(9); ear.setblocking(False)
end, heard = time.monotonic() + 4, 0
while time.monotonic() < end:
    for ear in ears:
        try: ear.accept(); heard += 1
        except BlockingIOError: pass
    time.sleep(0.02)
print(heard)
"""
    listening = asyncio.create_task(sandbox.run(Job("run_peer", "peer", listener.encode(), b"", LIMITS)))
    await asyncio.sleep(1.5)
    await box("""
import socket
for address in ["127.0.0.1", *(f"172.17.0.{n}" for n in range(1, 10))]:
    try: socket.create_connection((address, 4777), 0.05)
    except OSError: pass
try: socket.socket(socket.AF_UNIX).connect("\\0gatehouse-peer")
except OSError: pass
""")
    assert (await listening).stdout == b"0\n"


async def test_a_box_with_a_way_out_has_no_other(sandbox: Sandbox, ears: Ears, sites: Sites, tmp_path: Path) -> None:
    """The proxy is no stepping stone: not to the host by number, name, or a name that resolves to it."""
    source = (
        knock(ears)
        + f"""
import urllib.request
for url in ("http://127.0.0.1:{ears.tcp_port}/", "http://172.17.0.1:80/", "http://localhost/", "http://[::1]/",
            "http://{HOST}:{ears.tcp_port}/", "https://169.254.169.254/", "http://metadata.google.internal/",
            "http://0x7f000001/"):
    try: urllib.request.urlopen(url, timeout=30)
    except OSError: pass
"""
    )
    egress = Egress(tmp_path / "egress", resolve=sites.resolve)
    async with egress.open(Grant(rules([HOST, f"{HOST}:80", "metadata.google.internal:80"]))) as way:
        ran = await sandbox.run(through(Job("run_abuse", "k", source.encode(), b"", LIMITS), way))
    assert ran.ending is Ending.SUCCEEDED
    assert ears.heard() == []
    assert sites.plain.connections == sites.tls.connections == 0
    assert way.traffic.refusals >= 6


async def test_one_calls_socket_is_no_other_calls(sandbox: Sandbox, sites: Sites, tmp_path: Path) -> None:
    """Two calls with a way out at once: neither finds the other's socket, and a call without one finds none."""
    look = "import glob, os\nprint(glob.glob('/run/**/proxy', recursive=True), os.path.ismount('/run/egress'))"
    egress = Egress(tmp_path / "egress", resolve=sites.resolve)
    async with egress.open(Grant(())) as one, egress.open(Grant(())):
        with_way = await sandbox.run(through(Job("run_abuse", "k", look.encode(), b"", LIMITS), one))
        without = await sandbox.run(Job("run_abuse", "k2", look.encode(), b"", LIMITS))
    assert with_way.stdout == b"['/run/egress/proxy'] True\n"
    assert without.stdout == b"[] False\n"


async def test_the_folder_of_the_socket_cannot_be_changed(sandbox: Sandbox, sites: Sites, tmp_path: Path) -> None:
    source = """
import os
for attempt in (lambda: os.unlink("/run/egress/proxy"), lambda: os.rename("/run/egress/proxy", "/run/egress/x"),
                lambda: open("/run/egress/new", "w"), lambda: os.chmod("/run/egress/proxy", 0),
                lambda: os.link("/run/egress/proxy", "/run/egress/y"), lambda: os.mkdir("/run/egress/d")):
    try: attempt()
    except OSError: pass
"""
    async with Egress(tmp_path / "egress", resolve=sites.resolve).open(Grant(())) as way:
        before = _listing(Path(way.folder))
        await sandbox.run(through(Job("run_abuse", "k", source.encode(), b"", LIMITS), way))
        assert _listing(Path(way.folder)) == before


def _listing(folder: Path) -> list[tuple[str, int]]:
    return [(path.name, path.stat().st_mode) for path in (folder, *folder.iterdir())]


async def test_a_flood_of_connections_ends_with_the_call(sandbox: Sandbox, sites: Sites, tmp_path: Path) -> None:
    """Neither the worker's descriptors nor its time are the program's to spend."""
    source = """
import socket, threading
def flood():
    held = []
    for _ in range(200):
        s = socket.socket(socket.AF_UNIX)
        s.settimeout(0.2)
        try:
            s.connect("/run/egress/proxy")
            s.send(b"GET http://no.example/ HTTP/1.1\\r\\n")
            held.append(s)
        except OSError: pass
threads = [threading.Thread(target=flood) for _ in range(4)]
[t.start() for t in threads]; [t.join() for t in threads]
"""
    most = 0

    async def watch() -> None:
        nonlocal most
        while True:
            most = max(most, len(list(Path("/proc/self/fd").iterdir())))  # noqa: ASYNC240
            await asyncio.sleep(0.01)

    before = len(list(Path("/proc/self/fd").iterdir()))  # noqa: ASYNC240
    watching = asyncio.create_task(watch())
    async with Egress(tmp_path / "egress", resolve=sites.resolve).open(Grant(())) as way:
        ran = await sandbox.run(through(Job("run_abuse", "k", source.encode(), b"", LIMITS), way))
    watching.cancel()
    assert ran.ending in (Ending.SUCCEEDED, Ending.TIMEOUT)
    assert most - before < 100  # of 800 asked for; other fixtures of the session hold some too
    assert way.traffic.refusals > 0
