"""The demo, `gatehouse up --detach` and `down` as a user meets them, kill -9 included; one system, in order."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from api.supervisor import addresses
from api.supervisor.children import answers
from api.supervisor.processes import Identity, from_json
from api.supervisor.state import STATE, StateFiles
from tests.readme_home import client_program, write_home

ROOT = Path(__file__).resolve().parents[2]
PARTS = {"temporal", "practice-model", "worker-runs", "worker-models", "worker-sandbox", "keeper", "api"}
pytestmark = pytest.mark.timeout(600)


class Machine:
    """One data folder and the commands a person gives."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self.state = StateFiles(data)

    def run(self, *command: str, key: str = "", timeout_s: float = 300) -> subprocess.CompletedProcess[str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("GATEHOUSE_", "OPENAI_", "ANTHROPIC_"))}
        ours = {"GATEHOUSE_DATA": str(self.data), "GATEHOUSE_HOME": str(self.data / "home"), "GATEHOUSE_KEY": key}
        return subprocess.run(
            [sys.executable, "-m", *command], cwd=ROOT, env=kept | ours,
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout_s, check=False,
        )  # fmt: skip

    def recorded(self) -> dict[str, Identity]:
        state: dict[str, Any] = json.loads((self.data / STATE).read_text())
        every = {"supervisor": state["supervisor"], **state["children"]}
        return {name: one for name, value in every.items() if (one := from_json(value))}

    def ready(self) -> bool:
        api = addresses.read(self.data).get("api", "")
        port = int(api.rpartition(":")[2] or 0)
        return asyncio.run(answers("127.0.0.1", port, "/api/v1/ready"))[0] == 200


def eventually(condition: Callable[[], bool], seconds: float = 120) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "did not happen"
        time.sleep(0.1)


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    found = Machine(tmp_path_factory.mktemp("machine"))
    write_home(found.data / "home")
    image = found.run("worker.sandbox.images", "ensure", "--data", str(found.data))
    assert image.returncode == 0, image.stderr
    yield found
    found.run("api.cli", "down")
    assert found.state.children() == {}


def test_the_demo_keeps_every_promise_on_the_users_own_file(machine: Machine, tmp_path: Path) -> None:
    log = tmp_path / "my own.log"
    log.write_text(
        "".join(f"2026-01-01 line {n} {'ERROR disk full' if n % 50 == 7 else 'fine'}\n" for n in range(2000))
    )
    done = machine.run("deploy.demo", "--log", str(log))
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-6000:]
    for part in (
        "Did all of it happen?",
        "my own.log",
        "approved by demo-reviewer",
        "denied by demo-reviewer",
        "make down",
    ):
        assert part in done.stdout
    assert "NO " not in done.stdout.partition("Did all of it happen?")[2]
    assert "rules" in done.stdout
    assert machine.ready(), "the demo leaves the system running"


def test_a_log_that_cannot_be_used_is_refused_at_once(machine: Machine, tmp_path: Path) -> None:
    for path, why in ((tmp_path / "none.log", "no such file"), (tmp_path, "not a file")):
        done = machine.run("deploy.demo", "--log", str(path))
        assert done.returncode == 1
        assert why in done.stderr
        assert "Traceback" not in done.stderr


def test_the_readmes_automation_runs_from_the_command_line(machine: Machine, tmp_path: Path) -> None:
    """Its tool in a box, its rule asks, two people, exit statuses: all as the README says."""
    text = tmp_path / "words.txt"
    text.write_text("one two three\nfour\n")
    olga = machine.run("api.cli", "keys", "create", "olga", "--role", "operator").stdout.strip()
    ruth = machine.run("api.cli", "keys", "create", "ruth", "--role", "approver").stdout.strip()
    started = machine.run(
        "api.cli", "run", "word-count", "--file", str(text), "--follow", "--stop-at-approval", "--json", key=olga
    )
    assert started.returncode == 4, started.stdout + started.stderr
    assert "ask by rule counting-is-asked: We want to see who counts." in started.stderr
    run_id = json.loads(started.stdout)["id"]
    [waiting] = json.loads(machine.run("api.cli", "approvals", "list", "--json", "--run", run_id, key=ruth).stdout)
    own = machine.run("api.cli", "approvals", "approve", waiting["id"], "--yes", key=olga)
    assert own.returncode == 3, "the requester may not answer"
    answered = machine.run("api.cli", "approvals", "approve", waiting["id"], "--yes", "--reason", "fine", key=ruth)
    assert answered.returncode == 0, answered.stderr
    assert '"in/words.txt"' in answered.stdout
    followed = machine.run("api.cli", "runs", "events", run_id, "--follow", key=olga)
    assert followed.returncode == 0, followed.stderr
    assert '"words": 4' in followed.stdout
    assert "approved by ruth: fine" in followed.stderr
    late = machine.run("api.cli", "approvals", "deny", waiting["id"], "--yes", "--reason", "too late", key=ruth)
    assert late.returncode == 1
    assert "already_decided" in late.stderr


def test_the_readmes_program_runs(machine: Machine, tmp_path: Path) -> None:
    (tmp_path / "app.log").write_text("".join(f"line {n} {'ERROR' if n == 7 else 'fine'}\n" for n in range(50)))
    key = machine.run("api.cli", "keys", "create", "olga", "--role", "operator").stdout.strip()
    ours = {"GATEHOUSE_URL": addresses.read(machine.data)["api"], "GATEHOUSE_KEY": key, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", client_program()], cwd=tmp_path, env=os.environ | ours,
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert (lines[0], lines[-2], lines[-1]) == ("run.requested", "run.closed", "succeeded ['report.md']")


def test_a_second_start_finds_the_first(machine: Machine) -> None:
    before = machine.recorded()
    assert set(before) == PARTS | {"supervisor"}
    again = machine.run("api.cli", "up", "--detach")
    assert again.returncode == 0
    assert "already running" in again.stderr
    assert addresses.read(machine.data)["api"] in again.stderr
    foreground = machine.run("api.cli", "up")
    assert foreground.returncode == 1
    assert "gatehouse down" in foreground.stderr
    assert machine.recorded() == before


def test_what_dies_is_started_again(machine: Machine) -> None:
    before = machine.recorded()
    for name in ("worker-runs", "api"):
        os.kill(before[name].pid, signal.SIGKILL)
    eventually(lambda: all(machine.recorded().get(n) not in (None, before[n]) for n in ("worker-runs", "api")))
    eventually(machine.ready)
    log = (machine.data / "logs" / "supervisor.log").read_text()
    assert "worker-runs: died (signal SIGKILL); starting it again in 0.5 s" in log
    now = machine.recorded()
    assert {n for n in PARTS if now[n] != before[n]} == {"worker-runs", "api"}


def test_after_a_kill_of_everything_it_starts_again(machine: Machine) -> None:
    before = machine.recorded()
    os.kill(before["supervisor"].pid, signal.SIGKILL)
    eventually(lambda: not any(one.alive for one in before.values()))
    assert (machine.data / STATE).exists(), "a killed supervisor cleans nothing up; the next start must cope"
    started = machine.run("api.cli", "up", "--detach")
    assert started.returncode == 0, started.stderr
    assert machine.ready()
    doctor = {f["what"]: f for f in json.loads(machine.run("api.cli", "doctor", "--json").stdout)}
    assert doctor["system"]["status"] == "ok"
    verified = machine.run("api.cli", "audit", "verify", "--json")
    assert json.loads(verified.stdout)["ok"]


def test_down_ends_everything(machine: Machine) -> None:
    before = machine.recorded()
    done = machine.run("api.cli", "down")
    assert done.returncode == 0
    assert not any(one.alive for one in before.values())
    assert not (machine.data / STATE).exists()
    assert addresses.read(machine.data) == {}
    assert "nothing was running" in machine.run("api.cli", "down").stderr
