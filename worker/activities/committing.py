"""The one activity of the queue of runs that Temporal starts, and the guard that lets in no other.

What records is called by the workflow as a local activity. As a remote one it would be somebody's who may write to
Temporal and puts records into the log that no run made.
"""

from collections.abc import Callable
from typing import Any

from temporalio import activity
from temporalio.exceptions import ApplicationError
from temporalio.worker import ActivityInboundInterceptor, ExecuteActivityInput, Interceptor

COMMIT = "run.commit"


class CommitActivities:
    """The port run.commit."""

    def all(self) -> list[Callable[..., object]]:
        """Every activity, for the worker's registration."""
        return [self.commit]

    @activity.defn(name=COMMIT)
    async def commit(self) -> None:
        """Do nothing: that it is started says that the run's history holds what was decided before."""


class LocalOnly(Interceptor):
    """Refuses what records (ApplicationError `not_local`, not retried) unless the workflow calls it locally."""

    def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:  # noqa: A002, D102
        return _LocalOnly(next)


class _LocalOnly(ActivityInboundInterceptor):
    async def execute_activity(self, input: ExecuteActivityInput) -> Any:  # noqa: A002
        info = activity.info()
        if not info.is_local and info.activity_type != COMMIT:
            raise ApplicationError(
                f"{info.activity_type} is for workflows to call locally", type="not_local", non_retryable=True
            )
        return await super().execute_activity(input)
