"""What tells an open page that it is out of date: server-sent events without content, straight from the audit log.

A page that hears one asks for itself again and takes over what differs, so what it shows always comes from one place.
"""

from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Header, Query
from fastapi.sse import EventSourceResponse, ServerSentEvent

from api.console.session import QueueReader, Visitor
from worker.store.audit import AuditRecord

router = APIRouter()

RETRY_MS = 1000
_QUEUE = ("approval.",)
_KEYS = "key."
_SWITCHES = ("switch.", "run.frozen", "run.thawed")


@router.get("/live", response_class=EventSourceResponse)
async def live(
    visitor: QueueReader,
    after: Annotated[int, Query(ge=0, le=2**62)],
    run: Annotated[str | None, Query(max_length=64)] = None,
    last_event_id: Annotated[str | None, Header(max_length=20)] = None,
) -> AsyncIterator[ServerSentEvent]:
    """`queue-changed` when a question was opened or closed, `switches-changed` when one was set, released or
    confirmed, `run-changed` when something happened in `run`; for those who may read them, `keys-changed` and, whatever
    happened, `audit-changed`."""
    known = int(last_event_id) if last_event_id is not None and last_event_id.isdigit() else 0
    sessions = visitor.services.sessions
    yield ServerSentEvent(comment="open", retry=RETRY_MS)
    async for seq, records in visitor.services.tail.watch(visitor.principal.tenant, max(after, known)):
        for name in _news(records, run, visitor):
            yield ServerSentEvent(event=name, raw_data=".", id=str(seq))
        if not records:
            if not await sessions.lives(visitor.session):
                yield ServerSentEvent(event="session-ended", raw_data=".")
                return
            yield ServerSentEvent(comment="alive")


def _news(records: list[AuditRecord], run: str | None, visitor: Visitor) -> list[str]:
    found: list[str] = []
    if any(record.type.startswith(_QUEUE) for record in records):
        found.append("queue-changed")
    if any(record.type.startswith(_SWITCHES) for record in records):
        found.append("switches-changed")
    if run is not None and any(record.run_id == run for record in records):
        found.append("run-changed")
    if any(record.type.startswith(_KEYS) for record in records) and visitor.may("keys", "read"):
        found.append("keys-changed")
    if records and visitor.may("audit", "read"):
        found.append("audit-changed")
    return found
