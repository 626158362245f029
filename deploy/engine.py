"""The Docker engine: use the one that answers; else, on Debian/Ubuntu as root, install and start one; else say what to
do. Standard library only. Never starts a second daemon beside a running one (it would take its bridge away),
and never stops one.
"""

import http.client
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from deploy.console import Console, SetupError, run_logged, since, tail

DEFAULT_ADDRESS = "unix:///var/run/docker.sock"
APT_LOG = Path("build/apt.log")
DAEMON_LOG = Path("/var/log/gatehouse-dockerd.log")
PID_FILES = {
    Path("/var/run/docker.pid"): "dockerd",
    Path("/var/run/docker/containerd/containerd.pid"): "containerd",
}
AGAIN = "then run the same command again."
Problem = Literal["", "absent", "permission", "silent"]


@dataclass(frozen=True)
class Answer:
    """What the engine's address said: `problem` is empty when an engine answers."""

    address: str
    problem: Problem
    detail: str = ""


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def address() -> str:
    """Where the engine is expected: GATEHOUSE_DOCKER_HOST, then DOCKER_HOST, then the local socket."""
    return os.environ.get("GATEHOUSE_DOCKER_HOST") or os.environ.get("DOCKER_HOST") or DEFAULT_ADDRESS


def ask(where: str, timeout_s: float = 5.0) -> Answer:
    """Ping the engine at `where` (unix or plain tcp address; any other kind is left to the worker to reach)."""
    parts = urlsplit(where)
    if parts.scheme == "unix":
        link: http.client.HTTPConnection = _UnixConnection(parts.path, timeout_s)
    elif parts.scheme in ("tcp", "http") and not os.environ.get("DOCKER_TLS_VERIFY"):
        link = http.client.HTTPConnection(parts.hostname or "127.0.0.1", parts.port or 2375, timeout=timeout_s)
    else:
        return Answer(where, "", "not checked here")
    try:
        link.request("GET", "/_ping")
        status = link.getresponse().status
    except PermissionError as problem:
        return Answer(where, "permission", str(problem))
    except (FileNotFoundError, ConnectionRefusedError) as problem:
        return Answer(where, "absent", str(problem))
    except (OSError, http.client.HTTPException) as problem:
        return Answer(where, "silent", str(problem))
    finally:
        link.close()
    return Answer(where, "" if status == http.HTTPStatus.OK else "silent", f"HTTP {status}")


def running_daemon() -> int | None:
    """Process id of a dockerd on this machine, or None."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and _program(int(entry.name)) == "dockerd":
            return int(entry.name)
    return None


def _program(pid: int) -> str | None:
    """What runs under that number; None for nothing. A zombie is nothing: where no init collects the dead, it stays."""
    try:
        name, _, rest = Path(f"/proc/{pid}/stat").read_text().partition("(")[2].rpartition(")")
    except OSError:
        return None
    return None if rest.split()[0] in "ZX" else name


def can_apt() -> bool:
    """Whether packages can be installed here without asking anybody."""
    return os.geteuid() == 0 and Path("/etc/debian_version").exists() and shutil.which("apt-get") is not None


def apt_install(packages: Sequence[str], log: Path) -> bool:
    """Install Debian packages non-interactively; the package lists are fetched only when the first try needs them."""
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "NEEDRESTART_MODE": "l"}
    apt = ["apt-get", "-y", "-o", "DPkg::Lock::Timeout=300", "-o", "Acquire::Retries=3"]
    install = [*apt, "install", "--no-install-recommends", *packages]
    if run_logged(install, log, env=env):
        return True
    return run_logged([*apt, "update"], log, env=env) and run_logged(install, log, env=env)


def ensure(console: Console) -> None:
    """Have an engine that answers. Raises SetupError with the one thing to do."""
    answer = ask(address())
    if not answer.problem:
        console.ok(f"Docker engine answers at {answer.address}")
        return
    if answer.problem == "permission":
        raise SetupError(
            f"you may not talk to the Docker engine at {answer.address}.",
            f"as root: usermod -aG docker <your user>; log in again, {AGAIN}",
        )
    if answer.address != DEFAULT_ADDRESS:
        raise SetupError(
            f"no Docker engine answers at {answer.address}, which DOCKER_HOST names ({answer.detail}).",
            f"start it, or unset DOCKER_HOST, {AGAIN}",
        )
    pid = running_daemon()
    if pid is not None:
        console.doing(f"dockerd (pid {pid}) is running but does not answer yet; waiting")
        _wait_or_stop(console, f"dockerd (pid {pid})")
        return
    if os.geteuid() != 0:
        raise SetupError(
            "no Docker engine answers, and installing or starting one needs root.",
            "as root: apt-get install docker.io && usermod -aG docker <your user>; start it, log in again, " + AGAIN,
        )
    _install(console)
    _start(console)


def ensure_gvisor(console: Console) -> None:
    """Have gVisor's runtime on the machine for the tests under it. The machine's own engine is not told of it."""
    if shutil.which("runsc"):
        console.ok("gVisor (runsc) present")
    elif can_apt() and apt_install(["runsc"], APT_LOG):
        console.done("gVisor installed: apt-get install runsc")
    else:
        console.warn("no runsc on this machine: tests under gVisor will be skipped")


def _install(console: Console) -> None:
    if _daemon_program():
        return
    if not can_apt():
        raise SetupError(
            "no Docker engine is installed, and this is not Debian or Ubuntu.",
            f"install and start one with your system's package tool, {AGAIN}",
        )
    started = time.monotonic()
    console.doing(f"installing the Docker engine: apt-get install docker.io mmdebstrap (log: {APT_LOG})")
    if not apt_install(["docker.io", "mmdebstrap"], APT_LOG) or not _daemon_program():
        raise SetupError(f"apt-get could not install docker.io:\n{tail(APT_LOG)}", f"repair that, {AGAIN}")
    console.done(f"docker.io installed ({since(started)})")


def _daemon_program() -> str | None:
    return shutil.which("dockerd", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin:/usr/bin")


def _start(console: Console) -> None:
    started = time.monotonic()
    if running_daemon() is not None:  # the package's own start script was quicker
        _wait_or_stop(console, "dockerd, started by its package,")
        return
    if Path("/run/systemd/system").is_dir():
        console.doing("starting the Docker engine: systemctl start docker")
        if run_logged(["systemctl", "start", "docker"], APT_LOG) and _wait(60):
            console.done(f"Docker engine answers ({since(started)})")
            return
        raise SetupError("systemctl start docker did not bring an engine up.", f"see journalctl -u docker, {AGAIN}")
    # Where nobody may touch the machine's packet filter the engine still serves: the sandbox uses no network at all.
    for flags in ((), ("--iptables=false", "--ip6tables=false", "--bridge=none")):
        console.doing(f"starting {' '.join(['dockerd', *flags])} in the background (log: {DAEMON_LOG})")
        remove_stale_pid_files(PID_FILES)
        if _launch(flags):
            console.done(f"Docker engine answers ({since(started)})")
            return
        if not any(word in tail(DAEMON_LOG, 30) for word in ("iptables", "network controller", "bridge")):
            break
    raise SetupError(f"dockerd did not start; its last words:\n{tail(DAEMON_LOG)}", f"repair that, {AGAIN}")


def remove_stale_pid_files(files: dict[Path, str]) -> None:
    """Remove pid files whose process is gone or is another program: dockerd refuses to start while they stand."""
    for path, program in files.items():
        try:
            pid = int(path.read_text().strip() or "0")
        except FileNotFoundError:
            continue
        except (OSError, ValueError):
            pid = 0
        if pid <= 0 or _program(pid) != program:
            path.unlink(missing_ok=True)


def _launch(flags: Sequence[str]) -> bool:
    """Start dockerd detached from this process and its terminal; True once it answers."""
    program = _daemon_program() or "dockerd"
    with DAEMON_LOG.open("ab") as log:
        daemon = subprocess.Popen(
            [program, *flags], stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/", start_new_session=True
        )
    return _wait(90, daemon)


def _wait_or_stop(console: Console, who: str) -> None:
    if not _wait(60):
        raise SetupError(f"{who} runs but does not answer at {DEFAULT_ADDRESS}.", f"read its log, restart it, {AGAIN}")
    console.done("Docker engine answers")


def _wait(seconds: float, daemon: "subprocess.Popen[bytes] | None" = None) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if not ask(DEFAULT_ADDRESS, 2.0).problem:
            return True
        if daemon is not None and daemon.poll() is not None:
            return False
        time.sleep(0.2)
    return False
