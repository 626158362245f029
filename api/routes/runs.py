"""Runs: ask for one, look at them, stop one."""

from typing import Annotated

from fastapi import APIRouter, Header, Path, Query
from starlette.responses import JSONResponse, Response

from api.auth import RunsCanceller, RunsReader, RunsStarter
from api.errors import Refused, not_found, problems
from api.gateway import NotRunning, Unreachable
from api.launch import RunIn, close_unstarted, launch
from api.listing import bad_cursor
from api.paging import Cursor, Limit, PageOut
from api.services import Services, ServicesDep
from api.unreachable import temporal_unreachable
from api.views import RunOut, run_out
from worker.store.audit import AuditEvent
from worker.store.paging import BadCursor
from worker.store.runs import Run
from workflows.contracts import Phase

router = APIRouter(prefix="/runs", tags=["runs"])

RunId = Annotated[str, Path(max_length=64, examples=["run_01kb2m0000000000000000000"])]


@router.post(
    "",
    operation_id="start_run",
    summary="Start a run",
    status_code=202,
    response_model=RunOut,
    responses=problems(409) | {202: {"headers": {"Location": {"schema": {"type": "string"}, "required": True}}}},
)
async def start_run(
    body: RunIn,
    principal: RunsStarter,
    services: ServicesDep,
    idempotency_key: Annotated[
        str | None,
        Header(
            pattern=r"^[\x21-\x7e]{1,255}$",
            description="Repeating a request with its key repeats the answer and starts nothing. Kept for 24 hours.",
            examples=["3f6c0d8e-nightly"],
        ),
    ] = None,
) -> Response:
    """Answers as soon as Temporal holds the run. 409 `in_progress`: the first request with this key still works. 422
    `idempotency_mismatch`: the key was used for something else. 503: Temporal does not answer; with a key, repeat the
    request and the same run starts."""
    answer = await launch(services, principal, body, idempotency_key)
    return JSONResponse(answer.body, answer.status, headers=answer.headers)


@router.get("", operation_id="list_runs", summary="List runs", responses=problems())
async def list_runs(
    principal: RunsReader,
    services: ServicesDep,
    phase: Annotated[Phase | None, Query(description="Only those in this phase.")] = None,
    automation: Annotated[str | None, Query(max_length=64, description="Only this automation's.")] = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> PageOut[RunOut]:
    """Newest first."""
    try:
        page = await services.runs.page(
            principal.tenant, phase=phase, automation=automation, cursor=cursor, limit=limit
        )
    except BadCursor:
        raise bad_cursor() from None
    return PageOut[RunOut](
        items=[run_out(services, run, principal) for run in page.items], next_cursor=page.next_cursor
    )


@router.get("/{run_id}", operation_id="get_run", summary="One run", responses=problems(404))
async def get_run(run_id: RunId, principal: RunsReader, services: ServicesDep) -> RunOut:
    """Where it stands and, once it has ended, its result."""
    run = await services.runs.get(principal.tenant, run_id)
    if run is None:
        raise not_found("run", run_id)
    return run_out(services, run, principal)


@router.post(
    "/{run_id}/cancel", operation_id="cancel_run", summary="Stop a run", status_code=202, responses=problems(404, 409)
)
async def cancel_run(run_id: RunId, principal: RunsCanceller, services: ServicesDep) -> RunOut:
    """The run withdraws its questions, kills its containers and closes; follow its events to see it end."""
    run = await services.runs.get(principal.tenant, run_id)
    if run is None:
        raise not_found("run", run_id)
    if run.phase.final:
        raise Refused(409, "already_final", f"the run has {run.phase.value} already", remedy="nothing is left to stop")
    await services.audit.append(
        AuditEvent(
            event_id=f"{run_id}/cancel/{principal.id}",
            type="run.cancel_requested",
            tenant=principal.tenant,
            run_id=run_id,
            actor=principal.id,
            body={"phase": run.phase.value},
        )
    )
    try:
        await _stop(services, run)
    except Unreachable as error:
        raise temporal_unreachable(error) from error
    return run_out(services, await services.runs.get(principal.tenant, run_id) or run, principal)


async def _stop(services: Services, run: Run) -> None:
    try:
        await services.gateway.cancel(run.id)
    except NotRunning:
        # Asked for, but never started (Temporal was away): there is no workflow that could close it.
        if run.phase is Phase.QUEUED and not await services.gateway.exists(run.id):
            await close_unstarted(services, run, Phase.CANCELLED, "cancelled before it started")
            return
        raise Refused(409, "already_final", "the run's workflow has just ended", remedy="read the run again") from None
