"""Names a process so that another one can tell whether it still lives, also after its pid was given away again."""

import os
from functools import cache
from pathlib import Path
from typing import Final

_PROC: Final = Path("/proc")


@cache
def _here() -> str:
    """This boot of this machine and this pid namespace: only within it do pids mean anything."""
    try:
        boot = (_PROC / "sys/kernel/random/boot_id").read_text().strip().replace("-", "")
        return f"{boot}.{os.stat('/proc/self/ns/pid').st_ino}"
    except OSError:
        return "unknown"


def _started(pid: int) -> str | None:
    """Clock ticks from boot to the start of this process; None when there is none (a zombie counts as none)."""
    try:
        # The second field, the program's name in brackets, may contain anything.
        fields = (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else fields[19]


def this_process() -> str:
    """`boot.pidns:pid:start`."""
    return f"{_here()}:{os.getpid()}:{_started(os.getpid()) or 0}"


def is_here(process: str) -> bool:
    """Whether the named process lives, or lived, where we can look: under this boot of this machine, among our pids."""
    here = process.partition(":")[0]
    return here == _here() and here != "unknown"


def is_dead(process: str) -> bool:
    """Whether the named process is surely gone. False when it lives, or lives where we cannot look."""
    pid, _, started = process.partition(":")[2].partition(":")
    return is_here(process) and pid.isdigit() and _started(int(pid)) != started
