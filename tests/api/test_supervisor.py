"""The supervisor's parts with real processes; the whole of it is tried in tests/e2e."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from api.supervisor import addresses, bound
from api.supervisor.addresses import Addresses, PortTakenError, choose
from api.supervisor.children import LONGEST_PAUSE_S, Child
from api.supervisor.layout import plan, without
from api.supervisor.processes import Identity, end, from_json, identify
from api.supervisor.state import AlreadyRunningError, StateFiles
from worker.settings import Settings


def eventually(condition: object, seconds: float = 120) -> None:
    until = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < until, "did not happen"
        time.sleep(0.02)


def sleeper(seconds: int = 300) -> subprocess.Popen[bytes]:
    return subprocess.Popen(["sleep", str(seconds)])


def known(pid: int) -> Identity:
    found = identify(pid)
    assert found is not None
    return found


def test_a_process_is_more_than_its_number() -> None:
    process = sleeper()
    identity = known(process.pid)
    assert identity.alive
    assert from_json(identity.as_json()) == identity
    assert not Identity(identity.pid, identity.started + 1, identity.boot, identity.command).alive
    assert not Identity(identity.pid, identity.started, "another boot", identity.command).alive
    process.kill()
    eventually(lambda: not identity.alive)  # a zombie does not count as alive
    process.wait()
    assert from_json({"nonsense": 1}) is None


def test_end_kills_what_does_not_listen() -> None:
    stubborn = subprocess.Popen(
        ["sh", "-c", "trap '' TERM; echo ready; while :; do sleep 1; done"], stdout=subprocess.PIPE
    )
    assert stubborn.stdout is not None
    stubborn.stdout.readline()
    polite = sleeper()
    killed = end([known(stubborn.pid), known(polite.pid)], grace_s=3)
    assert [one.pid for one in killed] == [stubborn.pid]
    assert (polite.wait(30), stubborn.wait(30)) == (-signal.SIGTERM, -signal.SIGKILL)
    stubborn.stdout.close()


def test_a_child_dies_with_a_killed_supervisor(tmp_path: Path) -> None:
    note = tmp_path / "pid"
    program = (
        "import os, subprocess, sys, time\n"
        f"p = subprocess.Popen([sys.executable, '-I', '-S', {bound.__file__!r}, str(os.getpid()), 'sleep', '300'])\n"
        f"open({str(note)!r} + '.part', 'w').write(str(p.pid)); os.rename({str(note)!r} + '.part', {str(note)!r})\n"
        "time.sleep(300)\n"
    )
    supervisor = subprocess.Popen([sys.executable, "-c", program])
    eventually(note.exists)
    pid = int(note.read_text())
    eventually(lambda: "sleep 300" in known(pid).command)
    supervisor.kill()
    supervisor.wait()
    eventually(lambda: identify(pid) is None)


def test_a_child_whose_supervisor_is_gone_does_not_start() -> None:
    done = subprocess.run(
        [sys.executable, "-I", "-S", bound.__file__, "1", "echo", "started"], capture_output=True, check=False
    )
    assert (done.returncode, done.stdout) == (1, b"")


def test_one_supervisor_per_data_folder(tmp_path: Path) -> None:
    holder = StateFiles(tmp_path)
    assert not holder.held
    holder.acquire()
    holder.write({})
    assert holder.held
    with pytest.raises(AlreadyRunningError) as refused:
        StateFiles(tmp_path).acquire()
    assert refused.value.pid == os.getpid()


def test_leftovers_are_ended_by_who_they_are(tmp_path: Path) -> None:
    state = StateFiles(tmp_path)
    left, stranger = sleeper(), sleeper()
    reused = known(stranger.pid)
    reused = Identity(reused.pid, reused.started - 1, reused.boot, reused.command)
    state.write({"worker-runs": known(left.pid), "api": reused})
    assert state.end_leftovers() == ["worker-runs"]
    assert left.wait(30) == -signal.SIGTERM
    assert stranger.poll() is None, "a process that only took over the number was touched"
    stranger.kill()
    stranger.wait()
    (tmp_path / "supervisor.json").write_text('{"children": [1, 2')
    assert state.children() == {}


def test_a_taken_port_is_stepped_over_unless_asked_for() -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = int(holder.getsockname()[1])
        taken: set[int] = set()
        assert port < choose("127.0.0.1", port, taken) <= port + 100
        with pytest.raises(PortTakenError, match=rf"port {port} .* GATEHOUSE_API_PORT asks for, is in use"):
            choose("127.0.0.1", port, taken, fixed="GATEHOUSE_API_PORT")


def test_the_plan_gives_each_process_only_its_credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GATEHOUSE_API_PORT", "GATEHOUSE_TEMPORAL_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    environment = {
        "OPENAI_API_KEY": "k",
        "ANTHROPIC_API_KEY": "k",
        "DOCKER_HOST": "unix:///x",
        "PATH": "/bin",
        "GATEHOUSE_SECRET_X": "s",
        "GATEHOUSE_VAULT_TOKEN": "t",
    }
    layout = plan(Settings(data=tmp_path), environment, practice_model=True)
    holds = {
        c.name: {
            n for n in c.env if n.startswith(("OPENAI", "ANTHROPIC", "DOCKER", "GATEHOUSE_SECRET", "GATEHOUSE_VAULT"))
        }
        for c in layout.children
    }
    assert holds == {
        "temporal": set(),
        "practice-model": set(),
        "worker-runs": set(),
        "worker-models": {"OPENAI_API_KEY", "ANTHROPIC_API_KEY"},
        "worker-sandbox": {"DOCKER_HOST", "GATEHOUSE_SECRET_X", "GATEHOUSE_VAULT_TOKEN"},
        "keeper": set(),
        "api": set(),
    }
    assert all(c.env["GATEHOUSE_DATA"] == str(tmp_path) for c in layout.children)
    ports = {
        layout.addresses.api,
        layout.addresses.temporal,
        layout.addresses.temporal_ui,
        layout.addresses.practice_model,
    }
    assert len(ports) == 4
    assert without({"A_X": "1", "B": "2"}, "A_") == {"B": "2"}


def test_a_temporal_of_ones_own_is_not_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATEHOUSE_TEMPORAL_ADDRESS", "temporal.example:7233")
    layout = plan(Settings(data=tmp_path), {}, practice_model=False)
    assert layout.temporal is None
    assert layout.addresses.temporal == "temporal.example:7233"
    assert [c.name for c in layout.children] == ["worker-runs", "worker-models", "worker-sandbox", "keeper", "api"]


def test_addresses_survive_a_broken_file(tmp_path: Path) -> None:
    Addresses(api="http://127.0.0.1:1", temporal="127.0.0.1:2").write(tmp_path)
    assert addresses.read(tmp_path)["api"] == "http://127.0.0.1:1"
    (tmp_path / addresses.FILE).write_text('{"api": ')
    assert addresses.read(tmp_path) == {}
    assert addresses.read(tmp_path / "none") == {}


async def test_a_child_is_started_logged_and_counted(tmp_path: Path) -> None:
    child = Child("greeter", ["sh", "-c", "echo hello; exec sleep 300"], dict(os.environ), tmp_path / "greeter.log")
    await child.start()
    assert child.identity is not None
    assert bound.__file__ not in child.identity.command
    await asyncio.to_thread(eventually, lambda: child.logged(b"hello"))
    assert "hello" in child.last_words()
    assert [child.pause_before_restart() for _ in range(8)] == [0.5, 1, 2, 4, 8, 16, LONGEST_PAUSE_S, LONGEST_PAUSE_S]
    assert child.process is not None
    child.process.kill()
    await child.process.wait()
    await child.start()
    assert not child.logged(b"never said")
    child.process.kill()
    await child.process.wait()


def test_a_log_stays_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.supervisor.children.LOG_BYTES", 1000)
    child = Child("talker", ["true"], {}, tmp_path / "talker.log")
    child.trim_log()
    child.log.write_text("x" * 1500)
    child.trim_log()
    assert child.log.stat().st_size == 0
    assert (tmp_path / "talker.log.1").stat().st_size == 1500
