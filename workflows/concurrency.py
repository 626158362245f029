"""Waiting in workflow code that must survive cancellation. Deterministic; runs only inside a workflow.

Temporal delivers a cancellation once, to whatever is awaited at that moment. Work that must be finished all the same
(a record of what happened) and tasks that run side by side need to be waited for on purpose.
"""

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

from temporalio import workflow

T = TypeVar("T")


async def settled(work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`, which is always run to its end: a cancellation that arrives meanwhile is delivered after.

    The exception of work that fails meanwhile gives way to the cancellation.
    """
    task = asyncio.create_task(work)
    if await _finished(task):
        raise asyncio.CancelledError
    return task.result()


async def through_cancellation(work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`; a cancellation that arrives meanwhile comes too late and is dropped."""
    task = asyncio.create_task(work)
    await _finished(task)
    return task.result()


async def together(works: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    """The results of all works, run side by side, in their order.

    When one raises, or the run is cancelled, the others are cancelled and waited for (each leaves its own outcome)
    before the exception goes on. `asyncio.TaskGroup` would do it in set order, which a replay does not repeat.
    """
    tasks = [asyncio.create_task(work) for work in works]
    if not tasks:
        return []
    try:
        await workflow.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
    finally:
        for task in tasks:
            task.cancel()
        for task in tasks:
            await _finished(task)
    for task in tasks:
        if not task.cancelled() and (fault := task.exception()) is not None:
            raise fault
    return [task.result() for task in tasks]


async def _finished(task: asyncio.Task[T]) -> bool:
    """Wait for the task whatever happens to the waiter; True when the waiter was cancelled meanwhile."""
    interrupted = False
    while not task.done():
        try:
            await workflow.wait([task])
        except asyncio.CancelledError:
            interrupted = True
    if interrupted and not task.cancelled():
        task.exception()  # looked at, so that asyncio does not report it as lost
    return interrupted
