"""`notify.yaml` as it is now: read again when it changes. One with a mistake changes nothing: that of before counts."""

from collections.abc import Callable
from pathlib import Path

import structlog

from worker.notify.channels import FILE, NotifyError, NotifyFile

log = structlog.stdlib.get_logger("gatehouse.notify")

Stamp = tuple[int, int, int] | None


class Following:
    """The file in force. `read`: how the file becomes what counts."""

    def __init__(self, home: Path | None, read: Callable[[Path | None], NotifyFile], *, start_without: bool) -> None:
        """Reads it. Raises NotifyError, unless `start_without`: then a file with a mistake is as good as none."""
        self._home = home
        self._read = read
        self._seen = self._stamp()
        try:
            self._found = read(home)
        except NotifyError as error:
            if not start_without:
                raise
            log.error("notify.yaml is not used", reason=str(error))  # noqa: TRY400  (names the line)
            self._found = NotifyFile(apiVersion="gatehouse/v1")

    @property
    def now(self) -> NotifyFile:
        """What counts; the same object as long as nothing changed."""
        seen = self._stamp()
        if seen != self._seen:
            # First, so that a mistake is told once.
            self._seen = seen
            try:
                self._found = self._read(self._home)
            except NotifyError as error:
                log.error("notify.yaml is not used as it is now", reason=str(error))  # noqa: TRY400  (names the line)
            else:
                log.info("notify.yaml was read", channels=len(self._found.channels), people=len(self._found.people))
        return self._found

    def _stamp(self) -> Stamp:
        try:
            found = (self._home / FILE).stat() if self._home is not None else None
        except OSError:
            return None
        return None if found is None else (found.st_mtime_ns, found.st_ino, found.st_size)
