"""What a requirements lock names, and how the installed packages differ from it. Standard library only: the set-up runs
it with the system's Python before anything is installed."""

import re
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

_PINNED = re.compile(r"^([A-Za-z0-9._-]+)(?:\[[^\]]*\])?==([^\s;\\]+)", re.MULTILINE)


def normal_name(name: str) -> str:
    """The form in which two spellings of one package name are equal (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def locked(text: str) -> dict[str, str]:
    """Normalised name -> version of every pinned line of a requirements file."""
    return {normal_name(name): version for name, version in _PINNED.findall(text)}


@dataclass(frozen=True)
class Drift:
    """How an environment differs from its lock; both empty means it does not."""

    missing: tuple[str, ...]
    different: tuple[str, ...]

    def __bool__(self) -> bool:
        return bool(self.missing or self.different)

    def __str__(self) -> str:
        parts = [f"missing: {', '.join(self.missing)}"] if self.missing else []
        parts += [f"other version: {', '.join(self.different)}"] if self.different else []
        return "; ".join(parts) or "as locked"


def drift(lock: Path, installed: dict[str, str] | None = None) -> Drift:
    """Compare the lock with `installed` (default: the running interpreter's packages)."""
    have = (
        installed
        if installed is not None
        else {normal_name(d.metadata["Name"]): d.version for d in metadata.distributions() if d.metadata["Name"]}
    )
    want = locked(lock.read_text())
    missing = sorted(name for name in want if name not in have)
    different = sorted(f"{n} {have[n]} (lock: {v})" for n, v in want.items() if n in have and have[n] != v)
    return Drift(tuple(missing), tuple(different))
