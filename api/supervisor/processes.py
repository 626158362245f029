"""Who a process is, beyond its number: a pid is reused, a pid with its start time and boot is not."""

import asyncio
import os
import signal
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

_CLOCK_STEP_S = 0.05


@dataclass(frozen=True)
class Identity:
    """One process of one boot."""

    pid: int
    started: int
    """Clock ticks after boot, as in /proc/<pid>/stat."""
    boot: str
    command: str = field(compare=False)
    """For people. No part of who it is: the kernel shows none while a program is being loaded."""

    def as_json(self) -> dict[str, Any]:
        """Plain form for the state file."""
        return asdict(self)

    @property
    def alive(self) -> bool:
        """Whether exactly this process still runs (a zombie does not)."""
        return identify(self.pid) == self


def identify(pid: int) -> Identity | None:
    """The process of that number now, or None when there is none."""
    try:
        # The second field is the program's name in parentheses and may hold spaces: count from behind it.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return None
    state, started = fields[0], int(fields[19])
    return None if state in "ZX" else Identity(pid, started, boot, command)


def from_json(value: object) -> Identity | None:
    """Read back `as_json`; None for anything else."""
    try:
        return Identity(**value)  # type: ignore[arg-type]
    except TypeError:
        return None


def send(identity: Identity, number: int) -> bool:
    """Signal exactly this process; False when it is gone."""
    if not identity.alive:
        return False
    try:
        os.kill(identity.pid, number)
    except ProcessLookupError:
        return False
    return True


def end(identities: list[Identity], grace_s: float) -> list[Identity]:
    """SIGTERM, wait, SIGKILL what is left. Returns those that had to be killed."""
    left = [one for one in identities if send(one, signal.SIGTERM)]
    until = time.monotonic() + grace_s
    while left and time.monotonic() < until:
        time.sleep(_CLOCK_STEP_S)
        left = [one for one in left if one.alive]
    for one in left:
        send(one, signal.SIGKILL)
    while any(one.alive for one in left) and time.monotonic() < until + 5:
        time.sleep(_CLOCK_STEP_S)
    return left


async def stop(processes: list[asyncio.subprocess.Process], grace_s: float) -> None:
    """SIGTERM our own children, wait, SIGKILL what is left; returns when all are reaped."""
    running = [p for p in processes if p.returncode is None]
    for process in running:
        process.terminate()
    waits = [asyncio.ensure_future(p.wait()) for p in running]
    if not waits:
        return
    _, late = await asyncio.wait(waits, timeout=grace_s)
    if late:
        for process in running:
            if process.returncode is None:
                process.kill()
        await asyncio.wait(late)
