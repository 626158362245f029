"""`python -m tests`: the whole suite in two halves side by side, since most tests wait for other processes more than
they compute. With arguments it is pytest with these arguments, and one process.

Each half is one pytest process with servers, ports and folders of its own, and runs its tests in their usual order.
What uses the machine's engine to its limits, or looks at the machine as a whole, is in one half.
"""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FIRST = ("tests/test_setup.py", "tests/tools", "tests/worker/sandbox", "tests/e2e")
"""The second half is everything else, whatever is added."""
HALVES = (FIRST, ("tests", *(f"--ignore={path}" for path in FIRST)))
SLOWEST = "--durations=15"


def main(arguments: list[str]) -> int:
    """Exit status of pytest; of the halves, the one that is not 0."""
    if arguments:
        return subprocess.call([sys.executable, "-m", "pytest", *arguments], cwd=ROOT)
    started = time.monotonic()
    halves = [Half(number, chosen) for number, chosen in enumerate(HALVES, 1)]
    try:
        statuses = [half.finished() for half in halves]
    except KeyboardInterrupt:
        statuses = [half.process.wait() for half in halves]  # the terminal has told them too
    for half in halves:
        half.tell(f"exit status {half.process.returncode}: {half.last.strip('= ')}")
    print(f"both halves took {time.monotonic() - started:.0f} s")  # noqa: T201
    return next(filter(None, statuses), 0)


class Half:
    """A running pytest whose lines are passed on whole, each with the half's number."""

    def __init__(self, number: int, chosen: tuple[str, ...]) -> None:
        self.number = number
        self.last = ""
        own = ["-o", f"cache_dir=.pytest_cache/{number}", SLOWEST]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "pytest", *own, *chosen], cwd=ROOT, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
            env=os.environ | {"GATEHOUSE_TEST_HALF": str(number), "PYTHONUNBUFFERED": "1"},
        )  # fmt: skip
        self._passing_on = threading.Thread(target=self._pass_on, daemon=True)
        self._passing_on.start()

    def _pass_on(self) -> None:
        for line in self.process.stdout or ():
            self.last = line.rstrip() or self.last
            self.tell(line.rstrip())

    def tell(self, line: str) -> None:
        """Say it in one write, so that the other half's words do not get between."""
        sys.stdout.write(f"{self.number}| {line}\n")
        sys.stdout.flush()

    def finished(self) -> int:
        """Wait for the end; pytest's status. What it left behind may hold its output open: that is not waited for."""
        status = self.process.wait()
        self._passing_on.join(10)
        return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
