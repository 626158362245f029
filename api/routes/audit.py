"""The audit log, for those who may read it: the tenant's records in order, and whether the chain still holds."""

import asyncio
from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import AfterValidator, BaseModel

from api.auth import AuditReader, AuditVerifier
from api.errors import invalid, problems
from api.paging import Limit, PageOut
from api.services import ServicesDep
from tools.contract import JsonObject
from worker.store.audit import AuditRecord
from worker.store.events import EVENT_TYPES
from worker.store.search import Sought, search

router = APIRouter(prefix="/audit", tags=["audit"])

SeqCursor = Annotated[
    str | None, Query(pattern=r"^[0-9]{1,18}$", description="`next_cursor` of the page before; wins over `after`.")
]

_verifying = asyncio.Lock()


def _utc(at: datetime) -> datetime:
    try:
        return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
    except OverflowError:
        raise ValueError("is beyond the calendar") from None


Moment = Annotated[datetime, AfterValidator(_utc)]


class RecordOut(BaseModel):
    """One record. `seq` is dense over the whole installation, `run_seq` within its run."""

    seq: int
    event_id: str
    ts: datetime
    tenant: str
    run_id: str | None
    run_seq: int | None
    type: str
    actor: str
    body: JsonObject
    leaf_hash: str
    chain_hash: str


class VerificationOut(BaseModel):
    """Whether every record is the one that was written, and none is missing."""

    ok: bool
    count: int
    first_bad: int | None
    problem: str | None
    head: str


def record_out(record: AuditRecord) -> RecordOut:
    """The record as JSON."""
    return RecordOut(
        seq=record.seq, event_id=record.event_id, ts=record.ts, tenant=record.tenant, run_id=record.run_id,
        run_seq=record.run_seq, type=record.type, actor=record.actor, body=record.body, leaf_hash=record.leaf_hash,
        chain_hash=record.chain_hash,
    )  # fmt: skip


@router.get("", operation_id="list_audit", summary="Records in order", responses=problems())
async def list_audit(
    principal: AuditReader,
    services: ServicesDep,
    run: Annotated[str | None, Query(max_length=64, description="Only this run's records.")] = None,
    type: Annotated[str | None, Query(max_length=64, description="Only this type.", examples=["call.intent"])] = None,  # noqa: A002
    actor: Annotated[str | None, Query(max_length=128, description="Only what this principal did.")] = None,
    since: Annotated[Moment | None, Query(description="Only from this time on; UTC unless it says otherwise.")] = None,
    until: Annotated[Moment | None, Query(description="Only before this time.")] = None,
    text: Annotated[str | None, Query(max_length=200, description="Only with this text in the body, exactly.")] = None,
    after: Annotated[int, Query(ge=0, le=2**62, description="Only records after this sequence number.")] = 0,
    cursor: SeqCursor = None,
    limit: Limit = 50,
) -> PageOut[RecordOut]:
    """Oldest first. `next_cursor` is the last sequence number that was looked at: a page of a search in a long log may
    hold few records, or none, and not be the last."""
    if type is not None and type not in EVENT_TYPES:
        raise invalid(
            "query.type", f"`{type}` is not a type of record", f"give one of {', '.join(sorted(EVENT_TYPES))}"
        )
    start = int(cursor) if cursor is not None else after
    sought = Sought(run=run, type=type, actor=actor, since=since, until=until, text=text or None)
    found = await search(services.database, principal.tenant, sought, after=start, limit=limit)
    return PageOut[RecordOut](
        items=[record_out(r) for r in found.records], next_cursor=None if found.next is None else str(found.next)
    )


@router.get("/verify", operation_id="verify_audit", summary="Verify the hash chain", responses=problems())
async def verify_audit(
    _: AuditVerifier,
    services: ServicesDep,
    full: Annotated[bool, Query(description="Look at every record again, not only at those since last time.")] = False,
) -> VerificationOut:
    """Recomputes the hashes of the log of the whole installation (all tenants); one at a time per process.

    What this process verified before is looked at again only when asked to. `gatehouse audit verify` also compares the
    log with the signed checkpoints.
    """
    async with _verifying:
        found = await (services.audit.verify() if full else services.follower.verify())
    return VerificationOut(
        ok=found.ok, count=found.count, first_bad=found.first_bad, problem=found.problem, head=found.head
    )
