"""`python -m tests`: the whole suite in two halves side by side, since most tests wait for other processes more than
they compute. With arguments it is pytest with these arguments, and one process.

Each half is one pytest process with servers, ports and folders of its own, and runs its tests in their usual order.
What uses the machine's engine to its limits, or looks at the machine as a whole, is in one half. The first half's words
are shown as they come, the second's when the first has ended, and then one line for both. At the end the audit logs
that the tests left behind must hold every type of event that is documented: one that nothing records is no promise.
"""

import os
import re
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import ExitStack, closing, suppress
from pathlib import Path

from worker.store.events import EVENT_TYPES

ROOT = Path(__file__).resolve().parents[1]
FIRST = ("tests/test_setup.py", "tests/tools", "tests/worker/sandbox", "tests/e2e")
"""The second half is everything else, whatever is added."""
HALVES = (FIRST, ("tests", *(f"--ignore={path}" for path in FIRST)))


def main(arguments: list[str]) -> int:
    """Exit status of pytest; of the halves, the one that is not 0."""
    if arguments:
        return subprocess.call([sys.executable, "-m", "pytest", *arguments], cwd=ROOT)
    started = time.monotonic()
    with ExitStack() as stack:
        halves = [Half(number, stack) for number in (1, 2)]
        try:
            ends = [half.shown() for half in halves]
        except KeyboardInterrupt:  # the terminal has told them too
            return max(half.process.wait() for half in halves)
        status = next(filter(None, (half.process.returncode for half in halves)), 0)
        if status == 0 and (missing := sorted(set(EVENT_TYPES).difference(*(half.recorded for half in halves)))):
            print(f"documented, but recorded by no test: {', '.join(missing)}")  # noqa: T201
            status = 1
    print(f"==== {added_up(ends)} in {time.monotonic() - started:.2f}s ====", flush=True)  # noqa: T201
    return status


def recorded(folder: Path) -> set[str]:
    """Types of the events in every audit log in a SQLite file below the folder."""
    found = set[str]()
    for path in folder.rglob("*.db"):
        with suppress(sqlite3.Error), closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as log:
            found |= {type_ for (type_,) in log.execute("SELECT DISTINCT type FROM audit_event")}
    return found


class Half:
    """A pytest at work on one half. It writes to a file, not into a pipe: what a test leaves behind may hold a pipe
    open for good."""

    def __init__(self, number: int, stack: ExitStack) -> None:
        self._said = stack.enter_context(tempfile.NamedTemporaryFile("r", errors="replace"))  # noqa: SIM115
        self.recorded = set[str]()
        """Types of events in its tests' audit logs, when it has ended."""
        self._where = stack.enter_context(tempfile.NamedTemporaryFile("r"))  # noqa: SIM115
        own = ["-o", f"cache_dir=.pytest_cache/{number}", "--durations=15"]
        with open(self._said.name, "w") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "pytest", *own, *HALVES[number - 1]], cwd=ROOT, stdin=subprocess.DEVNULL,
                stdout=output, stderr=subprocess.STDOUT,
                env=os.environ | {
                    "PYTHONUNBUFFERED": "1", "GATEHOUSE_TEST_HALF": str(number),
                    "GATEHOUSE_TEST_WHERE": self._where.name,
                    # Empty is off. The tests start hundreds of processes: none has to compile all of it again.
                    "PYTHONDONTWRITEBYTECODE": "",
                },
            )  # fmt: skip

    def shown(self) -> str:
        """Pass its words on until it has ended; the last line that counts tests: `3 failed, 20 passed in 4.00s`."""
        counted = ""
        while True:
            ended = self.process.poll() is not None
            text = self._said.read()
            sys.stdout.write(text)
            sys.stdout.flush()
            counted = next(
                (c for c in reversed(text.splitlines()) if re.search(r"\d+ (passed|failed|error)", c)), counted
            )
            if ended:
                # At once: pytest keeps the folders of the last three sessions on the machine.
                self.recorded = recorded(Path(self._where.read()))
                return counted
            time.sleep(0.2)


def added_up(ends: list[str]) -> str:
    """The counts of both, worst first."""
    total = Counter[str]()
    for end in ends:
        for number, what in re.findall(r"(\d+) (failed|passed|skipped|error|xfailed|xpassed)", end):
            total[what] += int(number)
    order = ("failed", "error", "passed", "skipped", "xfailed", "xpassed")
    return ", ".join(f"{total[what]} {what}" for what in order if total[what]) or "no tests ran"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
