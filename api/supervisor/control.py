"""Start, find and stop the supervisor of a data folder: what `gatehouse up` and `gatehouse down` do."""

import asyncio
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from api.supervisor import addresses
from api.supervisor.layout import plan, process_environment
from api.supervisor.processes import end, send
from api.supervisor.state import StateFiles
from api.supervisor.system import StartError, Supervisor
from worker.settings import Settings

DETACH_S = 180.0
STOP_S = 60.0
Say = Callable[[str], None]


def run_here(settings: Settings, say: Say, *, practice_model: bool, mode: str = "foreground") -> None:
    """Be the supervisor until told to stop. Raises AlreadyRunningError, PortTakenError, StartError."""
    data = settings.data.resolve()
    state = StateFiles(data)
    state.acquire()
    settings.keys.mkdir(parents=True, exist_ok=True, mode=0o700)
    left = state.end_leftovers()
    if left:
        say(f"ended what an earlier start left behind: {', '.join(left)}")
    layout = plan(settings, process_environment(), practice_model=practice_model, mode=mode)
    _say_moved(settings, layout.addresses, say)

    def on_ready() -> None:
        layout.addresses.write(data)
        for line in describe(addresses.read(data)):
            say(line)

    try:
        asyncio.run(Supervisor(settings, layout, state, say).run(on_ready))
    finally:
        (data / addresses.FILE).unlink(missing_ok=True)
    say("stopped")


def _say_moved(settings: Settings, chosen: addresses.Addresses, say: Say) -> None:
    """A port in use is no failure, but nobody should look for the API at the usual place in vain."""
    usual = {"API": (settings.api_port, chosen.api), "Temporal": (settings.temporal_address, chosen.temporal)}
    for name, (wanted, got) in usual.items():
        port = str(wanted).rpartition(":")[2]
        if not got.endswith(f":{port}"):
            say(f"port {port} is in use: {name} goes to {got}")


def describe(found: dict[str, str]) -> list[str]:
    """Lines that tell a person where things are."""
    lines = [
        f"console      {found['api']}/console (sign in with a key: gatehouse keys create <name> --role approver)",
        f"API          {found['api']}/api/v1",
        f"OpenAPI page {found['api']}/api/docs",
    ]
    if found.get("temporal_ui"):
        lines.append(f"Temporal UI  {found['temporal_ui']}")
    if found.get("practice_model"):
        lines.append(f"practice model (no intelligence) {found['practice_model']}")
    return lines


def run_detached(
    settings: Settings, say: Say, *, practice_model: bool, environment: Mapping[str, str] | None = None
) -> None:
    """Start a supervisor in the background and return once it is ready. Raises StartError with its last words.

    `environment`: what it runs with, by default this process's.
    """
    data = settings.data.resolve()
    logs = data / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    log = logs / "supervisor.log"
    (data / addresses.FILE).unlink(missing_ok=True)
    command = [sys.executable, "-m", "api.cli", "up", "--background"]
    command += ["--practice-model"] if practice_model else []
    inherited = process_environment() if environment is None else environment
    with log.open("ab") as sink:
        offset = sink.tell()
        process = subprocess.Popen(  # noqa: S603  (our own program)
            command, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink, start_new_session=True,
            env={**inherited, "GATEHOUSE_DATA": str(data), "NO_COLOR": "1"},
        )  # fmt: skip
    until = time.monotonic() + DETACH_S
    while time.monotonic() < until:
        offset = _relay(log, offset, say)
        if (data / addresses.FILE).exists():
            _relay(log, offset, say)
            return
        if process.poll() is not None:
            raise StartError(f"the system did not start (exit status {process.returncode}).\n  Its log: {log}")
        time.sleep(0.1)
    process.terminate()
    raise StartError(f"the system was not ready after {DETACH_S:.0f} s.\n  Its log: {log}")


def _relay(log: Path, offset: int, say: Say) -> int:
    """Show whole new lines of the background supervisor's log; returns the new offset."""
    with log.open("rb") as source:
        source.seek(offset)
        text, newline, _ = source.read().rpartition(b"\n")
    for line in text.decode(errors="replace").splitlines() if newline else []:
        say(line)
    return offset + len(text) + len(newline)


def shut_down(settings: Settings, say: Say) -> bool:
    """Stop the supervisor of this data folder and everything it runs. False when nothing was running."""
    data = settings.data.resolve()
    state = StateFiles(data)
    supervisor = state.supervisor()
    if supervisor:
        say(f"stopping (supervisor pid {supervisor.pid})")
        end([supervisor], STOP_S)
    left = state.end_leftovers()
    if left:
        say(f"ended what was left behind: {', '.join(left)}")
    state.clear()
    (data / addresses.FILE).unlink(missing_ok=True)
    return bool(supervisor or left)


def set_practice_model(settings: Settings, *, wanted: bool) -> bool:
    """Take the running system's practice model away, or give it back. False when no system runs here."""
    supervisor = StateFiles(settings.data.resolve()).supervisor()
    return supervisor is not None and send(supervisor, signal.SIGUSR2 if wanted else signal.SIGUSR1)
