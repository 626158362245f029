"""How long contents are kept, and legal holds, of the administrator's tenant. Removing is the keeper's duty."""

import asyncio
from datetime import datetime
from typing import Annotated, Self

from fastapi import APIRouter, Path, Query
from pydantic import ConfigDict, Field, model_validator

from api.auth import RetentionHolder, RetentionReader, RetentionReleaser
from api.errors import Refused, not_found, problems
from api.listing import bad_cursor
from api.paging import Cursor, Limit, PageOut
from api.services import ServicesDep
from tools.contract import Strict, Wire
from worker.keeper.retaining import policy, proof
from worker.store import times
from worker.store.anchor import AnchorError
from worker.store.holds import Hold, Holds
from worker.store.keyfiles import KeyFileUnsafe
from worker.store.note import NoteError
from worker.store.paging import BadCursor
from worker.store.retention import Retention

router = APIRouter(prefix="/retention", tags=["retention"])

Id = Annotated[str, Path(max_length=64, description="Id of the hold.")]
Reason = Annotated[str, Field(min_length=1, max_length=1000, pattern=r"\S", examples=["case 17"])]
Moment = Annotated[datetime | None, Field(description="With its offset from UTC.")]


class RetentionOut(Wire):
    """What becomes of your tenant's old contents."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    days: int | None
    """After how many days what is closed loses its contents; null: never."""
    before: datetime | None
    """What was closed before that is due."""
    records: int
    """Audit records whose bodies go with the next pass."""
    bytes: int
    held: int
    """Records that are old enough, and kept by a hold."""
    runs: int
    """Runs whose contents go."""
    files: int
    """Uploads that go."""


class HoldIn(Strict):
    """What nobody may remove until the hold is released. Without a run and times: everything of your tenant."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    reason: Reason
    run_id: Annotated[str | None, Field(max_length=64)] = None
    """Only this run's."""
    since: Moment = None
    until: Moment = None

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        for at in (self.since, self.until):
            if at is not None and at.tzinfo is None:
                raise ValueError("a time needs its offset from UTC")
        if self.since is not None and self.until is not None and self.until <= self.since:
            raise ValueError("`until` is not after `since`")
        return self


class HoldReleaseIn(Strict):
    """Why what was held may go."""

    reason: Reason


@router.get("", operation_id="get_retention", summary="What is due to go", responses=problems())
async def get_retention(principal: RetentionReader, services: ServicesDep) -> RetentionOut:
    """As of now; what no signed checkpoint vouches for yet is not due."""
    rules = policy(services.settings)
    before = rules.before(principal.tenant, times.now())
    if before is None:
        return RetentionOut(days=None, before=None, records=0, bytes=0, held=0, runs=0, files=0)
    try:
        vouched, _ = await asyncio.to_thread(proof, services.settings)
    except (AnchorError, NoteError, KeyFileUnsafe, OSError) as fault:
        raise Refused(
            503, "anchor_unavailable", f"the anchor of the audit log cannot be used: {fault}",
            remedy="`gatehouse audit anchor` signs a checkpoint, `gatehouse doctor` says more",
        ) from None  # fmt: skip
    [due] = await Retention(services.audit, rules).status(vouched, principal.tenant)
    return RetentionOut(
        days=rules.of(principal.tenant), before=due.before, records=due.records, bytes=due.bytes, held=due.held,
        runs=due.runs, files=due.files,
    )  # fmt: skip


@router.get("/holds", operation_id="list_holds", summary="Legal holds", responses=problems())
async def list_holds(
    principal: RetentionReader,
    services: ServicesDep,
    active: Annotated[bool, Query(description="Only those in force.")] = False,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> PageOut[Hold]:
    """Your tenant's, newest first."""
    try:
        page = await Holds(services.audit).page(principal.tenant, active=active, cursor=cursor, limit=limit)
    except BadCursor:
        raise bad_cursor() from None
    return PageOut[Hold](items=list(page.items), next_cursor=page.next_cursor)


@router.post(
    "/holds", operation_id="place_hold", summary="Keep contents", status_code=201, responses=problems(404)
)  # fmt: skip
async def place_hold(body: HoldIn, principal: RetentionHolder, services: ServicesDep) -> Hold:
    """From the answer on nothing it names is removed."""
    if body.run_id is not None and await services.runs.get(principal.tenant, body.run_id) is None:
        raise not_found("run", body.run_id)
    return await Holds(services.audit).place(
        principal.tenant, body.reason.strip(), principal.id, run_id=body.run_id, since=body.since, until=body.until
    )  # fmt: skip


@router.post(
    "/holds/{hold_id}/release", operation_id="release_hold", summary="End a hold", responses=problems(404, 409)
)
async def release_hold(hold_id: Id, body: HoldReleaseIn, principal: RetentionReleaser, services: ServicesDep) -> Hold:
    """What it kept goes with the next pass, when it is old enough."""
    holds = Holds(services.audit)
    lifted = await holds.lift(principal.tenant, hold_id, body.reason.strip(), principal.id)
    if lifted is not None:
        return lifted
    if await holds.get(principal.tenant, hold_id) is None:
        raise not_found("hold", hold_id)
    raise Refused(409, "hold_released", "the hold was released before", remedy="look at the list of holds")
