"""The set-up: what can be tried without taking the machine's own engine or environment away."""

import http.server
import os
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from deploy import engine, environment
from deploy.console import Console, SetupError

ROOT = Path(__file__).resolve().parents[1]


def run(*command: str, timeout_s: float = 300, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=ROOT, env={**os.environ, **env}, stdin=subprocess.DEVNULL, capture_output=True, text=True,
        timeout=timeout_s, check=False,
    )  # fmt: skip


def test_help_names_every_command() -> None:
    done = run("make", "help")
    assert done.returncode == 0
    for target in ("setup", "demo", "test", "check", "up", "down", "doctor", "bench", "clean"):
        assert f"make {target} " in done.stdout


def test_ci_runs_the_readmes_test_command() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    lines = [line for line in script.read_text().splitlines() if line and not line.startswith("#")]
    assert lines == ['cd "$(dirname "$0")/.." && exec make test </dev/null']


def test_set_up_twice_changes_nothing_and_is_quick(tmp_path: Path) -> None:
    first = run("make", "setup-dev", GATEHOUSE_DATA=str(tmp_path))
    assert first.returncode == 0, first.stderr
    stamp = environment.STAMP.stat().st_mtime_ns
    started = time.monotonic()
    second = run("make", "setup", GATEHOUSE_DATA=str(tmp_path))
    assert second.returncode == 0, second.stderr
    assert environment.STAMP.stat().st_mtime_ns == stamp
    assert "matches the lock" in second.stderr
    assert "installing" not in second.stderr
    assert time.monotonic() - started < 60  # about a second on a machine that does nothing else


def test_set_ups_at_once_wait_for_each_other(tmp_path: Path) -> None:
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "deploy.setup"], cwd=ROOT, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE,
            env={**os.environ, "GATEHOUSE_DATA": str(tmp_path)},
        )
        for _ in range(3)
    ]  # fmt: skip
    assert [p.wait(240) for p in processes] == [0, 0, 0]
    for process in processes:
        if process.stderr:
            process.stderr.close()


def test_another_python_is_refused_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 9, 2, "final", 0))
    with pytest.raises(SetupError, match=r"needs Python 3\.11(?s:.)*What to do"):
        environment.check_python()


def test_a_changed_lock_or_place_is_noticed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert environment.ready(dev=True)
    assert environment.ready(dev=False), "an environment for development serves for running"
    changed = tmp_path / "requirements"
    changed.mkdir()
    for name in ("runtime.txt", "dev.txt"):
        (changed / name).write_text((environment.REQUIREMENTS / name).read_text() + "\n# changed\n")
    with monkeypatch.context() as inside:
        inside.setattr(environment, "REQUIREMENTS", changed)
        assert not environment.ready(dev=True)
    with monkeypatch.context() as inside:
        inside.setattr(environment, "ROOT", tmp_path)
        (tmp_path / "pyproject.toml").write_bytes((ROOT / "pyproject.toml").read_bytes())
        assert not environment.ready(dev=True), "a checkout that was moved needs a new environment"
    damaged = tmp_path / "stamp.json"
    damaged.write_text('{"root": ')
    monkeypatch.setattr(environment, "STAMP", damaged)
    assert not environment.ready(dev=True)


class _Ping(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/_ping" else 404)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass

    def address_string(self) -> str:
        return "local"


class _UnixServer(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True

    def get_request(self) -> tuple[object, object]:  # pyright: ignore[reportIncompatibleMethodOverride]
        connection, _ = super().get_request()
        return connection, ("local", 0)


@pytest.fixture
def answering(tmp_path: Path) -> Iterator[str]:
    """Something that answers pings on a unix socket, as an engine does."""
    path = tmp_path / "engine.sock"
    with _UnixServer(str(path), _Ping) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield f"unix://{path}"
        server.shutdown()


def test_an_engine_that_answers_is_used(
    answering: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert engine.ask(answering).problem == ""
    monkeypatch.setenv("GATEHOUSE_DOCKER_HOST", answering)
    engine.ensure(Console())
    assert answering in capsys.readouterr().err


def test_engines_that_do_not_answer_are_told_apart(tmp_path: Path) -> None:
    assert engine.ask(f"unix://{tmp_path}/none.sock").problem == "absent"
    with socketserver.UnixStreamServer(str(tmp_path / "silent.sock"), socketserver.BaseRequestHandler):
        assert engine.ask(f"unix://{tmp_path}/silent.sock", timeout_s=0.3).problem == "silent"
    assert engine.ask("tcp://127.0.0.1:1", timeout_s=0.3).problem == "absent"


def test_a_named_engine_that_is_absent_is_never_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever names an engine means that one: no other is started in its place."""
    monkeypatch.delenv("GATEHOUSE_DOCKER_HOST", raising=False)
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    with pytest.raises(SetupError, match="start it, or unset DOCKER_HOST"):
        engine.ensure(Console())


def test_only_stale_pid_files_are_removed(tmp_path: Path) -> None:
    me = Path("/proc/self/comm").read_text().strip()
    gone = subprocess.Popen(["true"])
    gone.wait()
    files = {tmp_path / name: me for name in ("alive", "reused", "gone", "garbage", "missing")}
    (tmp_path / "alive").write_text(str(os.getpid()))
    (tmp_path / "reused").write_text("1")
    (tmp_path / "gone").write_text(str(gone.pid))
    (tmp_path / "garbage").write_text("not a number")
    engine.remove_stale_pid_files(files)
    assert [path.name for path in files if path.exists()] == ["alive"]


def test_the_running_daemon_is_seen() -> None:
    pid = engine.running_daemon()
    if pid is not None:
        with suppress(FileNotFoundError):  # one of another test's, which ended
            assert Path(f"/proc/{pid}/comm").read_text().strip() == "dockerd"
