"""Deliveries of notices: what was told to whom, what waits, what was given up, and trying that again."""

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Path, Query

from api.auth import DeliveriesReader, DeliveriesRetrier
from api.errors import not_found, problems
from api.listing import bad_cursor
from api.paging import Cursor, Limit, PageOut
from api.services import ServicesDep
from tools.contract import Wire
from worker.store import times
from worker.store.outbox import Delivery, DeliveryState
from worker.store.paging import BadCursor

router = APIRouter(prefix="/deliveries", tags=["deliveries"])

Id = Annotated[str, Path(max_length=64, description="Id of the delivery.")]


class BacklogOut(Wire):
    """What nobody has been told yet. Watch `oldest_pending_s`, and that `dead` is 0."""

    pending: int
    dead: int
    oldest_pending_at: datetime | None
    oldest_pending_s: float


@router.get("", operation_id="list_deliveries", summary="List deliveries", responses=problems())
async def list_deliveries(
    principal: DeliveriesReader,
    services: ServicesDep,
    state: Annotated[DeliveryState | None, Query(description="Only those in this state.")] = None,
    channel: Annotated[str | None, Query(max_length=64, description="Only this channel's.")] = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> PageOut[Delivery]:
    """Newest first, with the receiver's receipt or why the last attempt failed."""
    try:
        page = await services.outbox.page(principal.tenant, state=state, channel=channel, cursor=cursor, limit=limit)
    except BadCursor:
        raise bad_cursor() from None
    return PageOut[Delivery](items=list(page.items), next_cursor=page.next_cursor)


@router.get("/backlog", operation_id="get_backlog", summary="What was not told yet", responses=problems())
async def get_backlog(principal: DeliveriesReader, services: ServicesDep) -> BacklogOut:
    """Numbers for a monitor."""
    found = await services.outbox.backlog(principal.tenant)
    oldest = found.oldest_pending_at
    waited = (times.now() - oldest).total_seconds() if oldest else 0.0
    return BacklogOut(**found.model_dump(), oldest_pending_s=max(0.0, waited))


@router.post(
    "/{delivery_id}/retry", operation_id="retry_delivery", summary="Try a dead one again", responses=problems(404)
)
async def retry_delivery(delivery_id: Id, principal: DeliveriesRetrier, services: ServicesDep) -> Delivery:
    """From the start, under the same id. One that is not dead stays as it is."""
    found = await services.outbox.retry(principal.tenant, delivery_id)
    if found is None:
        raise not_found("delivery", delivery_id)
    return found


@router.post(
    "/{delivery_id}/dismiss", operation_id="dismiss_delivery", summary="Give a dead one up", responses=problems(404)
)
async def dismiss_delivery(delivery_id: Id, principal: DeliveriesRetrier, services: ServicesDep) -> Delivery:
    """It need not arrive any more, and counts as dead no longer. One that is not dead stays as it is."""
    found = await services.outbox.dismiss(principal.tenant, delivery_id)
    if found is None:
        raise not_found("delivery", delivery_id)
    return found
