"""Delivers notices: gives each to its channels, tries until it is taken, and gives up in the open.

A notice is marked only after the receiver took it, so one may be told twice, under the same id, and none is lost.
"""

import asyncio
import random
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Final

import structlog

from worker.notify.channels import Chosen
from worker.notify.sending import NotDelivered, Sender
from worker.store.outbox import Delivery, Notice, Outbox

FIRST_S: Final = 2.0
LONGEST_S: Final = 900.0
ATTEMPTS: Final = 14
"""About two hours in all; then the delivery is dead until somebody retries it."""
AT_ONCE: Final = 10
ROUNDS: Final = 20
"""Batches in one look: after it the lease is renewed."""

log = structlog.stdlib.get_logger("gatehouse.keeper")


class Delivering:
    """The duty. `channels`: what goes where by now, with the sender of each."""

    def __init__(
        self, outbox: Outbox, channels: Callable[[], Mapping[str, tuple[Chosen, Sender]]], *,
        pause: Callable[[int], timedelta] | None = None,
    ) -> None:  # fmt: skip
        """`pause`: how long to wait after the nth failed attempt."""
        self._outbox = outbox
        self._now = channels
        self._channels = channels()
        self._pause = pause or backoff

    async def look(self) -> None:
        """One pass. Raises StoreUnavailable."""
        self._channels = self._now()
        for _ in range(ROUNDS):
            notices = await self._outbox.undirected()
            for notice in notices:
                takers = [name for name, (chosen, _) in self._channels.items() if chosen.takes(notice)]
                await self._outbox.direct(notice, takers)
            due = await self._outbox.due(AT_ONCE)
            if not due and not notices:
                return
            await asyncio.gather(*(self._deliver(made, notice) for made, notice in due))

    async def _deliver(self, made: Delivery, notice: Notice) -> None:
        try:
            receipt = await self._sender(made.channel).send(notice)
        except NotDelivered as error:
            over = error.final or made.attempts + 1 >= ATTEMPTS
            again = None if over else self._pause(made.attempts + 1)
            log.warning("not delivered", channel=made.channel, notice=notice.id, reason=error.problem, dead=over)
            await self._outbox.failed(made, error.problem, again_in=again)
            return
        except Exception as fault:
            # A sender's own mistake is no reason to hold the others back, nor to lose this one.
            log.exception("a sender failed", channel=made.channel)
            over = made.attempts + 1 >= ATTEMPTS
            again = None if over else self._pause(made.attempts + 1)
            await self._outbox.failed(made, f"{type(fault).__name__}: see the keeper's log", again_in=again)
            return
        await self._outbox.delivered(made, receipt)

    def _sender(self, channel: str) -> Sender:
        if channel not in self._channels:
            raise NotDelivered(f"there is no channel `{channel}` any more", final=True)
        return self._channels[channel][1]


def backoff(attempt: int) -> timedelta:
    """2 s, 4 s, ... up to 15 min, each up to a fifth longer, so that not everything comes at once."""
    return timedelta(seconds=min(FIRST_S * 2 ** (attempt - 1), LONGEST_S) * random.uniform(1, 1.2))  # noqa: S311
