"""Live events of one run, as server-sent events straight from the audit log: what is shown is what is on record."""

from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Depends, Header, Path, Query
from fastapi.sse import EventSourceResponse, ServerSentEvent

from api.auth import RunsReader
from api.errors import invalid, not_found, problems
from api.routes.audit import record_out
from api.services import ServicesDep

router = APIRouter(prefix="/runs", tags=["runs"])

RETRY_MS = 1000

RunId = Annotated[str, Path(max_length=64, examples=["run_01kb2m0000000000000000000"])]


async def start_point(
    run_id: RunId,
    principal: RunsReader,
    services: ServicesDep,
    after: Annotated[int | None, Query(ge=0, le=2**62, description="Only records after this sequence number.")] = None,
    last_event_id: Annotated[
        str | None, Header(max_length=20, description="Sent by browsers when they reconnect; `after` wins over it.")
    ] = None,
) -> int:
    """Sequence number to go on behind. Everything that can refuse stands here: once the stream begins, it is a 200."""
    if await services.runs.get(principal.tenant, run_id) is None:
        raise not_found("run", run_id)
    if after is not None:
        return after
    if last_event_id is None or last_event_id == "":
        return 0
    if not last_event_id.isascii() or not last_event_id.isdigit() or len(last_event_id) > 18:
        raise invalid("header.Last-Event-ID", "is not the id of an event", "send the `id` of the last event you got")
    return int(last_event_id)


@router.get(
    "/{run_id}/events",
    operation_id="follow_run",
    summary="Follow a run (server-sent events)",
    response_class=EventSourceResponse,
    responses=problems(404),
)
async def follow_run(
    run_id: RunId,
    principal: RunsReader,
    services: ServicesDep,
    start: Annotated[int, Depends(start_point)],
    until_now: Annotated[
        bool, Query(description="End behind the last record there is, also if the run goes on.")
    ] = False,
) -> AsyncIterator[ServerSentEvent]:
    """One event per audit record: `id` its sequence number, `event` its type, `data` the record as JSON.

    Begins with the run's first record, resumes behind `Last-Event-ID` or `after`, sends comments to keep the connection
    and ends after `run.closed`."""
    yield ServerSentEvent(comment="following", retry=RETRY_MS)
    async for record in services.tail.follow(principal.tenant, run_id, start, until_now=until_now):
        yield ServerSentEvent(id=str(record.seq), event=record.type, raw_data=record_out(record).model_dump_json())
