"""What a tool may reach: host rules as a manifest writes them, and what matches one.

The catalogue checks with them, the egress proxy decides with them; nothing here does I/O.
"""

import re
from collections.abc import Iterable
from typing import Final, NamedTuple

HTTP: Final = 80
HTTPS: Final = 443

_LABEL = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
# The last label starts with a letter: no spelling of an IPv4 address (decimal, octal, 0x...) is a name. At least one
# dot: a bare word means whatever the machine's own resolver makes of it.
_NAME = rf"({_LABEL}\.)+[a-z]([a-z0-9-]{{0,61}}[a-z0-9])?"
ANY: Final = "*"
"""In a manifest: the hosts that this installation opens for tools that name none (`GATEHOUSE_EGRESS_HOSTS`)."""
HOST_PATTERN: Final = rf"^(\*|(\*\.)?{_NAME}(:(80|443))?)$"
NAMED_HOST_PATTERN: Final = rf"^{_NAME}(:(80|443))?$"
_WHOLE_NAME = re.compile(_NAME)
_HOST = re.compile(HOST_PATTERN)
_MOST_NAME_CHARS = 253


class HostRule(NamedTuple):
    """One host, or every name below one (`*.example.org`, not `example.org` itself), on one port."""

    name: str
    below: bool
    port: int

    @classmethod
    def parse(cls, text: str) -> "HostRule":
        """`host`, `host:443`, `host:80`, `*.host`; without a port 443. Raises ValueError; ANY is no rule."""
        if text == ANY or not _HOST.fullmatch(text):
            raise ValueError(f"{text!r} is not a host rule: write host, host:80 or *.host, in lower case")
        name, _, port = text.partition(":")
        return cls(name.removeprefix("*."), name.startswith("*."), int(port or HTTPS))

    def allows(self, host: str, port: int) -> bool:
        """Whether this rule covers the (normal) host name on the port."""
        return port == self.port and (host.endswith(f".{self.name}") if self.below else host == self.name)


def rules(hosts: Iterable[str], opened: Iterable[str] = ()) -> tuple[HostRule, ...]:
    """The rules of a manifest's `egress`; ANY stands for `opened`. Raises ValueError."""
    hosts = tuple(hosts)
    named = [host for host in hosts if host != ANY]
    return tuple(HostRule.parse(host) for host in (*named, *(opened if ANY in hosts else ())))


def normal_host(text: str) -> str | None:
    """A DNS name in lower case without its final dot; None for all else, also IP literals in any spelling."""
    name = text.lower().removesuffix(".")
    return name if len(name) <= _MOST_NAME_CHARS and text.isascii() and _WHOLE_NAME.fullmatch(name) else None
