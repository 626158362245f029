"""Compares the store with Temporal and repairs what a crash between the two left behind.

Nothing is guessed: what is started was asked for, what is closed has no workflow that could still close it, what is
written again is what the workflow itself says. Every repair is on record and harmless to repeat.
"""

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

import sqlalchemy as sa
import structlog
from temporalio.client import Client, WorkflowExecutionStatus
from temporalio.common import SearchAttributeKey
from temporalio.service import RPCError, RPCStatusCode

from tools.contract import JsonObject
from worker.activities.records import RecordActivities
from worker.keeper.stopping import Connect
from worker.settings import Settings
from worker.starting import Starting, read_definitions
from worker.store import times
from worker.store.approvals import Approvals
from worker.store.audit import AuditEvent, AuditLog
from worker.store.database import Database
from worker.store.ledger import Ledger
from worker.store.runs import Run, Runs
from worker.store.signing import PublicKeys
from worker.store.switches import Switches
from worker.store.tables import run as table
from worker.temporal import TemporalUnavailable, redactor
from workflows.contracts import (
    QUERY_STATE,
    SA_PHASE,
    WORKFLOW,
    ApprovalRequest,
    Phase,
    RunClosed,
    RunRef,
    RunResult,
    RunState,
)

SETTLED: Final = timedelta(minutes=1)
"""Whoever changed a run so recently may still be at it."""
NEVER_STARTED: Final = timedelta(minutes=10)
"""As long a run that cannot be started waits for whatever hinders it to be mended."""
LOST: Final = timedelta(hours=1)
"""As long a workflow must have been missing before its run is given up: the wrong Temporal may be configured."""
BATCH: Final = 200
AT_ONCE: Final = 10
LISTED: Final = 1000
"""Workflows in one answer of Temporal: the most it gives."""
RPC: Final = timedelta(seconds=5)

_PHASE = SearchAttributeKey.for_keyword(SA_PHASE)
_WAITING = (Phase.AWAITING_APPROVAL.value, Phase.AWAITING_HUMAN.value)
_ENDS: Final[Mapping[WorkflowExecutionStatus, tuple[Phase, str]]] = {
    WorkflowExecutionStatus.CANCELED: (Phase.CANCELLED, "cancelled"),
    WorkflowExecutionStatus.TERMINATED: (Phase.FAILED, "its workflow was terminated in Temporal"),
    WorkflowExecutionStatus.TIMED_OUT: (Phase.FAILED, "its workflow timed out"),
    WorkflowExecutionStatus.FAILED: (Phase.FAILED, "its workflow failed without recording why"),
    WorkflowExecutionStatus.COMPLETED: (Phase.FAILED, "its workflow ended without recording the result"),
}

log = structlog.stdlib.get_logger("gatehouse.keeper")


@dataclass(frozen=True)
class Finding:
    """A run that store and Temporal do not agree about."""

    run_id: str
    tenant: str
    what: str
    """`started`, `closed`, `question` (written again): what repairs it; `held`: by a switch, on purpose; `waits`: it
    cannot be repaired yet; `not_compared`."""
    detail: str
    left: bool
    """Something is left to do about it."""


class Sweeping:
    """The duty. `records` are the recording activities, called here as the plain functions they are."""

    def __init__(
        self, runs: Runs, approvals: Approvals, audit: AuditLog, records: RecordActivities, connect: Connect,
        starting: Starting, *,
        settled: timedelta = SETTLED, never_started: timedelta = NEVER_STARTED, lost: timedelta = LOST,
    ) -> None:  # fmt: skip
        self._runs = runs
        self._approvals = approvals
        self._audit = audit
        self._records = records
        self._connect = connect
        self._starting = starting
        self._settled = settled
        self._never_started = never_started
        self._lost = lost
        self._missing: dict[str, float] = {}
        """Runs without a workflow -> since when this process has found it missing, by a clock that nobody sets."""
        self._few = asyncio.Semaphore(AT_ONCE)

    async def look(self) -> None:
        """Compare every run that has not ended. Raises StoreUnavailable and what connecting raises."""
        await self.sweep()

    async def sweep(self, *, repair: bool = True) -> list[Finding]:
        """As `look`, telling what was found. `repair` False: nothing is changed."""
        client = await self._connect()
        running = await _running(client)
        found: list[Finding] = []
        after, doubted = "", set[str]()
        while batch := await self._open_runs(after):
            doubtful = await self._doubtful(batch, running)
            checked = await asyncio.gather(*(self._check(client, run_id, repair) for run_id in doubtful))
            found += [finding for findings in checked for finding in findings]
            doubted.update(doubtful)
            after = batch[-1]
        self._missing = {run_id: since for run_id, since in self._missing.items() if run_id in doubted}
        return found

    async def _doubtful(self, run_ids: Sequence[str], running: Mapping[str, str | None]) -> list[str]:
        """Those to be looked at one by one: not among the running ones, or waiting for people without a question."""
        waiting = {run_id for run_id in run_ids if running.get(run_id) in _WAITING}
        async with self._runs.db.read() as conn:
            silent = waiting - await self._approvals.asking(waiting, conn=conn)
        return [run_id for run_id in run_ids if run_id not in running or run_id in silent]

    async def _open_runs(self, after: str) -> list[str]:
        final = [phase.value for phase in Phase if phase.final]
        updated, now = sa.type_coerce(table.c.updated_at, sa.Text()), times.now()
        query = (
            sa.select(table.c.id)
            .where(table.c.id > after, table.c.phase.not_in(final),
                   sa.or_(updated <= times.to_text(now - self._settled), updated > times.to_text(now + times.AHEAD)))
            .order_by(table.c.id).limit(BATCH)
        )  # fmt: skip
        async with self._runs.db.read() as conn:
            return list((await conn.execute(query)).scalars())

    async def _check(self, client: Client, run_id: str, repair: bool) -> list[Finding]:
        async with self._few:
            try:
                return await self._compare(client, run_id, repair)
            except RPCError as error:
                log.warning("a run could not be compared", run=run_id, reason=error.message)
                return [Finding(run_id, "", "not_compared", error.message, left=True)]

    async def _compare(self, client: Client, run_id: str, repair: bool) -> list[Finding]:
        handle = client.get_workflow_handle(run_id)
        try:
            found = await handle.describe(rpc_timeout=RPC)
        except RPCError as error:
            if error.status is not RPCStatusCode.NOT_FOUND or "namespace" in error.message.lower():
                raise
            return await self._without_workflow(client, run_id, repair)
        self._missing.pop(run_id, None)
        run = await self._runs.get(None, run_id)
        if run is None or run.phase.final:
            return []
        if found.status is not None and found.status in _ENDS:
            return [await self._end(run, *_ENDS[found.status], repair)]
        if found.typed_search_attributes.get(_PHASE) in _WAITING and not await self._has_question(run):
            state = await handle.query(QUERY_STATE, result_type=RunState, rpc_timeout=RPC)
            return [await self._ask_again(run, question, repair) for question in state.waiting]
        return []

    async def _without_workflow(self, client: Client, run_id: str, repair: bool) -> list[Finding]:
        run = await self._runs.get(None, run_id)
        if run is None or run.phase.final:
            return []
        if run.phase is Phase.QUEUED:
            return [await self._start(client, run, repair)]
        now = time.monotonic()
        missing_s = now - self._missing.setdefault(run_id, now)
        log.error("a run has no workflow in this Temporal", run=run_id, missing_s=round(missing_s))
        why = "its workflow is not known to Temporal any more"
        if missing_s >= self._lost.total_seconds():
            return [await self._end(run, Phase.FAILED, why, repair)]
        return [Finding(run.id, run.tenant, "waits", f"{why}, or this is the wrong Temporal", left=True)]

    async def _start(self, client: Client, run: Run, repair: bool) -> Finding:
        """What was asked for starts, however late; only what cannot be started is given up."""
        if await self._starting.held(run):
            return Finding(run.id, run.tenant, "held", "a kill switch keeps it from starting", left=False)
        what = "it was asked for, but its workflow was never started"
        if not repair:
            return Finding(run.id, run.tenant, "started", what, left=True)
        why = await self._starting.start(client, run)
        if why is None:
            await self._record(run, "started", {})
            return Finding(run.id, run.tenant, "started", what, left=False)
        log.warning("a run cannot be started", run=run.id, reason=why)
        if run.created_at <= times.now() - self._never_started:
            return await self._end(run, Phase.FAILED, f"it could not be started: {why}", repair)
        return Finding(run.id, run.tenant, "waits", why, left=True)

    async def _ask_again(self, run: Run, question: ApprovalRequest, repair: bool) -> Finding:
        if repair:
            await self._records.open_approval(question)
            await self._record(run, "question", {"approval_id": question.id})
        return Finding(run.id, run.tenant, "question", f"{question.id} was missing in the list", left=not repair)

    async def _has_question(self, run: Run) -> bool:
        async with self._runs.db.read() as conn:
            return bool(await self._approvals.asking([run.id], conn=conn))

    async def _end(self, run: Run, phase: Phase, why: str, repair: bool) -> Finding:
        """Close the run as its workflow would have: its questions, its unfinished calls, its record."""
        if not repair:
            return Finding(run.id, run.tenant, "closed", why, left=True)
        ref = RunRef(run_id=run.id, tenant=run.tenant, automation=run.automation)
        result = RunResult(phase=phase, rung=run.rung, failure=why)
        await self._records.close_run(RunClosed(run=ref, result=result))
        await self._record(run, "closed", {"phase": phase.value, "before": run.phase.value, "failure": why})
        return Finding(run.id, run.tenant, "closed", why, left=False)

    async def _record(self, run: Run, what: str, more: JsonObject) -> None:
        body: JsonObject = {"run_id": run.id, "what": what, **more}
        event_id = f"sweep/{more.get('approval_id', run.id)}/{what}"
        # Not one of the run's own records: those are complete with its `run.closed`.
        await self._audit.append(AuditEvent(event_id, "sweep.repaired", run.tenant, None, "system:keeper", body))
        log.warning("repaired", run=run.id, what=what)


async def _running(client: Client) -> dict[str, str | None]:
    """Every run that Temporal lists as running, and its phase. The list may be some moments behind: who is on it is
    taken at its word until the next sweep, who is not is asked about. Raises TemporalUnavailable."""
    query = f"WorkflowType = '{WORKFLOW}' AND ExecutionStatus = 'Running'"
    try:
        listed = client.list_workflows(query, page_size=LISTED, rpc_timeout=RPC)
        return {found.id: found.typed_search_attributes.get(_PHASE) async for found in listed}
    except RPCError as error:
        raise TemporalUnavailable(f"Temporal does not list its workflows: {error.message}") from error


def sweeping(settings: Settings, db: Database, connect: Connect) -> Sweeping:
    """The duty over an installation, for the keeper and the command line."""
    audit, runs, approvals = AuditLog(db), Runs(db), Approvals(db)
    records = RecordActivities(audit, runs, approvals, Ledger(db, audit), {}, redact=redactor(settings).json)
    starting = Starting(
        Switches(db, audit), PublicKeys(settings.keys), lambda: read_definitions(settings.home),
        sandbox_wait_s=settings.sandbox_wait_s, api=f"http://{settings.api_host}:{settings.api_port}",
    )  # fmt: skip
    return Sweeping(runs, approvals, audit, records, connect, starting)
