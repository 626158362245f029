"""AutomationWorkflow: one run of one automation, from its opening record to its closing one."""

import asyncio
import hashlib
from datetime import timedelta

from temporalio import workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import (
    ActivityError,
    ApplicationError,
    FailureError,
    TimeoutType,
    is_cancelled_exception,
)
from temporalio.exceptions import TimeoutError as ActivityTimeoutError

from policies.switches import Hold
from tools.contract import canonical_json
from workflows import contracts, ports
from workflows.concurrency import through_cancellation
from workflows.contracts import (
    QUEUE_SANDBOX,
    AnswerAccepted,
    ApprovalAction,
    ApprovalAnswer,
    ArtifactRef,
    Phase,
    RunClosed,
    RunOpened,
    RunRequest,
    RunResult,
    RunState,
    WorkspaceOpened,
)
from workflows.faults import REFUSED, SANDBOX_UNAVAILABLE
from workflows.ladder import descend
from workflows.live import LiveRun
from workflows.recording import record

RUN_FAILED = "run_failed"
"""ApplicationError type with which the workflow of a failed run ends; its detail is the RunResult."""

_WORKSPACE_RETRY = RetryPolicy(
    initial_interval=timedelta(seconds=1),
    maximum_interval=timedelta(seconds=10),
    maximum_attempts=5,
    non_retryable_error_types=[SANDBOX_UNAVAILABLE, REFUSED],
)

_CLOSE_WAIT = timedelta(minutes=10)
"""What a run leaves is worth waiting for."""

# A fault in workflow code must end the run, not wedge its workflow task in endless retries. Not `Exception`: that would
# also end every run that meets a nondeterminism error after a bad deployment, where waiting for a fix is right.
_FATAL = (ArithmeticError, AssertionError, AttributeError, LookupError, OSError, RuntimeError, TypeError, ValueError)


@workflow.defn(name=contracts.WORKFLOW, failure_exception_types=_FATAL)
class AutomationWorkflow:
    """One run. Its id is the run's id; continued parts carry on between two turns."""

    @workflow.init
    def __init__(self, request: RunRequest) -> None:
        self._request = request
        self._run = LiveRun(request)

    @workflow.run
    async def run(self, request: RunRequest) -> RunResult:
        """Work until some rung ends the run. The workflow ends completed (succeeded), failed or cancelled."""
        if request.carried is None:
            await self._open()
        cancelled = False
        try:
            self._run.enter(Phase.WORKING)
            result = await descend(self._run, sandbox_problem=await self._workspace_problem())
        except (FailureError, asyncio.CancelledError) as fault:
            cancelled = is_cancelled_exception(fault)
            result = self._stopped(fault, cancelled=cancelled)
        except Exception as fault:  # noqa: BLE001  (whatever it is, it must end in a recorded failure)
            workflow.logger.error("run failed on a fault of ours", exc_info=fault)
            result = self._stopped(fault, cancelled=False)
        result = await through_cancellation(self._close(result))
        await through_cancellation(workflow.wait_condition(workflow.all_handlers_finished))
        if cancelled:
            raise asyncio.CancelledError
        if result.phase is Phase.FAILED:
            raise ApplicationError(result.failure or "failed", result, type=RUN_FAILED, non_retryable=True)
        return result

    @workflow.update(name=contracts.UPDATE_ANSWER, description="A signed answer to one of the run's questions")
    async def answer(self, answer: ApprovalAnswer) -> AnswerAccepted:
        """Take an answer the validator let through."""
        return await self._run.desk.accept(answer)

    @answer.validator
    def _check_answer(self, answer: ApprovalAnswer) -> None:
        self._run.desk.check(answer)

    @workflow.update(
        name=contracts.UPDATE_ACT, description="Something else said, signed, to one of the run's questions"
    )
    async def act(self, action: ApprovalAction) -> AnswerAccepted:
        """Take an action the validator let through."""
        return await self._run.desk.act(action)

    @act.validator
    def _check_action(self, action: ApprovalAction) -> None:
        self._run.desk.check_action(action)

    @workflow.signal(name=contracts.SIGNAL_FREEZE, description="A kill switch holds the run")
    async def freeze(self, hold: Hold) -> None:
        """Begin nothing new, stop the questions' clocks, acknowledge. Repeating it repeats the acknowledgement."""
        await self._heard(hold.model_copy(update={"held": True}))

    @workflow.signal(name=contracts.SIGNAL_THAW, description="A switch does not hold the run any more")
    async def thaw(self, hold: Hold) -> None:
        """Go on, unless another switch holds the run."""
        await self._heard(hold.model_copy(update={"held": False}))

    async def _heard(self, hold: Hold) -> None:
        try:
            await self._run.hold(hold)
        except FailureError as fault:
            # Whoever sent it sends it again until it is acknowledged; a run must not fail because of it.
            workflow.logger.warning("a switch could not be acknowledged: %s", _cause(fault))

    @workflow.query(name=contracts.QUERY_STATE, description="Phase, rung, calls and pending questions")
    def state(self) -> RunState:
        """Enough to draw a live page."""
        return self._run.state()

    async def _open(self) -> None:
        """Record the start. Raises what `run.open` raises: a run that is not recorded, or not ours, does nothing."""
        request = self._request
        opened = RunOpened(
            run=self._run.ref,
            principal=request.principal,
            automation_version=request.automation.definition.version,
            automation_digest=request.automation.digest,
            inputs_digest=hashlib.sha256(canonical_json(request.inputs)).hexdigest(),
            files=request.files,
            answer_keys=request.answer_keys,
        )
        await record(ports.open_run, opened, f"open {request.run_id}")

    async def _workspace_problem(self) -> str | None:
        """Prepare the workspace; why there is none, for people. A continued part finds its own still there."""
        if self._request.carried is not None:
            return None
        try:
            await workflow.execute_activity(
                ports.open_workspace,
                WorkspaceOpened(run=self._run.ref, files=self._request.files),
                task_queue=QUEUE_SANDBOX,
                schedule_to_start_timeout=timedelta(seconds=self._request.sandbox_wait_s),
                start_to_close_timeout=timedelta(minutes=5),
                heartbeat_timeout=timedelta(seconds=30),
                retry_policy=_WORKSPACE_RETRY,
                summary="prepare the workspace",
            )
        except ActivityError as error:
            if is_cancelled_exception(error):
                raise
            return f"no workspace: {_cause(error)}"
        return None

    async def _close(self, result: RunResult) -> RunResult:
        """Keep the artifacts, record the end, show it. Raises ActivityError when even that cannot be recorded."""
        artifacts, problem = await self._close_workspace()
        degraded = (*result.degraded, problem) if problem else result.degraded
        result = result.model_copy(update={"artifacts": artifacts, "degraded": degraded})
        await record(ports.close_run, RunClosed(run=self._run.ref, result=result), f"close: {result.phase.value}")
        self._run.enter(result.phase)
        return result

    async def _close_workspace(self) -> tuple[tuple[ArtifactRef, ...], str | None]:
        try:
            artifacts = await workflow.execute_activity(
                ports.close_workspace,
                self._run.ref,
                task_queue=QUEUE_SANDBOX,
                schedule_to_start_timeout=_CLOSE_WAIT,
                start_to_close_timeout=timedelta(minutes=5),
                heartbeat_timeout=timedelta(seconds=30),
                retry_policy=_WORKSPACE_RETRY,
                summary="keep artifacts, remove the workspace",
            )
        except ActivityError as error:
            return (), f"artifacts were not kept: {_cause(error)}"
        return artifacts, None

    def _stopped(self, fault: BaseException, *, cancelled: bool) -> RunResult:
        if cancelled:
            return self._run.result(Phase.CANCELLED, failure="cancelled")
        return self._run.result(Phase.FAILED, failure=f"a fault of the machinery: {_cause(fault)}")


def _cause(fault: BaseException) -> str:
    """The innermost message that is ours or Temporal's, for people."""
    inner = fault.cause if isinstance(fault, ActivityError) and fault.cause is not None else fault
    if isinstance(inner, ActivityTimeoutError) and inner.type is TimeoutType.SCHEDULE_TO_START:
        return "no worker took it in time"
    if isinstance(inner, ApplicationError):
        return f"{inner.type}: {inner.message}" if inner.type else inner.message
    return f"{type(inner).__name__}: {inner}"
