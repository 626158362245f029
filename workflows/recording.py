"""How a workflow records: local activities on the runs queue, tried again for minutes, then failing closed.

A record is never skipped: when the store stays away longer than `GIVE_UP_AFTER`, the activity error goes up and the
run fails rather than doing something nobody could prove later.

A local activity takes effect before the workflow task that called for it is complete. Should that task be lost with its
worker, it is done once more, and may meet other answers, timers and cancellations than before: what it decides then may
differ from what was recorded. Hence `committed` between deciding and recording.
"""

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import TypeVar

from temporalio import workflow
from temporalio.common import RetryPolicy

from workflows import ports
from workflows.concurrency import settled

Payload = TypeVar("Payload")
Answer = TypeVar("Answer")

ATTEMPT = timedelta(seconds=15)
GIVE_UP_AFTER = timedelta(minutes=3)
COMMIT = timedelta(seconds=5)
"""It does nothing: when it was not heard of by then, its worker is gone, and another does it."""

_RETRY = RetryPolicy(
    initial_interval=timedelta(milliseconds=200), backoff_coefficient=2, maximum_interval=timedelta(seconds=10)
)


async def record(port: Callable[[Payload], Awaitable[Answer]], payload: Payload, summary: str) -> Answer:
    """Run one recording port to its end, also while the run is being cancelled. Raises ActivityError on a fault."""
    return await settled(
        workflow.execute_local_activity(
            port,
            payload,
            start_to_close_timeout=ATTEMPT,
            schedule_to_close_timeout=GIVE_UP_AFTER,
            # Longer waits become timers, so that the workflow task is not held while a store is away.
            local_retry_threshold=timedelta(seconds=5),
            retry_policy=_RETRY,
            summary=summary,
        )
    )


async def committed(what: str) -> None:
    """Return once everything decided so far is in the run's history for good, whichever worker is lost from here on.

    Not a timer: the server fires the shortest only after a second. The activity is started by the worker itself as the
    server takes the task's results over.
    """
    await settled(
        workflow.execute_activity(
            ports.commit,
            start_to_close_timeout=COMMIT,
            retry_policy=RetryPolicy(initial_interval=timedelta(milliseconds=100), maximum_interval=COMMIT),
            summary=f"commit {what}",
        )
    )
