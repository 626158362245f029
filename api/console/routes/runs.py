"""Runs: the list, one of them live, its artifacts, and the stop."""

from typing import Annotated

from fastapi import APIRouter, Path, Query, Request
from starlette.responses import RedirectResponse, Response

from api.console.pages import page, query
from api.console.session import ArtifactsReader, RunsCanceller, RunsReader
from api.console.story import spent, steps
from api.errors import not_found
from api.listing import bad_cursor
from api.routes import artifacts as artifact_routes
from api.routes import runs as run_routes
from api.views import run_out
from worker.store.paging import BadCursor
from workflows.contracts import Phase

router = APIRouter(prefix="/runs")

PAGE = 50
MOST_RECORDS = 1000

Id = Annotated[str, Path(max_length=64)]
Text = Annotated[str, Query(max_length=64)]


@router.get("")
async def runs_page(
    request: Request, visitor: RunsReader, phase: Text = "", automation: Text = "",
    cursor: Annotated[str | None, Query(max_length=512)] = None,
) -> Response:  # fmt: skip
    """Newest first."""
    services = visitor.services
    wanted = Phase(phase) if phase in set(Phase) else None
    try:
        found = await services.runs.page(
            visitor.principal.tenant, phase=wanted, automation=automation or None, cursor=cursor, limit=PAGE
        )
    except BadCursor:
        raise bad_cursor() from None
    chosen = {"phase": phase, "automation": automation}
    return page(
        request, "runs.html", runs=[run_out(services, run, visitor.principal) for run in found.items], chosen=chosen,
        phases=[p.value for p in Phase], automations=sorted(services.catalog.automations),
        filtered=any(chosen.values()),
        next_link=query(**chosen, cursor=found.next_cursor) if found.next_cursor else None,
    )  # fmt: skip


@router.get("/{run_id}")
async def run_page(request: Request, run_id: Id, visitor: RunsReader) -> Response:
    """What happened so far, step by step; the page follows by itself."""
    services = visitor.services
    run = await services.runs.get(visitor.principal.tenant, run_id)
    if run is None:
        raise not_found("run", run_id)
    records = await services.audit.page(tenant=run.tenant, run_id=run_id, limit=MOST_RECORDS)
    return page(
        request, "run.html", run=run_out(services, run, visitor.principal), steps=steps(records), spent=spent(records),
        seq=records[-1].seq if records else 0, cut=len(records) == MOST_RECORDS,
        may_cancel=visitor.may("runs", "cancel") and not run.phase.final,
        degraded=[s for s in steps(records) if s.type == "run.degraded"],
    )  # fmt: skip


@router.post("/{run_id}/cancel")
async def cancel(run_id: Id, visitor: RunsCanceller) -> Response:
    """As the API's route does it."""
    await run_routes.cancel_run(run_id, visitor.principal, visitor.services)
    return RedirectResponse(f"/console/runs/{run_id}", 303)


@router.get("/{run_id}/artifacts/{name:path}")
async def artifact(run_id: Id, name: Annotated[str, Path(max_length=1024)], visitor: ArtifactsReader) -> Response:
    """A download that no browser will run."""
    return await artifact_routes.get_artifact(run_id, name, visitor.principal, visitor.services)
