"""The browser of the console's tests: Debian's Chromium, driven by Playwright, which brings none of its own."""

import shutil
import time

from deploy.console import Console, SetupError, since, tail
from deploy.engine import APT_LOG, apt_install, can_apt


def ensure(console: Console) -> None:
    """Have `chromium` on the path; as root on Debian it is installed. Raises SetupError with the one thing to do."""
    if shutil.which("chromium"):
        console.ok("Chromium is installed")
        return
    if not can_apt():
        raise SetupError("the browser tests need Chromium, and installing it needs root.", "apt-get install chromium")
    started = time.monotonic()
    console.doing(f"installing the tests' browser: apt-get install chromium (log: {APT_LOG})")
    if not apt_install(["chromium"], APT_LOG) or not shutil.which("chromium"):
        raise SetupError(f"apt-get could not install chromium:\n{tail(APT_LOG)}", "repair that and repeat it")
    console.done(f"Chromium installed ({since(started)})")
