"""What every channel's sender has in common: how it fails, and where it may connect to."""

import asyncio
import ipaddress
from collections.abc import Sequence
from typing import Protocol

from worker.sandbox.addresses import RESOLVE_S, Lookup, NotPublic, Resolve, Target, Unresolved, ask_system, is_public
from worker.store.outbox import Notice

SEND_S = 15.0
"""A receiver that takes longer is tried again later."""


class NotDelivered(Exception):  # noqa: N818  (says what is the case)
    """The receiver did not take it. `final`: trying again is no use."""

    def __init__(self, problem: str, *, final: bool = False) -> None:
        super().__init__(problem)
        self.problem = problem
        self.final = final


class Sender(Protocol):
    """One channel."""

    async def send(self, notice: Notice) -> str:
        """Tell it once, within SEND_S; what the receiver said. Raises NotDelivered."""
        ...


def targets(networks: Sequence[str], lookup: Lookup = ask_system) -> Resolve:
    """Resolves a name once; what is vetted is what is connected to. Addresses that are not public are refused unless
    they lie in one of `networks`; one bad address spoils the name."""
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
