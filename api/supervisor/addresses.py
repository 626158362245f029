"""Where the parts listen: chosen at start (the usual port, or the next free one), written down for the CLI."""

import json
import os
import socket
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

FILE = "addresses.json"
_TRIES = 100


class PortTakenError(Exception):
    """A port the user asked for by name is in use; the message says what to do."""


@dataclass(frozen=True)
class Addresses:
    """How to reach a running system; `practice_model` and `temporal_ui` only where it has them."""

    api: str
    temporal: str
    temporal_ui: str | None = None
    practice_model: str | None = None
    providers: str = ""
    """Names of the model providers that have a key, comma-separated."""
    mode: str = "foreground"
    """`foreground` (somebody's terminal) or `background`."""

    def write(self, data: Path) -> None:
        """Replace `data`/addresses.json in one step."""
        draft = data / f".{FILE}.{os.getpid()}"
        draft.write_text(json.dumps(asdict(self), indent=2) + "\n")
        draft.replace(data / FILE)


def read(data: Path) -> dict[str, str]:
    """What the last start under `data` wrote; empty when nothing did."""
    try:
        found: Any = json.loads((data / FILE).read_text())
    except (OSError, ValueError):
        return {}
    if not isinstance(found, dict):
        return {}
    return {k: v for k, v in cast(dict[str, Any], found).items() if isinstance(v, str)}


def is_free(host: str, port: int) -> bool:
    """Whether somebody could listen there now."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            probe.listen(1)
        except OSError:
            return False
    return True


def choose(host: str, wanted: int, taken: set[int], *, fixed: str = "") -> int:
    """`wanted`, or the next free port above it; the choice is added to `taken`.

    `fixed` names the setting with which the user asked for exactly this port: then another one is no answer, and
    PortTakenError says so.
    """
    if fixed and (wanted in taken or not is_free(host, wanted)):
        raise PortTakenError(f"port {wanted} on {host}, which {fixed} asks for, is in use: free it or choose another")
    for port in range(wanted, min(wanted + _TRIES, 65536)):
        if port not in taken and is_free(host, port):
            taken.add(port)
            return port
    raise PortTakenError(f"no free port on {host} from {wanted} to {wanted + _TRIES - 1}")
