"""Keeps the log provable while the system runs: a heartbeat each minute, and checkpoints published in time.

One process does it, the API; when there are several, the heartbeat's event id and the anchor's lock let one of them
through. What goes wrong is logged and tried again: a log without checkpoints is still a log.
"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

import structlog

from worker.store import times
from worker.store.anchor import AnchorError
from worker.store.audit import AuditEvent, AuditLog
from worker.store.checking import BadRecord
from worker.store.checkpoints import Publisher
from worker.store.database import StoreUnavailable
from worker.store.head import last_beat, last_seq
from worker.store.keyfiles import KeyFileUnsafe
from worker.store.note import NoteError

EVERY_S = 60.0
"""A record is under a checkpoint at most this long after it was written..."""
EVERY_RECORDS = 1000
"""...or when so many have come."""
_LOOK_S = 2.0
_INSTALLATION = "-"

log = structlog.stdlib.get_logger("gatehouse.audit")


class Copied(Protocol):
    """Another place for what is published."""

    async def catch_up(self) -> None:
        """Bring it up to date. Never raises for what is wrong there."""
        ...


class Keeper:
    """What keeps one store's log."""

    def __init__(self, audit: AuditLog, publisher: Publisher, copies: Sequence[Copied] = ()) -> None:
        self._copies = copies
        self._audit = audit
        self._publisher = publisher
        self._size = 0
        self._beat = ""
        self._due = 0.0

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                await self.look()
            except StoreUnavailable as error:
                log.warning("audit.not_kept", reason=str(error))
            except BadRecord as bad:
                self._due = time.monotonic() + EVERY_S
                log.error("audit.tampered", record=bad.seq, problem=bad.problem)  # noqa: TRY400  (it says all)
            except (AnchorError, NoteError, KeyFileUnsafe, OSError) as error:
                self._due = time.monotonic() + EVERY_S
                log.error("audit.not_signed", reason=str(error))  # noqa: TRY400  (it says all)
            await asyncio.sleep(_LOOK_S)

    async def look(self) -> None:
        """Do what is due now. Raises what `Publisher.publish` and `AuditLog.append` raise."""
        minute = times.to_text(times.now())[:16]
        if minute != self._beat:
            beat = AuditEvent(
                f"log/heartbeat/{minute}", "log.heartbeat", _INSTALLATION, None, "system:api", {"minute": minute}
            )
            before = await last_beat(self._audit.db)
            [stored] = await self._audit.append(beat)
            if before is not None and stored.seq < before.seq and times.to_text(before.ts)[:16] != minute:
                # The clock was set back to a minute that has its beat. Now, too, silence must show.
                await self._audit.append(replace(beat, event_id=f"{beat.event_id}/{before.seq}"))
            self._beat = minute
        grown = await last_seq(self._audit.db) - self._size
        if time.monotonic() < self._due and grown < EVERY_RECORDS:
            return
        done = await asyncio.to_thread(self._publisher.publish)
        self._size, self._due = done.size, time.monotonic() + EVERY_S
        for place in self._copies:
            await place.catch_up()
