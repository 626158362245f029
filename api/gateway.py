"""The API's way to Temporal, and the only one: start, cancel, answer, health. Nothing else here imports temporalio.

Connects on first use and again after a failure, so the API starts, serves reads and reports not ready while Temporal
is away.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

from temporalio.api.enums.v1 import TaskQueueType
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import DescribeTaskQueueRequest
from temporalio.client import (
    Client,
    RPCTimeoutOrCancelledError,
    WorkflowHandle,
    WorkflowUpdateFailedError,
)
from temporalio.exceptions import ApplicationError
from temporalio.service import RPCError, RPCStatusCode

from worker import temporal
from worker.settings import Settings
from worker.starting import START_S, start_workflow
from workflows.contracts import (
    QUEUE_MODELS,
    QUEUE_RUNS,
    QUEUE_SANDBOX,
    UPDATE_ACT,
    UPDATE_ANSWER,
    AnswerAccepted,
    AnswerRefused,
    ApprovalAction,
    ApprovalAnswer,
    RunRequest,
)

CONNECT_S = 3.0
ANSWER_S = 15.0
"""How long an answer may wait for a worker to take it."""

POLLED_WITHIN = timedelta(seconds=90)
"""A worker asks again after a minute at the latest; who did not is gone."""
_QUEUES = {
    QUEUE_RUNS: TaskQueueType.TASK_QUEUE_TYPE_WORKFLOW,
    QUEUE_MODELS: TaskQueueType.TASK_QUEUE_TYPE_ACTIVITY,
    QUEUE_SANDBOX: TaskQueueType.TASK_QUEUE_TYPE_ACTIVITY,
}


class Unreachable(Exception):  # noqa: N818  (a state of Temporal, not of the request)
    """Temporal did not do what was asked, and says why. `sent`: the request may have arrived all the same."""

    def __init__(self, reason: str, *, sent: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.sent = sent


class NoWorker(Exception):  # noqa: N818
    """Temporal took the answer, but no worker of the runs queue handled it in time."""


class NotRunning(Exception):  # noqa: N818
    """There is no open workflow of this id: it never started, or it is over."""


class AnswerRejected(Exception):  # noqa: N818
    """The workflow refused the answer; nothing was recorded in its history."""

    def __init__(self, kind: AnswerRefused, detail: str) -> None:
        super().__init__(detail)
        self.kind = kind
        self.detail = detail


class Gateway:
    """One per process; safe for concurrent use."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._client: Client | None = None
        self._connecting = asyncio.Lock()

    async def client(self) -> Client:
        """The connection, made now if there is none. Raises Unreachable within CONNECT_S."""
        if self._client is not None:
            return self._client
        async with self._connecting:
            if self._client is None:
                try:
                    async with asyncio.timeout(CONNECT_S):
                        self._client = await temporal.connect(self._settings)
                except TimeoutError:
                    raise Unreachable(f"no answer from {self._settings.temporal_address} in {CONNECT_S:g} s") from None
                except temporal.TemporalUnavailable as error:
                    raise Unreachable(str(error)) from error
            return self._client

    async def check(self) -> None:
        """Ask the server how it is, with a short deadline. Raises Unreachable."""
        client = await self.client()
        async with _faults(self._settings):
            if not await client.service_client.check_health(timeout=timedelta(seconds=2)):
                raise Unreachable(f"the server at {self._settings.temporal_address} reports that it is not serving")

    async def deserted(self) -> list[str]:
        """The queues that no worker has asked for work lately. Raises Unreachable."""
        client = await self.client()
        async with _faults(self._settings):
            found = await asyncio.gather(*(self._polled(client, queue, kind) for queue, kind in _QUEUES.items()))
        return [queue for queue, polled in zip(_QUEUES, found, strict=True) if not polled]

    async def _polled(self, client: Client, queue: str, kind: TaskQueueType.ValueType) -> bool:
        asked = DescribeTaskQueueRequest(
            namespace=self._settings.temporal_namespace, task_queue=TaskQueue(name=queue), task_queue_type=kind
        )
        found = await client.workflow_service.describe_task_queue(asked, timeout=timedelta(seconds=2))
        since = datetime.now(UTC) - POLLED_WITHIN
        return any(poller.last_access_time.ToDatetime(UTC) > since for poller in found.pollers)

    async def start(self, request: RunRequest, details: str) -> None:
        """Start the run's workflow under its id. Starting it again does nothing. Raises Unreachable."""
        client = await self.client()
        async with _faults(self._settings, sent=True):
            await start_workflow(client, request, details)

    async def exists(self, run_id: str) -> bool:
        """Whether a workflow of this id was ever started (within retention). Raises Unreachable."""
        try:
            async with _faults(self._settings, within_s=2):
                await (await self._handle(run_id)).describe(rpc_timeout=timedelta(seconds=2))
        except NotRunning:
            return False
        return True

    async def cancel(self, run_id: str) -> None:
        """Ask the run to stop; it cleans up and closes by itself. Raises NotRunning, Unreachable."""
        async with _faults(self._settings, sent=True):
            await (await self._handle(run_id)).cancel(rpc_timeout=timedelta(seconds=START_S))

    async def answer(self, answer: ApprovalAnswer, update_id: str) -> AnswerAccepted:
        """Hand a signed answer to the run. The same `update_id` again returns the first result.

        Raises AnswerRejected, NotRunning, NoWorker (within ANSWER_S), Unreachable.
        """
        return await self._update(answer, UPDATE_ANSWER, update_id)

    async def act(self, action: ApprovalAction, update_id: str) -> AnswerAccepted:
        """Hand something else that was said to the run; as `answer`."""
        return await self._update(action, UPDATE_ACT, update_id)

    async def _update(self, said: ApprovalAnswer | ApprovalAction, name: str, update_id: str) -> AnswerAccepted:
        handle = await self._handle(said.run_id)
        temporal.belongs(await self.client(), said.run_id, said.principal.tenant)
        try:
            async with _faults(self._settings, sent=True, within_s=ANSWER_S + 1), asyncio.timeout(ANSWER_S):
                return await handle.execute_update(  # pyright: ignore[reportUnknownMemberType]  (an untyped overload)
                    name,
                    said,
                    id=update_id,
                    result_type=AnswerAccepted,
                    rpc_timeout=timedelta(seconds=ANSWER_S),
                )
        except WorkflowUpdateFailedError as error:
            raise _rejected(error) from error
        except (TimeoutError, RPCTimeoutOrCancelledError) as error:
            # The client reports one and the same error for "server away" and "no worker": ask which it was.
            await self.check()
            raise NoWorker from error

    async def _handle(self, run_id: str) -> "WorkflowHandle[object, object]":
        return (await self.client()).get_workflow_handle(run_id)


@asynccontextmanager
async def _faults(settings: Settings, *, sent: bool = False, within_s: float = START_S) -> AsyncGenerator[None, None]:
    """Turn RPC failures into Unreachable (or NotRunning) with the server's reason, and bound the call as a whole: an
    RPC's own timeout is for one attempt, and the client repeats attempts for ten seconds."""
    bound = asyncio.timeout(within_s)
    try:
        async with bound:
            yield
    except TimeoutError as error:
        if not bound.expired():
            raise
        raise Unreachable(f"{settings.temporal_address}: no answer in {within_s:g} s", sent=sent) from error
    except RPCError as error:
        if error.status == RPCStatusCode.NOT_FOUND and "namespace" not in error.message.lower():
            raise NotRunning(error.message) from error
        # UNAVAILABLE may come after the request was sent: the client retries, and loses the connection on the way.
        raise Unreachable(
            f"{settings.temporal_address}: {error.status.name.lower()}: {error.message}", sent=sent
        ) from error


def _rejected(error: WorkflowUpdateFailedError) -> AnswerRejected:
    cause = error.cause
    if isinstance(cause, ApplicationError) and cause.type in set(AnswerRefused):
        return AnswerRejected(AnswerRefused(cause.type), cause.message)
    # The workflow ended while the answer was on its way, or raised something it never should.
    return AnswerRejected(AnswerRefused.CANCELLED, f"the run did not take the answer: {cause}")
