"""From a host name to the public addresses the proxy may connect to. What is vetted here is what is connected to.

Names are resolved once a request; the program never resolves anything, so a name cannot mean one thing to the check and
another to the connection.
"""

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, NamedTuple

RESOLVE_S: Final = 5.0

# `is_global` follows registries that change with the Python release, and lets multicast pass: what matters is named.
_CLOSED_V4: Final = tuple(
    ipaddress.IPv4Network(text)
    for text in (
        "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24",
        "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24",
        "224.0.0.0/3",
    )
)  # fmt: skip
# Global unicast, without what wraps an IPv4 address (6to4, Teredo) or is set aside. Mapped and NAT64 addresses, unique
# local and link-local ones lie outside of it.
_OPEN_V6: Final = ipaddress.IPv6Network("2000::/3")
_CLOSED_V6: Final = tuple(ipaddress.IPv6Network(t) for t in ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20"))


class Target(NamedTuple):
    """An address to connect to, and only it."""

    address: str
    port: int


class NotPublic(Exception):  # noqa: N818
    """The name resolves to an address that no tool may reach. The message names it: for the audit, not the program."""


class Unresolved(Exception):  # noqa: N818
    """The name cannot be resolved now."""


Resolve = Callable[[str, int], Awaitable[Sequence[Target]]]
"""Host name and port -> where to connect, best first, never empty. Raises NotPublic, Unresolved."""
Lookup = Callable[[str], Awaitable[Sequence[str]]]
"""Host name -> addresses as the machine's resolver gives them. Raises OSError."""


def is_public(text: str) -> bool:
    """Whether this is the address of a public host that is not this machine."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv4Address):
        public = not any(address in network for network in _CLOSED_V4) and address.is_global
    else:
        public = address in _OPEN_V6 and not any(address in network for network in _CLOSED_V6) and address.is_global
    return public and not _is_ours(address)


def _is_ours(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    """Whether it is an address of this machine: behind it stand services that only expect the machine itself."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((str(address), 0))
    except OSError:
        return False
    return True


async def ask_system(host: str) -> Sequence[str]:
    """A Lookup: the machine's own resolver."""
    found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def public_targets(lookup: Lookup = ask_system, networks: Sequence[str] = ()) -> Resolve:
    """Resolves by `lookup` and refuses a name as soon as one of its addresses is neither public nor in one of the
    `networks` opened (`10.1.0.0/16`): a name that points both outside and inside is an attempt."""
    opened = [ipaddress.ip_network(text) for text in networks]

    async def resolve(host: str, port: int) -> Sequence[Target]:
        try:
            async with asyncio.timeout(RESOLVE_S):
                addresses = await lookup(host)
        except (OSError, UnicodeError, TimeoutError) as error:
            raise Unresolved(f"{host}: {error or 'no answer'}") from error
        for address in addresses:
            if not is_public(address) and not any(ipaddress.ip_address(address) in network for network in opened):
                raise NotPublic(f"{host} resolves to {address}, which is not public")
        if not addresses:
            raise Unresolved(f"{host} has no address")
        return [Target(address, port) for address in addresses]

    return resolve
