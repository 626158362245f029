"""Forgets notices that everybody has been told, and tokens that were used, once they are old. What is dead stays until
somebody retries or dismisses it."""

from datetime import timedelta

import structlog

from worker.store import times
from worker.store.outbox import Outbox
from worker.store.spent import Spent

log = structlog.stdlib.get_logger("gatehouse.keeper")


class Pruning:
    """The duty. `after`: how long what is over is kept."""

    def __init__(self, outbox: Outbox, spent: Spent, after: timedelta) -> None:
        self._outbox = outbox
        self._spent = spent
        self._after = after

    async def look(self) -> None:
        """One pass. Raises StoreUnavailable."""
        before = times.now() - self._after
        while gone := await self._outbox.prune(before):
            log.info("old notices are forgotten", notices=gone)
        await self._spent.prune(before)
