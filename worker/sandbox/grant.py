"""What one call may do through its egress proxy, and what it did: the proxy's input and its account."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from pydantic import JsonValue

from tools.contract import EgressLimits, JsonObject
from tools.egress import HostRule

REFUSALS_KEPT: Final = 20
"""How many different refusals of a call are kept word by word; the others are only counted."""
_HOSTS_TOLD: Final = 50


@dataclass(frozen=True)
class Credential:
    """A header to add to requests for one host."""

    host: HostRule
    header: str
    value: bytes
    """The whole header value: the secret with its prefix."""
    secret: bytes


@dataclass(frozen=True)
class Grant:
    """What one call may do."""

    rules: tuple[HostRule, ...]
    limits: EgressLimits = field(default_factory=EgressLimits)
    credentials: tuple[Credential, ...] = ()


@dataclass(frozen=True)
class Refusal:
    """Something the proxy did not do; `detail` is what the program was not told."""

    kind: str
    host: str
    port: int
    reason: str
    detail: str = ""


@dataclass
class Traffic:
    """What a call did, in bytes of bodies and of tunnels (TLS included)."""

    requests: int = 0
    sent_bytes: int = 0
    received_bytes: int = 0
    hosts: Counter[str] = field(default_factory=Counter[str])
    """`host:port` -> requests that were let through."""
    refused: Counter[Refusal] = field(default_factory=Counter[Refusal])
    """At most REFUSALS_KEPT different ones."""
    refusals: int = 0
    """All of them."""

    def note(self, refusal: Refusal) -> None:
        """Count it; keep it when there is room."""
        self.refusals += 1
        if refusal in self.refused or len(self.refused) < REFUSALS_KEPT:
            self.refused[refusal] += 1

    def told(self) -> JsonObject:
        """For the record of the call's outcome."""
        hosts: dict[str, JsonValue] = dict(self.hosts.most_common(_HOSTS_TOLD))
        return {
            "requests": self.requests, "sent_bytes": self.sent_bytes, "received_bytes": self.received_bytes,
            "hosts": hosts, "refused": self.refusals,
        }  # fmt: skip
