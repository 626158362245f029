"""The audit log: search it, see whether it verifies, take it along."""

import json
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import Response, StreamingResponse

from api.console.pages import page, query
from api.console.session import AuditReader, AuditVerifier, Visitor
from api.routes import audit as audit_routes
from worker.store.events import EVENT_TYPES
from worker.store.head import last_seq

router = APIRouter(prefix="/audit")

PAGE = 100
_EXPORT_PAGE = 500

Text = Annotated[str, Query(max_length=64)]
Kind = Annotated[str, Query(max_length=64, alias="type")]
After = Annotated[int, Query(ge=0, le=2**62)]


@router.get("")
async def audit_page(
    request: Request, visitor: AuditReader, kind: Kind = "", run: Text = "", after: After = 0
) -> Response:
    """The tenant's records, in order."""
    return await _draw(request, visitor, kind, run, after)


@router.get("/verify")
async def verify(
    request: Request,
    visitor: AuditVerifier,
    kind: Kind = "",
    run: Text = "",
    after: After = 0,
    full: bool = False,
) -> Response:
    """Recomputes the chain, all of it or what is new."""
    found = await audit_routes.verify_audit(visitor.principal, visitor.services, full)
    return await _draw(request, visitor, kind, run, after, verification=found)


@router.get("/export")
async def export(visitor: AuditReader, kind: Kind = "", run: Text = "", after: After = 0) -> Response:
    """What the search finds, as lines of JSON, all of it."""
    headers = {"Content-Disposition": 'attachment; filename="audit.jsonl"'}
    return StreamingResponse(
        _lines(visitor, kind or None, run or None, after), media_type="application/x-ndjson", headers=headers
    )


async def _lines(visitor: Visitor, type_: str | None, run: str | None, after: int) -> AsyncIterator[bytes]:
    while True:
        records = await visitor.services.audit.page(
            tenant=visitor.principal.tenant, run_id=run, type=type_, after=after, limit=_EXPORT_PAGE
        )
        for record in records:
            line = audit_routes.record_out(record).model_dump(mode="json")
            yield json.dumps(line, separators=(",", ":"), sort_keys=True).encode() + b"\n"
        if len(records) < _EXPORT_PAGE:
            return
        after = records[-1].seq


async def _draw(
    request: Request, visitor: Visitor, type_: str, run: str, after: int, verification: object = None
) -> Response:
    services = visitor.services
    known = type_ if type_ in EVENT_TYPES else None
    records = await services.audit.page(
        tenant=visitor.principal.tenant, run_id=run or None, type=known, after=after, limit=PAGE
    )
    chosen = {"type": known or "", "run": run}
    return page(
        request, "audit.html", records=records, chosen=chosen, types=EVENT_TYPES, verification=verification,
        last=await last_seq(services.database), query_here=query(**chosen, after=after or None),
        next_link=query(**chosen, after=records[-1].seq) if len(records) == PAGE else None,
        may_verify=visitor.may("audit", "verify"), filtered=any(chosen.values()),
    )  # fmt: skip
