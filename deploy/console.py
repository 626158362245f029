"""The lines the set-up prints, and the one exception that ends it. Standard library only."""

import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

TIMEOUT_S = 1800
"""One set-up step (an apt-get or a pip run) that takes longer hangs."""


class SetupError(Exception):
    """The set-up cannot go on: what is wrong, and the one thing to do."""

    def __init__(self, problem: str, remedy: str) -> None:
        super().__init__(f"{problem}\n  What to do: {remedy}")


class Console:
    """Progress on stderr: one line a step; with `quiet` only steps that really do something are shown."""

    def __init__(self, *, quiet: bool = False) -> None:
        self.quiet = quiet

    def ok(self, what: str) -> None:
        """Something was already in place."""
        if not self.quiet:
            self._line("ok", what)

    def doing(self, what: str) -> None:
        """Something is being done now."""
        self._line("..", what)

    def done(self, what: str) -> None:
        """Something was done just now."""
        self._line("ok", what)

    def warn(self, what: str) -> None:
        """Something the reader should know; the set-up goes on."""
        self._line("!!", what)

    @staticmethod
    def _line(mark: str, text: str) -> None:
        sys.stderr.write(f"  {mark}  {text}\n")
        sys.stderr.flush()


def run_logged(command: Sequence[str], log: Path, *, env: Mapping[str, str] | None = None) -> bool:
    """Run a command with no stdin, its output appended to `log`. True when it exits 0."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as sink:
        sink.write(f"\n$ {' '.join(command)}\n".encode())
        sink.flush()
        try:
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink, env=env, timeout=TIMEOUT_S, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as problem:
            sink.write(f"{problem}\n".encode())
            return False
    return done.returncode == 0


def tail(log: Path, lines: int = 12) -> str:
    """The last lines of a log, indented for a message."""
    try:
        text = log.read_text(errors="replace").splitlines()[-lines:]
    except OSError:
        return ""
    return "\n".join(f"    {line}" for line in text)


def since(start: float) -> str:
    """Seconds since `start` (time.monotonic), for a progress line."""
    return f"{time.monotonic() - start:.1f} s"
