"""Live events of runs: one reader of the audit table per process wakes everybody who follows a run.

However many clients follow, an idle tick is one indexed query; without followers there is none. What a follower is sent
comes from its own query by sequence number, so a missed wake-up delays a record and can never lose one.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import structlog

from worker.store.audit import AuditLog, AuditRecord
from worker.store.events import closed_id
from worker.store.head import last_seq

POLL_S = 0.25
PAGE = 200
CLOSED = "run.closed"

log = structlog.get_logger(__name__)


class Tail:
    """Shared follower of the audit table. `run()` is started once for the life of the process."""

    def __init__(self, audit: AuditLog, poll_s: float = POLL_S) -> None:
        """`poll_s`: seconds between two looks at the end of the log."""
        self._audit = audit
        self._poll_s = poll_s
        self._followers: dict[asyncio.Event, str | None] = {}
        """Whom to wake, and about which run; None: about anything."""
        self._anybody = asyncio.Event()
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        """End every open stream soon, so that the server can shut down; clients resume elsewhere by Last-Event-ID."""
        self._stopping.set()
        self._anybody.set()
        for wake in self._followers:
            wake.set()

    async def run(self) -> None:
        """Poll while somebody follows. A failing store is logged and asked again; it never ends the loop."""
        last = 0
        while not self._stopping.is_set():
            if not self._followers:
                self._anybody.clear()
                await self._anybody.wait()
                last = -1  # the table grew unseen
                continue
            try:
                last = await self._tick(last)
            except asyncio.CancelledError:
                raise
            except Exception as error:  # noqa: BLE001  a broken store must not silence the streams for good
                log.warning("tail.poll_failed", error=str(error))
                await asyncio.sleep(1)
            await asyncio.sleep(self._poll_s)

    async def _tick(self, last: int) -> int:
        head = await last_seq(self._audit.db)
        if last < 0:
            changed = None
        elif head == last:
            return head
        else:
            records = await self._audit.page(tenant=None, after=last, limit=PAGE)
            changed = None if len(records) == PAGE else {r.run_id for r in records}
        for wake, run_id in self._followers.items():
            if changed is None or run_id is None or run_id in changed:
                wake.set()
        return head

    async def watch(self, tenant: str, after: int) -> AsyncIterator[tuple[int, list[AuditRecord]]]:
        """What is new in the tenant since sequence number `after`, in bunches; an empty one every few seconds, so that
        the caller can say that it lives. Each comes with the number to go on from. Ends at shutdown."""
        wake = asyncio.Event()
        self._followers[wake] = None
        self._anybody.set()
        try:
            while not self._stopping.is_set():
                wake.clear()
                records = await self._audit.page(tenant=tenant, after=after, limit=PAGE)
                after = records[-1].seq if records else after
                yield after, records
                if len(records) < PAGE:
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(wake.wait(), 5)
        finally:
            self._followers.pop(wake, None)

    async def follow(
        self, tenant: str, run_id: str, after: int, *, until_now: bool = False
    ) -> AsyncIterator[AuditRecord]:
        """Records of the run after sequence number `after`, oldest first; ends behind `run.closed` or at shutdown, and
        with `until_now` behind the last record there is."""
        closed = await self._audit.get(closed_id(run_id)) if after else None
        if closed is not None and after >= closed.seq:
            return
        wake = asyncio.Event()
        self._followers[wake] = run_id
        self._anybody.set()
        try:
            while not self._stopping.is_set():
                wake.clear()
                records = await self._audit.page(tenant=tenant, run_id=run_id, after=after, limit=PAGE)
                for record in records:
                    yield record
                    after = record.seq
                    if record.type == CLOSED:
                        return
                if len(records) < PAGE and until_now:
                    return
                if len(records) < PAGE:
                    with contextlib.suppress(TimeoutError):
                        # Looks again now and then even if nobody wakes it.
                        await asyncio.wait_for(wake.wait(), 5)
        finally:
            self._followers.pop(wake, None)
