"""The supervisor's own files under the data folder: a lock that says whether one runs, and who its processes are.

The lock (flock, released by the kernel whatever happens) is the truth about "running"; the state file only names the
processes, so that `down` and the next `up` can end what a killed supervisor left behind.
"""

import fcntl
import json
import os
from pathlib import Path
from typing import Any, cast

from api.supervisor.processes import Identity, end, from_json, identify

LOCK = "supervisor.lock"
STATE = "supervisor.json"


class AlreadyRunningError(Exception):
    """Another supervisor holds this data folder."""

    def __init__(self, pid: int | None) -> None:
        super().__init__(f"Gatehouse already runs on this data folder (supervisor pid {pid or 'unknown'})")
        self.pid = pid


class StateFiles:
    """Lock and process list of one data folder."""

    def __init__(self, data: Path) -> None:
        self._data = data
        self._lock: int | None = None

    def acquire(self) -> None:
        """Become the supervisor of this folder, or raise AlreadyRunningError."""
        self._data.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle = os.open(self._data / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            supervisor = self.supervisor()
            raise AlreadyRunningError(supervisor.pid if supervisor else None) from None
        self._lock = handle

    @property
    def held(self) -> bool:
        """Whether some supervisor (this one included) holds the folder."""
        try:
            handle = os.open(self._data / LOCK, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(handle)
        return False

    def write(self, children: dict[str, Identity]) -> None:
        """Record this process and its children, in one step."""
        body = {
            "supervisor": _json(identify(os.getpid())),
            "children": {name: one.as_json() for name, one in children.items()},
        }
        draft = self._data / f".{STATE}.{os.getpid()}"
        draft.write_text(json.dumps(body, indent=2))
        draft.replace(self._data / STATE)

    def supervisor(self) -> Identity | None:
        """The recorded supervisor, if exactly that process is alive."""
        found = from_json(self._read().get("supervisor"))
        return found if found and found.alive else None

    def children(self) -> dict[str, Identity]:
        """Recorded children that are alive."""
        recorded = self._read().get("children")
        named = cast(dict[str, object], recorded) if isinstance(recorded, dict) else {}
        found = {name: from_json(value) for name, value in named.items()}
        return {name: one for name, one in found.items() if one and one.alive}

    def end_leftovers(self, grace_s: float = 5.0) -> list[str]:
        """End recorded children whose supervisor is gone; returns their names. Only with the lock held or free."""
        left = self.children()
        end(list(left.values()), grace_s)
        return sorted(left)

    def clear(self) -> None:
        """Forget the processes (after they have ended)."""
        (self._data / STATE).unlink(missing_ok=True)

    def _read(self) -> dict[str, Any]:
        try:
            found: Any = json.loads((self._data / STATE).read_text())
        except (OSError, ValueError):
            return {}
        return cast(dict[str, Any], found) if isinstance(found, dict) else {}


def _json(identity: Identity | None) -> dict[str, Any] | None:
    return identity.as_json() if identity else None
