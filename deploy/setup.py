"""Set-up of a machine, from nothing to ready: `.venv`, Docker engine, sandbox image. Safe to repeat; fast when done.

Run with the system's Python 3.11 from the top of the checkout: `python3 -m deploy.setup [--dev] [--quiet]`. Standard
library only. Exit status 0 ready, 1 not ready (the message says the one thing to do).
"""

import argparse
import fcntl
import os
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager

from deploy import engine, environment
from deploy.console import Console, SetupError
from deploy.environment import PYTHON, ROOT


@contextmanager
def alone(console: Console) -> Generator[None]:
    """Hold the checkout's set-up lock: two set-ups at once would install over each other."""
    handle = os.open(ROOT / "deploy", os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            console.doing("another set-up of this checkout is running; waiting for it")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def ensure_image(console: Console) -> None:
    """Have the sandbox's base image in the engine, verified. The work is `worker.sandbox.images`'."""
    command = [str(PYTHON), "-m", "worker.sandbox.images"]
    check = subprocess.run([*command, "check"], cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    if check.returncode == 0:
        console.ok("sandbox image present and verified")
        return
    console.doing("getting the sandbox image (once; a few minutes where it has to be built)")
    # Its progress is the reader's: shown as it comes.
    done = subprocess.run([*command, "ensure"], cwd=ROOT, stdin=subprocess.DEVNULL, stdout=sys.stderr, check=False)
    if done.returncode:
        raise SetupError("the sandbox image could not be had; the lines above say why.", "repair that and repeat")
    console.done("sandbox image ready")


def main(argv: list[str] | None = None) -> int:
    """Bring the machine to ready; 0 or 1."""
    parser = argparse.ArgumentParser(prog="python3 -m deploy.setup", description=__doc__)
    parser.add_argument("--dev", action="store_true", help="also install what tests and checks need")
    parser.add_argument("--quiet", action="store_true", help="show only what is really done")
    options = parser.parse_args(argv)
    console = Console(quiet=options.quiet)
    try:
        environment.check_python()
        with alone(console):
            environment.ensure(console, dev=options.dev)
            engine.ensure(console)
            ensure_image(console)
    except SetupError as problem:
        sys.stderr.write(f"\nset-up stopped: {problem}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("\nset-up interrupted; run the same command again to go on\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
