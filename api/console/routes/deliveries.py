"""Deliveries: what was told to whom, what did not get there and why; sending it again, or giving it up."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Annotated, Literal, get_args

from fastapi import APIRouter, Form, Query, Request
from starlette.responses import RedirectResponse, Response

from api.console.pages import page, query
from api.console.session import DeliveriesReader, DeliveriesRetrier
from api.errors import Refused
from api.routes import deliveries as routes
from api.services import Services
from policies.decision import Principal
from policies.glob import any_glob
from worker.notify import words
from worker.store.outbox import Delivery, DeliveryState

router = APIRouter(prefix="/deliveries")

PAGE = 50
STATES: dict[str, str] = {
    "dead": "not delivered", "pending": "on their way", "delivered": "delivered", "dismissed": "dismissed",
}  # fmt: skip
Done = Literal["", "retry", "dismiss"]
_ACTIONS: Mapping[str, Callable[[str, Principal, Services], Awaitable[Delivery]]] = {
    "retry": routes.retry_delivery, "dismiss": routes.dismiss_delivery,
}  # fmt: skip


@router.get("")
async def deliveries_page(
    request: Request,
    visitor: DeliveriesReader,
    state: Annotated[str, Query(max_length=20)] = "dead",
    channel: Annotated[str, Query(max_length=64)] = "",
    cursor: Annotated[str | None, Query(max_length=512)] = None,
    done: Done = "",
    n: Annotated[int, Query(ge=0, le=PAGE)] = 1,
) -> Response:
    """Those that nobody got, newest first; by the filter all others."""
    services, who = visitor.services, visitor.principal
    known = next((s for s in get_args(DeliveryState) if s == state), None)
    found = await routes.list_deliveries(who, services, known, channel or None, PAGE, cursor)
    notices = await services.outbox.notices([made.notice_id for made in found.items])
    chosen = {"state": known or "any", "channel": channel}
    return page(
        request, "deliveries.html", chosen=chosen, states=STATES, done=done, done_count=n,
        rows=[(m, words.subject(t), words.link(t, "")) for m in found.items if (t := notices.get(m.notice_id))],
        channels=[c.name for c in services.notify.now.channels if any_glob(who.tenant, c.tenants)],
        backlog=await routes.get_backlog(who, services), may_retry=visitor.may("deliveries", "retry"),
        next_link=query(**chosen, cursor=found.next_cursor) if found.next_cursor else None,
    )  # fmt: skip


@router.post("/{action}")
async def act(
    visitor: DeliveriesRetrier,
    action: Literal["retry", "dismiss"],
    id: Annotated[list[str] | None, Form(max_length=PAGE)] = None,  # noqa: A002
) -> Response:
    """Send those again from the start, or let them be. One that is not dead any more stays as it is."""
    if not id:
        raise Refused(422, "nothing_picked", "no delivery was chosen")
    for one in id:
        await _ACTIONS[action](one, visitor.principal, visitor.services)
    return RedirectResponse("/console/deliveries" + query(done=action, n=len(id)), 303)
