"""A run as the API shows it."""

from datetime import datetime
from typing import cast

from api.links import run_link, temporal_link
from api.services import Services
from policies.decision import Principal
from tools.contract import JsonObject, Wire
from worker.store.runs import Run
from workflows.contracts import FileRef, Phase, Rung, RunResult


class RunLinks(Wire):
    """Where to look further."""

    self: str
    events: str
    artifacts: str
    temporal: str


class RunOut(Wire):
    """One run. `phase` says where it stands, `rung` which step of the degrade ladder works or has answered."""

    id: str
    automation: str
    automation_version: str
    phase: Phase
    rung: Rung
    requester: str
    inputs: JsonObject
    files: tuple[FileRef, ...]
    result: RunResult | None
    created_at: datetime
    updated_at: datetime
    contents_removed_at: datetime | None
    """When retention removed inputs, files, result and what was said to its questions; null: they are there."""
    links: RunLinks


def run_out(services: Services, run: Run, viewer: Principal) -> RunOut:
    """The row, with links. Who asked for the run sees its personal data, others do not; nobody sees secrets."""
    settings, redacts = services.settings, services.redacts
    own = viewer.id == run.requester and viewer.tenant == run.tenant
    clean = redacts.without_secrets if own else redacts.json
    result = run.result
    if result is not None:
        words = {"output": result.output, "failure": result.failure, "degraded": list(result.degraded)}
        # Read again, not copied: a list becomes the tuple it was.
        cleaned = cast("JsonObject", clean(cast("JsonObject", words)))
        result = RunResult.model_validate(result.model_dump() | cleaned)
    return RunOut(
        id=run.id, automation=run.automation, automation_version=run.automation_version, phase=run.phase, rung=run.rung,
        requester=run.requester, inputs=cast("JsonObject", clean(run.inputs)), files=run.files, result=result,
        created_at=run.created_at,
        updated_at=run.updated_at,
        contents_removed_at=run.contents_removed_at,
        links=RunLinks(
            self=run_link(run.id), events=run_link(run.id, "events"), artifacts=run_link(run.id, "artifacts"),
            temporal=temporal_link(settings, run.id),
        ),
    )  # fmt: skip
