"""What every channel's sender has in common: what it is told, how long it may take, how it fails."""

from typing import Protocol

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
