"""One line of `gatehouse doctor`."""

from dataclasses import asdict, dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class Finding:
    """What was looked at, how it is, and what to do when it is not well. `warn` does not stop the system working."""

    what: str
    status: Literal["ok", "warn", "fail"]
    detail: str
    remedy: str = ""

    def as_json(self) -> dict[str, Any]:
        """Plain form."""
        return asdict(self)


def ok(what: str, detail: str) -> Finding:
    """Nothing to do."""
    return Finding(what, "ok", detail)


def warn(what: str, detail: str, remedy: str) -> Finding:
    """Works, but somebody should know."""
    return Finding(what, "warn", detail, remedy)


def fail(what: str, detail: str, remedy: str) -> Finding:
    """Must be repaired."""
    return Finding(what, "fail", detail, remedy)
