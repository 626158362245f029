"""Doors before the activities of single runs: a test shuts one to see what happens while the activity is on its way."""

import asyncio
from typing import Any

from temporalio import activity
from temporalio.worker import ActivityInboundInterceptor, ExecuteActivityInput, Interceptor


class Doors(Interceptor):
    """All open at first."""

    def __init__(self) -> None:
        self._shut: dict[tuple[str, str], asyncio.Event] = {}
        self._before: set[tuple[str, str]] = set()

    def shut(self, run_id: str, port: str) -> None:
        """From now on the run's activities of this type wait before they do anything."""
        self._shut[run_id, port] = asyncio.Event()

    def open(self, run_id: str, port: str) -> None:
        """Let those that wait, and all later ones, go on."""
        self._shut.pop((run_id, port)).set()

    async def waiting(self, run_id: str, port: str) -> bool:
        """Whether an activity has come to the door since it was shut."""
        return (run_id, port) in self._before

    async def through(self) -> None:
        """Called before each activity."""
        info = activity.info()
        at = info.workflow_id or "", info.activity_type
        if door := self._shut.get(at):
            self._before.add(at)
            await door.wait()

    def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:  # noqa: A002
        return _Behind(next, self)


class _Behind(ActivityInboundInterceptor):
    def __init__(self, next: ActivityInboundInterceptor, doors: Doors) -> None:  # noqa: A002
        super().__init__(next)
        self._doors = doors

    async def execute_activity(self, input: ExecuteActivityInput) -> Any:  # noqa: A002
        await self._doors.through()
        return await super().execute_activity(input)
