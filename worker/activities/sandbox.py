"""The activities near Docker: `workspace.open`, `tool.run`, `workspace.close`.

One call happens once: its key is claimed in the effect ledger at the last moment before the program starts, and its
result and audit record are stored in one transaction before the activity completes. Who comes second finds the result,
or a claim without one; then what may be repeated runs again, and for what may not, the tool's reconcile program says
whether it happened. Where there is none, or it does not say, people are asked.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import Final

from temporalio import activity
from temporalio.exceptions import ApplicationError

from policies.redaction import Redactor
from tools.contract import (
    CONTENT_LIMIT_CHARS,
    RECONCILE_S,
    JsonObject,
    Repeat,
    ToolResult,
    canonical_json,
)
from worker import telemetry
from worker.activities.brake import Brake
from worker.activities.means import Means, NotGiven, nothing
from worker.activities.outcomes import ACTOR, artifact_stored, call_outcome, capped, shown, told
from worker.activities.permission import Permission
from worker.activities.programs import Programs
from worker.activities.reconciling import Answer, answer, as_run, reconciled
from worker.sandbox.container import BoxLost, Job, Ran, Sandbox, UnknownImage
from worker.sandbox.engine import SandboxUnavailable
from worker.sandbox.process import this_process
from worker.sandbox.workspace import StagingRefused, WorkspaceMissing, Workspaces
from worker.store.audit import MAX_PAGE, AuditLog, RunAlreadyClosed
from worker.store.blobs import BlobDamaged, BlobMissing, Blobs
from worker.store.database import StoreUnavailable
from worker.store.events import HEAD_CHARS
from worker.store.ledger import ClaimLost, ClaimState, Ledger
from workflows.contracts import ArtifactRef, RunRef, ToolRun, WorkspaceOpened

HEARTBEAT_S: Final = 1.0
# A result in hand is worth waiting for a store that is away: without it the call would have to be run again, or asked.
_SETTLE_TRIES: Final = 6


class _Settled(Exception):  # noqa: N818
    """Another attempt's result is on record already."""

    def __init__(self, result: ToolResult) -> None:
        self.result = result


class _Held(Exception):  # noqa: N818
    """Another attempt has the key."""


class SandboxActivities:
    """Implements the remote ports of `workflows.ports`.

    What a program wrote loses its secrets before it is stored or handed on, and what goes into the audit log, and names
    of artifacts, personal data too, as `redacts` says.
    """

    def __init__(
        self,
        sandbox: Sandbox,
        ledger: Ledger,
        blobs: Blobs,
        workspaces: Workspaces,
        audit: AuditLog,
        *,
        means: Means | None = None,
        redacts: Redactor | None = None,
    ) -> None:
        """Without `means`, tools that need egress or secrets are refused."""
        self._sandbox = sandbox
        self._ledger = ledger
        self._blobs = blobs
        self._programs = Programs(blobs)
        self._workspaces = workspaces
        self._audit = audit
        self._means = means
        self._redacts = redacts or Redactor()
        self._permission = Permission(audit)
        self._brake = Brake(audit)

    def all(self) -> list[Callable[..., object]]:
        """What the sandbox worker registers."""
        return [self.open_workspace, self.run_tool, self.close_workspace]

    # ------------------------------------------------------------ workspaces

    @activity.defn(name="workspace.open")
    async def open_workspace(self, opened: WorkspaceOpened) -> None:
        """See the port."""
        async with _heartbeats(), _faults():
            await self._workspaces.open(opened.run.run_id, opened.files)
            # While the model thinks about its first step, the box for it is started.
            await self._sandbox.expect(await self._workspaces.mount(opened.run.run_id, writable=False))

    @activity.defn(name="workspace.close")
    async def close_workspace(self, run: RunRef) -> tuple[ArtifactRef, ...]:
        """See the port."""
        async with _heartbeats(), _faults():
            await self._sandbox.clear_run(run.run_id)
            try:
                kept = (await self._workspaces.collect(run.run_id)).artifacts
            except WorkspaceMissing:
                return await self._recorded_artifacts(run)
            # A run that is closed on record keeps what was recorded; its volume still has to go.
            with suppress(RunAlreadyClosed):
                await self._audit.append(*(artifact_stored(run, artifact) for artifact in shown(kept, self._redacts)))
            await self._workspaces.remove(run.run_id)
            return await self._recorded_artifacts(run)

    async def _recorded_artifacts(self, run: RunRef) -> tuple[ArtifactRef, ...]:
        records = await self._audit.page(tenant=run.tenant, run_id=run.run_id, type="artifact.stored", limit=MAX_PAGE)
        return tuple(ArtifactRef.model_validate(record.body) for record in records)

    # ------------------------------------------------------------ calls

    @activity.defn(name="tool.run")
    async def run_tool(self, run: ToolRun) -> ToolResult:
        """See the port."""
        telemetry.bind_call(run.call.id)
        async with _heartbeats(), _faults():
            await self._permission.refuse_unpermitted(run)
            attempt = _Attempt(self, run, activity.info().attempt)
            return await attempt.until_done_or_drained()

    async def execute(self, run: ToolRun, attempt: int, committed: Callable[[], None]) -> ToolResult:
        """Run the call unless an earlier attempt did; the result is stored and on the audit record when this returns.

        `committed` is called right before the program may start.
        """
        try:
            if attempt == 1 and run.generation == 1:
                # As far as Temporal knows nothing came before. Should it be wrong, the claim finds out.
                with suppress(_Held):
                    return await self._once(run, attempt, committed, None)
            return await self._once(run, attempt, committed, await self._before(run, attempt))
        except _Settled as settled:
            return settled.result
        except NotGiven as error:
            raise _refused(str(error)) from error
        except UnknownImage as error:
            raise _refused(f"no sandbox image is called {run.tool.image!r}: `gatehouse images build`") from error
        except (_Held, ClaimLost) as error:
            raise ApplicationError("another attempt of the call took it over", type="worker_lost") from error
        except BoxLost as error:
            if run.tool.reconcile_sha256 is None:
                _refuse_repeat(run)
            raise ApplicationError(f"the box was lost: {error}", type="worker_lost") from error

    async def _before(self, run: ToolRun, attempt: int) -> str | None:
        """See that no earlier attempt can still act; gives the owner whose claim may be taken over, None without one.

        Raises _Settled when the call is over, ApplicationError outcome_unknown when it may have taken effect and
        nobody can say.
        """
        known = await self._ledger.get(run.key)
        if known is not None and known.result is not None:
            raise _Settled(known.result)
        try:
            await self._sandbox.fence(run.key, known.owner.partition(" ")[2] if known else None)
        except SandboxUnavailable:
            if known is not None and known.generation >= run.generation:
                _refuse_repeat(run)
            raise
        if known is None:
            return None
        # It may have ended between the question and the fence.
        known = await self._ledger.get(run.key) or known
        if known.result is not None:
            raise _Settled(known.result)
        if run.tool.repeat is not Repeat.SAFE:
            happened = await self._reconcile(run, attempt, known.owner)
            # Only a human's order to repeat stands above not knowing.
            if happened is None and known.generation >= run.generation:
                _refuse_repeat(run)
        return known.owner

    async def _reconcile(self, run: ToolRun, attempt: int, lost: str) -> bool | None:
        """Whether the attempt of this owner took effect; None when nobody can say. Raises _Settled if it did."""
        if run.tool.reconcile_sha256 is None or await self._brake.stopped(run) is not None:
            return None
        ran = None
        try:
            job = await self._job(run, attempt, reconcile=run.tool.reconcile_sha256)
            async with self._means.given(run, job, f"{attempt}.look") if self._means else nothing(run, job) as given:
                ran = given.cleaned(await self._sandbox.run(given.job))
            found = answer(ran)
        except (
            NotGiven,
            UnknownImage,
            SandboxUnavailable,
            BoxLost,
            BlobMissing,
            BlobDamaged,
            WorkspaceMissing,
        ) as fault:
            found = Answer(None, problem=str(fault))
        found = replace(found, problem=self._redacts.text(found.problem))
        await self._audit.append(reconciled(run, attempt, found, actor=ACTOR))
        if ran is not None and found.happened:
            whole = as_run(ran, found.output)
            raise _Settled(await _even_if_cancelled(self._settle(run, whole, {"reconciled": True}, lost)))
        return found.happened

    async def _claim(self, run: ToolRun, attempt: int, owner: str, instead_of: str | None) -> None:
        """Take the key. Raises _Settled, or _Held when somebody else has it."""
        claim = await self._ledger.claim(
            run.key, generation=run.generation, tool=run.tool.name, attempt=attempt, owner=owner, instead_of=instead_of
        )
        if claim.result is not None:
            raise _Settled(claim.result)
        if claim.state is not ClaimState.NEW:
            raise _Held

    async def _job(self, run: ToolRun, attempt: int, *, reconcile: str | None = None) -> Job:
        """The call as the sandbox runs it, or the look at what became of it, which changes nothing.

        Raises BlobMissing, BlobDamaged, WorkspaceMissing, SandboxUnavailable.
        """
        stdin: JsonObject = {"arguments": run.call.arguments, "key": run.key, "call_id": run.call.id}
        limits, mount = run.tool.limits, None
        if reconcile is not None:
            limits = limits.model_copy(update={"timeout_s": RECONCILE_S})
        if run.tool.workspace != "none":
            writable = run.tool.workspace == "write" and reconcile is None
            mount = await self._workspaces.mount(run.run.run_id, writable=writable)
        return Job(
            run_id=run.run.run_id,
            key=run.key,
            program=await self._programs.read(reconcile or run.tool.program_sha256),
            stdin=canonical_json(stdin),
            limits=limits,
            image=run.tool.image,
            attempt=attempt,
            workspace=mount,
        )

    async def _once(
        self, run: ToolRun, attempt: int, committed: Callable[[], None], instead_of: str | None
    ) -> ToolResult:  # fmt: skip
        """Run the call and store what came of it, unless somebody else has its key by the time its box stands."""
        owner = ""

        async def commit(box: str) -> None:
            nonlocal owner
            # Once more, as starting a box may take long: after this the program runs.
            await self._brake.refuse_stopped(run)
            owner = f"{this_process()} {box}"
            await self._claim(run, attempt, owner, instead_of)
            committed()

        await self._brake.refuse_stopped(run)
        job = await self._job(run, attempt)
        async with self._means.given(run, job, str(attempt)) if self._means else nothing(run, job) as given:
            ran = given.cleaned(await self._sandbox.run(given.job, commit=commit))
            return await _even_if_cancelled(self._settle(run, ran, given.told(), owner))

    async def _settle(self, run: ToolRun, ran: Ran, more: JsonObject, owner: str) -> ToolResult:
        for attempt in range(_SETTLE_TRIES):
            try:
                result = await self._result(run, ran)
                head = self._redacts.text(result.content)[:HEAD_CHARS]
                event = call_outcome(run, ran, result, {**more, "content_head": head})
                return await self._ledger.settle(run.key, result, event, owner=owner)
            except StoreUnavailable:
                if attempt == _SETTLE_TRIES - 1:
                    raise
                await asyncio.sleep(0.2 * 2**attempt)
        raise AssertionError("unreachable")

    async def _result(self, run: ToolRun, ran: Ran) -> ToolResult:
        """What the agent reads: redacted, capped, the full text kept as a blob when it did not fit."""
        outcome, error, text = told(run.tool, ran)
        text = self._redacts.secrets(text)
        full: str | None = None
        if len(text) > CONTENT_LIMIT_CHARS:
            full = (await self._blobs.put(text.encode(errors="replace"))).sha256
            text = capped(text)
        return ToolResult(
            outcome=outcome, content=text, error=error, full_sha256=full,
            duration_ms=ran.duration_ms, exit_code=ran.exit_code,
        )  # fmt: skip


class _Attempt:
    """One activity attempt of a call: ends early when the worker is told to shut down."""

    def __init__(self, activities: SandboxActivities, run: ToolRun, number: int) -> None:
        self._activities = activities
        self._run = run
        self._number = number
        self._committed = False

    def _commit(self) -> None:
        self._committed = True

    async def until_done_or_drained(self) -> ToolResult:
        work = asyncio.create_task(self._activities.execute(self._run, self._number, self._commit))
        shutdown = asyncio.create_task(activity.wait_for_worker_shutdown())
        try:
            await asyncio.wait({work, shutdown}, return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                # What may not be repeated is given the worker's whole grace period: killed now, nobody could say what
                # it did, and a person would be asked.
                if self._committed and self._run.tool.repeat is not Repeat.SAFE:
                    return await work
                await _cancelled(work)
                if work.cancelled():
                    raise ApplicationError("the worker is shutting down", type="worker_draining")
            return await work
        finally:
            shutdown.cancel()
            await _cancelled(work)


async def _cancelled(task: "asyncio.Task[ToolResult]") -> None:
    """Cancel the task and wait for its clean-up: the container is gone afterwards."""
    if not task.done():
        task.cancel()
        with suppress(asyncio.CancelledError, Exception):
            await task


async def _even_if_cancelled(work: Coroutine[None, None, ToolResult]) -> ToolResult:
    """Finish recording what has happened, also when the run is cancelled meanwhile; then give the result."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        if task.cancelled():
            raise
        return await task


# ---------------------------------------------------------------- refusals and faults


def _refused(why: str) -> ApplicationError:
    return ApplicationError(why, type="refused", non_retryable=True)


def _refuse_repeat(run: ToolRun) -> None:
    """Raise outcome_unknown unless the tool may be run again."""
    if run.tool.repeat is not Repeat.SAFE:
        raise ApplicationError(
            f"{run.tool.name} may or may not have taken effect and may not be repeated",
            type="outcome_unknown",
            non_retryable=True,
        )


@asynccontextmanager
async def _faults() -> AsyncGenerator[None]:
    """Faults of our machinery as the error types the port names."""
    try:
        yield
    except SandboxUnavailable as error:
        raise ApplicationError(str(error), type="sandbox_unavailable", non_retryable=True) from error
    except (WorkspaceMissing, StagingRefused, BlobMissing, BlobDamaged) as error:
        raise _refused(str(error)) from error
    except RunAlreadyClosed as error:
        raise _refused(f"the run is closed: {error}") from error


@asynccontextmanager
async def _heartbeats() -> AsyncGenerator[None]:
    """Tell the server every second that this attempt lives; its answer is how a cancellation arrives."""

    async def beat() -> None:
        while True:
            activity.heartbeat()
            await asyncio.sleep(HEARTBEAT_S)

    task = asyncio.create_task(beat())
    try:
        yield
    finally:
        task.cancel()
