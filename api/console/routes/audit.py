"""The audit log: search it, see whether it verifies, take it along."""

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from starlette.responses import Response, StreamingResponse

from api.console.pages import page, query
from api.console.session import AuditReader, AuditVerifier, Visitor
from api.console.story import steps
from api.errors import Refused
from api.routes import audit as audit_routes
from worker.store.events import EVENT_TYPES
from worker.store.head import last_seq
from worker.store.search import Sought, search

router = APIRouter(prefix="/audit")

PAGE = 100
_EXPORT_PAGE = 500

Text = Annotated[str, Query(max_length=64)]
Seq = Annotated[int, Query(ge=0, le=2**62)]


def _chosen(
    kind: Annotated[str, Query(max_length=64, alias="type")] = "", run: Text = "",
    actor: Annotated[str, Query(max_length=128)] = "", since: Text = "", until: Text = "",
    text: Annotated[str, Query(max_length=200)] = "",
) -> dict[str, str]:  # fmt: skip
    """What was asked for, as it was typed: it goes back into the form and into links."""
    typed = {"type": kind, "run": run, "actor": actor, "since": since, "until": until}
    return {name: value.strip() for name, value in typed.items()} | {"text": text}


Chosen = Annotated[dict[str, str], Depends(_chosen)]


@router.get("")
async def audit_page(
    request: Request, visitor: AuditReader, chosen: Chosen, before: Seq = 0, seen: Seq = 0
) -> Response:  # fmt: skip
    """The tenant's records, newest first. `seen`: the newest of an open page that asks what came since."""
    return await _draw(request, visitor, chosen, before, seen=seen)


@router.get("/verify")
async def verify(
    request: Request, visitor: AuditVerifier, chosen: Chosen, before: Seq = 0, full: bool = False
) -> Response:  # fmt: skip
    """Recomputes the chain, all of it or what is new."""
    found = await audit_routes.verify_audit(visitor.principal, visitor.services, full)
    return await _draw(request, visitor, chosen, before, verification=found)


@router.get("/export")
async def export(visitor: AuditReader, chosen: Chosen) -> Response:
    """What the search finds, all of it, as lines of JSON, oldest first."""
    headers = {"Content-Disposition": 'attachment; filename="audit.jsonl"'}
    return StreamingResponse(_lines(visitor, _sought(chosen)), media_type="application/x-ndjson", headers=headers)


async def _lines(visitor: Visitor, sought: Sought) -> AsyncIterator[bytes]:
    after: int | None = 0
    while after is not None:
        found = await search(
            visitor.services.database, visitor.principal.tenant, sought, after=after, limit=_EXPORT_PAGE
        )
        for record in found.records:
            line = audit_routes.record_out(record).model_dump(mode="json")
            yield json.dumps(line, separators=(",", ":"), sort_keys=True).encode() + b"\n"
        after = found.next


def _sought(chosen: dict[str, str]) -> Sought:
    """Raises Refused 422 for what cannot be looked for."""
    given = {name: value or None for name, value in chosen.items()}
    if given["type"] is not None and given["type"] not in EVENT_TYPES:
        raise Refused(422, "invalid_request", f"there is no type of record `{given['type']}`")
    return Sought.model_validate(given | {name: _moment(chosen[name]) for name in ("since", "until")})


def _moment(typed: str) -> datetime | None:
    try:
        at = datetime.fromisoformat(typed) if typed else None
        return at if at is None else at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
    except (ValueError, OverflowError):
        raise Refused(422, "invalid_request", f"`{typed}` is not a time; write it like 2026-11-22T18:00") from None


async def _draw(
    request: Request, visitor: Visitor, chosen: dict[str, str], before: int, *, seen: int = 0, verification: Any = None
) -> Response:  # fmt: skip
    services, tenant = visitor.services, visitor.principal.tenant
    problem, records, next_before = None, [], None
    last = await last_seq(services.database)
    try:
        found = await search(services.database, tenant, _sought(chosen), before=before or None, newest=True, limit=PAGE)
        records, next_before = found
    except Refused as refused:
        problem = refused.detail
    return page(
        request, "audit.html", status=422 if problem else 200, problem=problem,
        rows=list(zip(records, steps(records), strict=True)), chosen=chosen, types=EVENT_TYPES,
        verification=verification, last=last, first=not before, seen=seen,
        newer=sum(r.seq > seen for r in records) if seen else 0,
        query_here=query(**chosen), newest=records[0].seq if records else 0,
        next_link=query(**chosen, before=next_before) if next_before else None, page_size=PAGE,
        may_verify=visitor.may("audit", "verify"), filtered=any(chosen.values()),
    )  # fmt: skip
