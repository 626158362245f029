"""What the tests need of Debian: the console's browser, which Playwright drives, and a clock that can be set for some
processes alone."""

import shutil
import time
from pathlib import Path

from deploy.console import Console, SetupError, since, tail
from deploy.engine import APT_LOG, apt_install, can_apt


def clock() -> Path | None:
    """The library that, loaded before a program, tells it another time; None where it is not installed."""
    return next(iter(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1")), None)


def ensure(console: Console) -> None:
    """Have them; as root on Debian they are installed. Raises SetupError with the one thing to do."""
    missing = _missing()
    if not missing:
        console.ok("Chromium and libfaketime are installed")
        return
    names = " ".join(missing)
    if not can_apt():
        raise SetupError(f"the tests need {names}, and installing it needs root.", f"apt-get install {names}")
    started = time.monotonic()
    console.doing(f"installing what the tests need: apt-get install {names} (log: {APT_LOG})")
    if not apt_install(missing, APT_LOG) or _missing():
        raise SetupError(f"apt-get could not install {names}:\n{tail(APT_LOG)}", "repair that and repeat it")
    console.done(f"{names} installed ({since(started)})")


def _missing() -> list[str]:
    found = {"chromium": shutil.which("chromium"), "libfaketime": clock()}
    return [name for name, place in found.items() if place is None]
