"""Set-up of a machine, from nothing to ready: `.venv`, console, Docker engine, sandbox image; fast when repeated.

Run with the system's Python 3.11 from the top of the checkout: `python3 -m deploy.setup [--dev] [--quiet]`. Standard
library only. Exit status 0 ready, 1 not ready (the message says the one thing to do).
"""

import argparse
import fcntl
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from deploy import assets, debian, engine, environment
from deploy.console import Console, SetupError, since, tail
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
    """Have the sandbox's base image in the engine, verified and recorded. The work is `worker.sandbox.images`'."""
    data = Path(os.environ.get("GATEHOUSE_DATA") or ROOT / ".gatehouse")
    data.mkdir(parents=True, exist_ok=True, mode=0o700)
    if not os.access(data, os.R_OK | os.W_OK | os.X_OK):
        raise SetupError(f"{data} belongs to {data.owner()}.", "be that user, or name another folder: GATEHOUSE_DATA")
    started = time.monotonic()
    known = (data / "images.json").exists()
    if not known:
        console.doing("getting the sandbox image (once; a few minutes where it has to be built)")
    if not _images(data):
        # Nothing could be pulled and the builder is missing: the one other way there is.
        if shutil.which("mmdebstrap") or not engine.can_apt():
            raise SetupError("the sandbox image could not be had; the lines above say why.", "repair that and repeat")
        console.doing(f"installing the image builder: apt-get install mmdebstrap (log: {engine.APT_LOG})")
        if not engine.apt_install(["mmdebstrap"], engine.APT_LOG) or not _images(data, "--no-pull"):
            raise SetupError(f"the image could not be built:\n{tail(engine.APT_LOG)}", "repair that and repeat")
    (console.ok if known else console.done)(f"sandbox image present and verified ({since(started)})")


def _images(data: Path, *flags: str) -> bool:
    command = [str(PYTHON), "-m", "worker.sandbox.images", "ensure", "--data", str(data), *flags]
    if host := os.environ.get("GATEHOUSE_DOCKER_HOST"):
        command += ["--docker-host", host]
    # Its progress, on stderr, is for the reader; the record, on stdout, is not.
    done = subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=False)
    return done.returncode == 0


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
            assets.ensure(console, dev=options.dev)
            if options.dev:
                debian.ensure(console)
            engine.ensure(console)
            if options.dev:
                engine.ensure_gvisor(console)
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
