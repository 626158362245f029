"""Interpreter, packages, disk."""

import shutil
import sys
from pathlib import Path

from api.doctor.finding import Finding, fail, ok, warn
from api.lock import drift
from worker.settings import Settings

ROOT = Path(__file__).resolve().parent.parent.parent
LOCK = ROOT / "deploy" / "requirements" / "runtime.txt"
_LOW_GB, _EMPTY_GB = 5, 1


def python(_: Settings) -> list[Finding]:
    """The interpreter that runs this."""
    version = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info[:2] == (3, 11):
        return [ok("python", f"{version} ({sys.executable})")]
    return [warn("python", f"{version}; the packages are locked for 3.11", "set up again with Python 3.11: make setup")]


def packages(_: Settings) -> list[Finding]:
    """Installed packages against the lock."""
    if not LOCK.exists():
        return [warn("packages", "not run from a checkout: no lock to compare with", "none, if you installed it so")]
    found = drift(LOCK)
    if found:
        return [fail("packages", f"differ from the lock ({found})", "make setup")]
    return [ok("packages", "exactly as locked")]


def disk(settings: Settings) -> list[Finding]:
    """Room where the data is."""
    place = settings.data.resolve()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free / (1 << 30)
    if free < _EMPTY_GB:
        return [
            fail(
                "disk", f"{free:.1f} GB free at {place}", "free some space: the audit log must never be unable to grow"
            )
        ]
    if free < _LOW_GB:
        return [warn("disk", f"{free:.1f} GB free at {place}", "free some space soon")]
    return [ok("disk", f"{free:.0f} GB free at {place}")]
