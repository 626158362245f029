"""The one refusal for everything Temporal did not do."""

from api.errors import Refused
from api.gateway import Unreachable


def temporal_unreachable(error: Unreachable, *, remedy: str = "") -> Refused:
    """503 with the server's reason. `remedy` replaces the usual advice where repeating the request needs care."""
    return Refused(
        503,
        "temporal_unreachable",
        f"Temporal does not answer: {error.reason}"[:1000],
        remedy=remedy
        or "start Temporal (`gatehouse up`) or correct GATEHOUSE_TEMPORAL_ADDRESS, then repeat the request",
        headers={"Retry-After": "5"},
    )
