"""How a program in a box ended, with true numbers; read from the report of the box's process 1."""

from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Ending(StrEnum):
    """How a program ended. Values of `ToolResult.error`, except `succeeded`."""

    SUCCEEDED = "succeeded"
    EXIT_CODE = "exit_code"
    """It returned another status than 0."""
    TIMEOUT = "timeout"
    OOM = "oom"
    """It failed and the kernel had to kill for memory in its box."""
    OUTPUT_LIMIT = "output_limit"
    """It wrote more to stdout and stderr than it may."""
    WORKSPACE_LIMIT = "workspace_limit"
    """It filled the workspace beyond its limit of bytes or entries."""
    KILLED = "killed"
    """It died by a signal that was not ours."""


@dataclass(frozen=True)
class Ran:
    """How a job ended, with true numbers."""

    ending: Ending
    exit_code: int | None
    """As a shell says it: 128 + signal for a death by signal. None when the worker ended it unreported."""
    stdout: bytes
    stderr: bytes
    duration_ms: int
    cpu_ms: float = 0
    """Processor time of everything that ran in the box, waited for or not."""
    peak_memory_bytes: int = 0
    """Of the whole box, its supervisor and its tmpfs pages included."""
    stdout_bytes: int = 0
    """What the program wrote, as far as it was read: more than `stdout` when a limit cut it."""
    stderr_bytes: int = 0
    pooled: bool = False
    """Whether the box had been started ahead."""


# Order of the numbers in the supervisor's report.
_WHY: Final = (None, Ending.TIMEOUT, Ending.OUTPUT_LIMIT, Ending.WORKSPACE_LIMIT, None)


def _numbers(content: bytes) -> dict[str, int]:
    """`why=0 code=0 oom=0 ...`; what is no number counts as missing."""
    pairs = (word.partition("=") for word in content.decode(errors="replace").split())
    numbers: dict[str, int] = {}
    for name, _, value in pairs:
        with suppress(ValueError):
            numbers[name] = int(value)
    return numbers


def reported(content: bytes, stdout: bytes, stderr: bytes) -> Ran:
    """What this report says: a limit that was reached, else out of memory if it failed and the kernel killed in its
    box, else how it ended. A program that survives the death of a child by memory and returns 0 has succeeded."""
    report = _numbers(content)
    code = report.get("code", 1)
    why = report.get("why", 0)
    ending = _WHY[why] if 0 <= why < len(_WHY) else None
    if ending is None:
        if code == 0:
            ending = Ending.SUCCEEDED
        elif report.get("oom", 0) > 0:
            ending = Ending.OOM
        else:
            ending = Ending.KILLED if code < 0 else Ending.EXIT_CODE
    return Ran(
        ending,
        128 - code if code < 0 else code,
        stdout,
        stderr,
        duration_ms=report.get("ms", 0),
        cpu_ms=report.get("cpu_us", 0) / 1000,
        peak_memory_bytes=report.get("peak", 0),
        stdout_bytes=max(len(stdout), report.get("out", 0)),
        stderr_bytes=max(len(stderr), report.get("err", 0)),
    )
