"""The `.venv`: created once, filled with exactly the hash-locked packages, left alone while the lock is unchanged."""

import hashlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from api.lock import drift, locked, normal_name
from deploy.console import Console, SetupError, run_logged, since, tail

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
STAMP = VENV / ".gatehouse-stamp.json"
INCOMPLETE = VENV / ".gatehouse-incomplete"
"""Stands while packages are being installed: after a kill, half a package may look like a whole one."""
LOG = ROOT / "build" / "setup.log"
REQUIREMENTS = ROOT / "deploy" / "requirements"
_LIST = (
    "import json, importlib.metadata as m;print(json.dumps({d.metadata['Name']: d.version for d in m.distributions()}))"
)


def check_python() -> None:
    """Refuse any interpreter but 3.11: the lock was made for it."""
    found = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info[:2] != (3, 11):
        raise SetupError(
            f"Gatehouse needs Python 3.11; this is {found} ({sys.executable}).",
            "on Debian 12: apt-get install python3 python3-venv; elsewhere install 3.11 and add PYTHON=<path>",
        )


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _wanted(*, dev: bool) -> dict[str, Any]:
    lock = REQUIREMENTS / ("dev.txt" if dev else "runtime.txt")
    return {
        "root": str(ROOT),
        "python": sys.version.split()[0],
        "dev": dev,
        "lock": _digest(lock),
        "project": _digest(ROOT / "pyproject.toml"),
    }


def _stamped() -> dict[str, Any]:
    try:
        found = json.loads(STAMP.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}  # pyright: ignore[reportUnknownVariableType]


def ready(*, dev: bool) -> bool:
    """Whether the environment is already what the lock asks for. A development one serves for running too."""
    found = _stamped()
    keys = ("root", "python", "dev", "lock", "project")
    # Asked by access, not by existence: the interpreter behind the link may lie where this user cannot look.
    if not os.access(PYTHON, os.X_OK) or not os.access(VENV / "bin" / "gatehouse", os.X_OK):
        return False
    return any(all(found.get(k) == want[k] for k in keys) for want in (_wanted(dev=d) for d in {True, dev}))


def ensure(console: Console, *, dev: bool) -> None:
    """Make the environment what the lock says. Raises SetupError with the end of the log."""
    if ready(dev=dev):
        console.ok(f".venv matches the lock ({_wanted(dev=dev)['lock'][:12]})")
        return
    # Going from development back to running would only remove things: keep the larger set.
    dev = dev or bool(_stamped().get("dev"))
    before = _stamped()
    started = time.monotonic()
    _create(console)
    INCOMPLETE.touch()
    lock = REQUIREMENTS / ("dev.txt" if dev else "runtime.txt")
    console.doing(f"installing {len(locked(lock.read_text()))} hash-locked packages (log: {LOG.relative_to(ROOT)})")
    _pip("install", "--require-hashes", "--no-deps", "--no-input", "-r", str(lock))
    names = sorted(locked(lock.read_text()))
    gone = sorted(set(before.get("names", [])) - set(names))
    if gone:
        _pip("uninstall", "-y", *gone)
    _pip("install", "--no-deps", "--no-build-isolation", "--no-input", "-e", str(ROOT))
    remaining = drift(lock, installed())
    if remaining:
        raise SetupError(f"the packages in .venv still differ from the lock ({remaining}).", "run: make clean setup")
    INCOMPLETE.unlink()
    STAMP.write_text(json.dumps({**_wanted(dev=dev), "names": names}))
    console.done(f".venv ready ({since(started)})")


def installed() -> dict[str, str]:
    """Normalised name -> version of what the environment holds."""
    done = subprocess.run([str(PYTHON), "-c", _LIST], capture_output=True, check=True, stdin=subprocess.DEVNULL)
    return {normal_name(name): version for name, version in json.loads(done.stdout).items() if name}


def _works() -> bool:
    """Whether the environment's interpreter runs, is this version and was made at this place."""
    version = sys.version.split()[0]
    probe = f"import sys, pip; sys.exit(sys.prefix != {str(VENV)!r} or sys.version.split()[0] != {version!r})"
    try:
        done = subprocess.run([str(PYTHON), "-c", probe], capture_output=True, check=False, stdin=subprocess.DEVNULL)
    except OSError:
        return False
    return done.returncode == 0


def _create(console: Console) -> None:
    if VENV.exists() and not os.access(VENV, os.W_OK):
        owner = VENV.owner()
        raise SetupError(f".venv belongs to {owner} and cannot be changed by you.", f"run as {owner}: make setup")
    if _works() and not INCOMPLETE.exists():
        return
    console.doing("creating .venv")
    make = [sys.executable, "-m", "venv", "--clear", str(VENV)]
    if run_logged(make, LOG):
        return
    from deploy.engine import apt_install, can_apt  # noqa: PLC0415  (only needed where Debian's venv is missing)

    if can_apt() and apt_install(["python3-venv"], LOG) and run_logged(make, LOG):
        return
    raise SetupError(f"could not create .venv:\n{tail(LOG)}", "on Debian/Ubuntu: apt-get install python3-venv")


def _pip(*arguments: str) -> None:
    command = [str(PYTHON), "-m", "pip", "--disable-pip-version-check", *arguments]
    if not run_logged(command, LOG):
        raise SetupError(f"pip {arguments[0]} failed; its last words:\n{tail(LOG)}", "check the network and repeat it")
