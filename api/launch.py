"""Starting a run: check the request, write the run and the record of it in one transaction, then start the workflow.

Nothing of a run exists in Temporal before its row and its `run.requested` record are committed. Whatever dies between
the two leaves a row that a repeated request with the same Idempotency-Key starts, or else the keeper, and never twice:
the workflow id is the run id, which the reservation of the key fixed in that same transaction.
"""

import hashlib
from datetime import UTC, datetime, timedelta
from typing import Annotated

import structlog
from pydantic import ConfigDict, Field
from sqlalchemy.ext.asyncio import AsyncConnection

from api.errors import FieldProblem, Refused, invalid, invalid_fields
from api.gateway import Unreachable
from api.links import run_link
from api.services import Services
from api.unreachable import temporal_unreachable
from api.validation import JsonIn, schema_problems, with_defaults
from api.views import run_out
from policies.decision import Principal
from policies.switches import refused_run
from tools.contract import JsonObject, Strict, Wire, canonical_json
from worker.starting import details_of, request_of
from worker.store.audit import AuditEvent
from worker.store.events import closed_id
from worker.store.idempotency import Reservation, ReserveState, StoredResponse
from worker.store.ids import new_id
from worker.store.outbox import Outbox, run_closed
from worker.store.runs import Run
from workflows.contracts import FileRef, Phase, Rung, RunRef, RunResult
from workflows.spec import AutomationSpec

log = structlog.get_logger(__name__)

BUSY_FOR = timedelta(seconds=15)
"""How long a keyed request may work before a repeat takes over; longer than connecting and starting may take."""


class RunIn(Strict):
    """A run to be started."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    automation: Annotated[str, Field(max_length=64, examples=["log-triage"])]
    inputs: Annotated[JsonIn, Field(examples=[{"pattern": "ERROR|FATAL"}])] = Field(default_factory=dict)
    """Must fit the automation's input schema; its top-level defaults are filled in."""
    files: Annotated[tuple[Annotated[str, Field(max_length=64)], ...], Field(max_length=1000)] = ()
    """Ids of uploaded files; they appear under `in/` of the run's workspace."""

    def fingerprint(self) -> str:
        """Digest of everything asked for: two requests with one key must agree in it."""
        return hashlib.sha256(canonical_json(self.model_dump(mode="json"))).hexdigest()


class Checked(Wire):
    """A request that fits its automation."""

    spec: AutomationSpec
    inputs: JsonObject
    files: tuple[FileRef, ...]


async def check(services: Services, principal: Principal, body: RunIn) -> Checked:
    """The request with defaults filled in and files resolved. Raises Refused 422 naming every bad field."""
    spec = services.catalog.automations.get(body.automation)
    if spec is None:
        known = ", ".join(sorted(services.catalog.automations)) or "none"
        problem = FieldProblem(
            field="body.automation", problem=f"there is no automation `{body.automation}`", remedy=f"known: {known}"
        )
        raise invalid_fields([problem], kind="unknown_automation")
    inputs = with_defaults(body.inputs, spec.definition.inputs)
    problems = schema_problems(inputs, spec.definition.inputs, "body.inputs")
    files, bad_files = await _files(services, principal, spec, body.files)
    if problems or bad_files:
        raise invalid_fields([*problems, *bad_files], kind="invalid_inputs" if problems else "invalid_files")
    return Checked(spec=spec, inputs=inputs, files=files)


async def _files(
    services: Services, principal: Principal, spec: AutomationSpec, ids: tuple[str, ...]
) -> tuple[tuple[FileRef, ...], list[FieldProblem]]:
    rules, wrong = spec.definition.files, list[FieldProblem]()

    def bad(field: str, problem: str, remedy: str) -> None:
        wrong.append(FieldProblem(field=field, problem=problem, remedy=remedy))

    if rules.required and not ids:
        bad("body.files", f"{spec.name} needs at least one file", "upload one by POST /api/v1/files and give its id")
    if len(ids) > rules.max_count:
        bad("body.files", f"{len(ids)} files, {spec.name} takes {rules.max_count}", "give fewer")
        return (), wrong
    found: list[FileRef] = []
    names: set[str] = set()
    for index, file_id in enumerate(ids):
        stored = await services.files.get(principal.tenant, file_id)
        if stored is None:
            bad(f"body.files.{index}", f"there is no file `{file_id}`", "upload it by POST /api/v1/files")
        elif stored.name in names:
            bad(f"body.files.{index}", f"a second file is called `{stored.name}`", "upload it under another name")
        else:
            names.add(stored.name)
            found.append(FileRef(name=stored.name, sha256=stored.sha256, size=stored.size))
    total = sum(f.size for f in found)
    if total > rules.max_bytes:
        bad("body.files", f"{total:,} bytes together, {spec.name} takes {rules.max_bytes:,}", "give less")
    return tuple(found), wrong


async def launch(services: Services, principal: Principal, body: RunIn, key: str | None) -> StoredResponse:
    """Start the run, or give the answer this key was given before. Raises Refused.

    One commit without a key, two with one. A 503 leaves a keyed run to be started by a repeat, an unkeyed one failed.
    """
    refused: Refused | None = None
    checked: Checked | None = None
    try:
        checked = await check(services, principal, body)
    except Refused as error:
        if key is None:
            raise
        # Kept for later: a request that was fine when it was first made gets its first answer, whatever changed since.
        refused = error
    reservation: Reservation | None = None
    run_id = new_id("run")
    async with services.database.begin() as conn:
        if key is not None:
            reservation = await services.idempotency.reserve(
                principal, key, body.fingerprint(), resource_id=run_id, busy_for=BUSY_FOR, conn=conn
            )
            replay = _answered(reservation)
            if replay is not None:
                return replay
            run_id = reservation.resource_id
        await refuse_stopped(services, principal.tenant, body.automation, conn=conn)
        if checked is None:
            raise refused or AssertionError  # leaving the transaction by an exception forgets the reservation
        run = await _write(services, conn, principal, checked, run_id)
    await _start(services, checked, run, reservation)
    out = run_out(services, run, principal)
    response = StoredResponse(status=202, headers={"Location": out.links.self}, body=out.model_dump(mode="json"))
    if reservation is not None:
        await services.idempotency.complete(reservation, response)
    return response


async def refuse_stopped(services: Services, tenant: str, automation: str, *, conn: AsyncConnection) -> None:
    """Raise Refused 409 when a kill switch stops runs of this automation. In the transaction that writes the run."""
    refusal = refused_run(await services.switches.in_force(conn=conn), tenant, automation)
    if refusal is not None:
        raise Refused(
            409,
            "stopped",
            refusal.reason,
            remedy=f"ask {refusal.switch.set_by}; `gatehouse switches show {refusal.switch.id}` says how it stands",
        )


def _answered(reservation: Reservation) -> StoredResponse | None:
    """What to answer without doing anything; None when the work is ours to do."""
    match reservation.state:
        case ReserveState.NEW:
            return None
        case ReserveState.REPLAY if reservation.response is not None:
            headers = reservation.response.headers | {"Idempotency-Replayed": "true"}
            return reservation.response.model_copy(update={"headers": headers})
        case ReserveState.CONFLICT:
            raise invalid(
                "header.Idempotency-Key",
                "was used for a different request",
                "repeat the first request unchanged, or take a new key",
                kind="idempotency_mismatch",
            )
        case _:
            raise Refused(
                409,
                "in_progress",
                "a request with this Idempotency-Key is still being worked on",
                remedy="repeat it in a moment",
                headers={"Retry-After": "1"},
            )


async def _write(services: Services, conn: AsyncConnection, principal: Principal, checked: Checked, run_id: str) -> Run:
    """The run's row and its first record. After a crash both are there already and stay as they are."""
    definition = checked.spec.definition
    now = datetime.now(UTC)
    run = await services.runs.insert(
        Run(
            id=run_id, tenant=principal.tenant, automation=definition.name, automation_version=definition.version,
            digest=checked.spec.digest, requester=principal.id, principal=principal, inputs=checked.inputs,
            files=checked.files,
            created_at=now, updated_at=now,
        ),
        conn=conn,
    )  # fmt: skip
    if run.digest != checked.spec.digest:
        raise Refused(
            409,
            "automation_changed",
            f"`{definition.name}` has changed since this run was asked for",
            remedy="ask again with a new Idempotency-Key",
        )
    await services.audit.append(
        AuditEvent(
            event_id=f"{run_id}/requested",
            type="run.requested",
            tenant=principal.tenant,
            run_id=run_id,
            actor=principal.id,
            body={
                "automation": definition.name, "version": definition.version, "digest": checked.spec.digest,
                "inputs_digest": hashlib.sha256(canonical_json(checked.inputs)).hexdigest(),
                "files": [f.model_dump(mode="json") for f in checked.files], "roles": list(principal.roles),
            },
        ),
        conn=conn,
    )  # fmt: skip
    return run


async def _start(services: Services, checked: Checked, run: Run, reservation: Reservation | None) -> None:
    if run.phase is not Phase.QUEUED:
        return  # an earlier request with this key got it started before it died
    request = request_of(run, checked.spec, services.public_keys, services.settings.sandbox_wait_s)
    url = f"http://{services.settings.api_host}:{services.settings.api_port}{run_link(run.id)}"
    try:
        await services.gateway.start(request, details_of(run, url))
    except Exception as error:
        sent = isinstance(error, Unreachable) and error.sent
        if reservation is not None:
            await services.idempotency.release(reservation)
        elif sent and await _did_start(services, run.id):
            return
        else:
            await close_unstarted(services, run, Phase.FAILED, f"Temporal did not start it: {error}")
        if not isinstance(error, Unreachable):
            raise
        log.warning("run.not_started", run=run.id, reason=error.reason)
        raise temporal_unreachable(error, remedy=_REPEAT if reservation else "") from error


_REPEAT = "start Temporal (`gatehouse up`), then repeat the request with the same Idempotency-Key: it starts this run"


async def _did_start(services: Services, run_id: str) -> bool:
    try:
        return await services.gateway.exists(run_id)
    except Unreachable:
        # If it did start after all, its first step finds the run closed and ends it.
        return False


async def close_unstarted(services: Services, run: Run, phase: Phase, reason: str) -> bool:
    """Close a run whose workflow does not exist, as the workflow would have; False when the run has ended already.

    Should the workflow come into being after all, its first step finds the run closed and ends it.
    """
    result = RunResult(phase=phase, rung=Rung.MODEL, failure=reason[:1000])
    async with services.database.begin() as conn:
        if not await services.runs.set_phase(run.id, phase, result=result, conn=conn):
            return False
        ref = RunRef(run_id=run.id, tenant=run.tenant, automation=run.automation)
        await Outbox(services.database).add(conn, run_closed(ref, phase, reason))
        await services.audit.lock(conn)
        records = await services.audit.count(run.id, conn=conn) + 1
        await services.audit.append(
            AuditEvent(
                event_id=closed_id(run.id),
                type="run.closed",
                tenant=run.tenant,
                run_id=run.id,
                actor="system:api",
                body={"records": records, "phase": phase.value, "rung": result.rung.value, "failure": reason},
            ),
            conn=conn,
        )
    return True
