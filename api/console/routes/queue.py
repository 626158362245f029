"""The queue: what waits for an answer, filtered, most urgent first; and one answer to several questions at once."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Annotated, Literal

from fastapi import APIRouter, Form, Query, Request
from pydantic import ValidationError
from starlette.responses import RedirectResponse, Response

from api.answers import ApproveIn, DenyIn, give_answer
from api.console.pages import page, query
from api.console.refusals import Said, said
from api.console.session import HOME, QueueAnswerer, QueueReader, Visitor
from api.errors import Refused
from api.listing import bad_cursor
from api.routes.approvals import approval_out
from policies.approval import who_refused
from tools.contract import Effect
from worker.store.head import last_seq
from worker.store.paging import BadCursor
from worker.store.queue import Wanted

router = APIRouter(prefix="/queue")

PAGE = 50
MOST_AT_ONCE = 100
_TOGETHER = 8
"""Answers of one batch that are on their way at the same time."""
AGES = {"5m": timedelta(minutes=5), "1h": timedelta(hours=1), "1d": timedelta(days=1)}

Text = Annotated[str, Query(max_length=64)]


@router.get("")
async def queue_page(
    request: Request,
    visitor: QueueReader,
    automation: Text = "",
    effect: Text = "",
    age: Text = "",
    same: Text = "",
    cursor: Annotated[str | None, Query(max_length=512)] = None,
    done: Annotated[str, Query(pattern="^(approved|denied)?$")] = "",
    n: Annotated[int, Query(ge=0, le=MOST_AT_ONCE)] = 1,
) -> Response:
    """One page of it. `same` is the digest of one call: what asks for that very call."""
    services, tenant = visitor.services, visitor.principal.tenant
    before = datetime.now(UTC) - AGES[age] if age in AGES else None
    wanted = Wanted(
        tenant=tenant, automation=automation or None, effect=effect or None, asked_before=before, digest=same or None
    )
    # First, so that whatever happens while the page is drawn is announced to it.
    seq = await last_seq(services.database)
    try:
        found = await services.queue.page(wanted, cursor=cursor, limit=PAGE)
    except BadCursor:
        raise bad_cursor() from None
    counts = await services.queue.counts(tenant)
    chosen = {"automation": automation, "effect": effect, "age": age, "same": same}
    me = visitor.principal
    return page(
        request, "queue.html",
        rows=[(approval_out(services, row, viewer=me), who_refused(row.request, me)) for row in found.items],
        next_link=query(**chosen, cursor=found.next_cursor) if found.next_cursor else None,
        first=cursor is None, chosen=chosen, filtered=any(chosen.values()), counts=counts, total=sum(counts.values()),
        automations=sorted(services.catalog.automations), effects=[e.value for e in Effect], seq=seq,
        may_answer=visitor.may("approvals", "answer"), done=done, done_count=n,
    )  # fmt: skip


@router.post("/answer")
async def answer_many(
    request: Request,
    visitor: QueueAnswerer,
    verdict: Annotated[Literal["approve", "deny"], Form()],
    pick: Annotated[list[str] | None, Form(max_length=MOST_AT_ONCE)] = None,
    reason: Annotated[str, Form(max_length=2000)] = "",
) -> Response:
    """Each question gets its own signed answer, bound to the arguments that were shown; what is refused is listed."""
    picked = [tuple(p.rsplit(":", 1)) for p in pick or () if ":" in p]
    if not picked:
        raise Refused(422, "nothing_picked", "no question was chosen", remedy="mark some in the queue first")
    turns = asyncio.Semaphore(_TOGETHER)

    async def one(approval_id: str, digest: str) -> Said | None:
        async with turns:
            return await _answer(visitor, approval_id, verdict, digest, reason)

    outcomes = await asyncio.gather(*(one(a, d) for a, d in picked))
    refused = [(a, s) for (a, _), s in zip(picked, outcomes, strict=True) if s is not None]
    done = "approved" if verdict == "approve" else "denied"
    if not refused:
        return RedirectResponse(HOME + query(done=done, n=len(picked)), 303)
    return page(request, "batch.html", status=409, refused=refused, done=done, given=len(picked) - len(refused))


async def _answer(visitor: Visitor, approval_id: str, verdict: str, digest: str, reason: str) -> Said | None:
    try:
        if verdict == "approve":
            await give_answer(
                visitor.services, visitor.principal, approval_id, "approve", ApproveIn(digest=digest, reason=reason)
            )
        else:
            await give_answer(
                visitor.services, visitor.principal, approval_id, "deny", DenyIn(digest=digest, reason=reason)
            )
    except ValidationError:
        return Said(
            kind="invalid_request", title="A denial needs a reason", text="The agent reads it. Nothing was answered."
        )
    except Refused as refused:
        return said(refused)
    return None
