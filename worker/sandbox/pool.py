"""Boxes started ahead, each for one job: a call then pays for its program, not for its container.

Runs on the sandbox worker. A box is handed out once and never comes back. Boxes are told apart by everything that
decides how they are created, the workspace included, so a waiting one is exactly the box that a cold start would give.
They are started one after the other, after a call was answered; when none waits, the caller starts its own.
"""

import asyncio
import logging
import os
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Protocol

from worker.sandbox.engine import NotFound, SandboxUnavailable
from worker.sandbox.profile import Box
from worker.sandbox.standing import Standing

_log: Final = logging.getLogger(__name__)
_LOOK_S: Final = 5.0
_STEP_S: Final = 0.02
_BACK_OFF_S: Final = 5.0
_BACK_OFF_MOST_S: Final = 60.0


@dataclass(frozen=True)
class PoolSettings:
    """How many boxes wait, and how long. An idle box holds about 20 MB of memory and no processor."""

    size: int = 2
    """Waiting boxes of each kind without a workspace. Of a run's own kinds one waits each."""
    total: int = 8
    """Waiting boxes of all kinds; 0 switches the pool off. The longest unused kind gives way."""
    max_age_s: float = 600.0
    """A box that waited this long is replaced."""
    idle_s: float = 300.0
    """A kind that nobody used for this long is not kept ready any more."""
    refillers: int = max(1, (os.cpu_count() or 2) - 1)
    """Boxes started at the same time: one processor stays with the calls."""


@dataclass
class PoolStats:
    """Counted since the start of this process."""

    hits: int = 0
    """Calls that found a box waiting."""
    dry: int = 0
    """Calls that had to start their own."""
    started: int = 0
    failed: int = 0
    expired: int = 0
    """Boxes that went unused: too old, not wanted any more, or dead."""
    refill_ms: float = 0.0
    """Time spent on starting, all boxes together."""

    @property
    def hit_rate(self) -> float:
        """Between 0 and 1; 0 before the first call."""
        return self.hits / max(1, self.hits + self.dry)


class Meter(Protocol):
    """Where numbers go that somebody watches (`worker.metrics`)."""

    def count(self, name: str, **labels: str) -> None: ...  # noqa: D102
    def level(self, name: str, value: float) -> None: ...  # noqa: D102
    def took(self, name: str, seconds: float) -> None: ...  # noqa: D102


class Unwatched:
    """Nobody watches."""

    def count(self, name: str, **labels: str) -> None:
        """Let it go."""

    def level(self, name: str, value: float) -> None:
        """Let it go."""

    def took(self, name: str, seconds: float) -> None:
        """Let it go."""


class _Kind:
    """The waiting boxes of one kind."""

    def __init__(self, target: int) -> None:
        self.target = target
        self.waiting: list[Standing] = []
        self.starting = 0
        self.used = time.monotonic()


class Pool:
    """All waiting boxes of this process. `make` gives an unstarted Standing for a kind."""

    def __init__(
        self,
        make: Callable[[Box], Standing],
        settings: PoolSettings,
        gone: Callable[[Awaitable[object]], "asyncio.Future[object]"],
        meter: Meter | None = None,
    ) -> None:
        """`gone` sees to removals that nobody waits for."""
        self.stats = PoolStats()
        self.settings = settings
        self._make = make
        self._gone = gone
        self._meter = meter or Unwatched()
        self._kinds: dict[Box, _Kind] = {}
        self._work = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None
        self._not_before = 0.0
        self._back_off_s = _BACK_OFF_S
        self._closed = False

    def take(self, kind: Box) -> Standing | None:
        """A waiting box of this kind, the caller's from now on; None when there is none."""
        known = self._kinds.get(kind)
        while known and known.waiting:
            standing = known.waiting.pop(0)
            if standing.alive and not self._too_old(standing):
                self.stats.hits += 1
                self._meter.count("gatehouse_pool_hits")
                self._told()
                return standing
            self._discard(standing)
        self.stats.dry += 1
        self._meter.count("gatehouse_pool_dry")
        return None

    def want(self, kind: Box) -> None:
        """Keep boxes of this kind ready. Returns at once; they are started in the background."""
        if self._closed or self.settings.total <= 0:
            return
        target = 1 if kind.workspace else self.settings.size
        self._kinds.setdefault(kind, _Kind(target)).used = time.monotonic()
        if self._keeper is None or self._keeper.done():
            self._keeper = asyncio.create_task(self._keep())
        self._work.set()

    async def drop(self, unwanted: Callable[[Box], bool] = lambda _: True) -> None:
        """Forget these kinds, and see their waiting boxes gone, also the ones whose start is under way."""
        dropped = [self._kinds.pop(kind) for kind in list(self._kinds) if unwanted(kind)]
        self._told()
        await asyncio.gather(*(standing.end() for state in dropped for standing in state.waiting))
        while not self._closed and any(state.starting for state in dropped):
            self._work.clear()
            await self._work.wait()

    async def close(self) -> None:
        """Start nothing more, and see all waiting boxes gone."""
        self._closed = True
        if self._keeper is not None:
            self._keeper.cancel()
            with suppress(asyncio.CancelledError):
                await self._keeper
        await self.drop()

    @property
    def waiting(self) -> int:
        """How many boxes wait now."""
        return sum(len(kind.waiting) for kind in self._kinds.values())

    async def full(self, within_s: float) -> bool:
        """Wait until every kind has what it should; False when that takes longer. For measurements and tests."""
        deadline = time.monotonic() + within_s
        while self._next() is not None or any(kind.starting for kind in self._kinds.values()):
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(_STEP_S)
        return True

    async def _keep(self) -> None:
        """Start what is missing and end what is too much, for ever."""
        async with asyncio.TaskGroup() as group:
            busy = asyncio.Semaphore(self.settings.refillers)
            while not self._closed:
                self._work.clear()
                self._tidy()
                await busy.acquire()
                kind = self._next() if time.monotonic() >= self._not_before else None
                if kind is None:
                    busy.release()
                    with suppress(TimeoutError):
                        async with asyncio.timeout(_LOOK_S):
                            await self._work.wait()
                    continue
                state = self._kinds[kind]
                state.starting += 1
                group.create_task(self._start(kind, state, busy))

    def _next(self) -> Box | None:
        """The most recently used kind that lacks a box, if there is room for one more."""
        if self.waiting + sum(kind.starting for kind in self._kinds.values()) >= self.settings.total:
            return None
        lacking = [k for k, kind in self._kinds.items() if len(kind.waiting) + kind.starting < kind.target]
        return max(lacking, key=lambda k: self._kinds[k].used, default=None)

    async def _start(self, kind: Box, state: _Kind, busy: asyncio.Semaphore) -> None:
        standing = self._make(kind)
        started = time.monotonic()
        kept = False
        try:
            await standing.start()
            self.stats.started += 1
            took = time.monotonic() - started
            self.stats.refill_ms += took * 1000
            self._meter.took("gatehouse_pool_refill_seconds", took)
            self._back_off_s = _BACK_OFF_S
            # Its run may have been closed meanwhile.
            kept = self._kinds.get(kind) is state and not self._closed
            if kept:
                state.waiting.append(standing)
                self._told()
        except (SandboxUnavailable, NotFound) as error:
            self.stats.failed += 1
            self._meter.count("gatehouse_pool_failed")
            self._not_before = time.monotonic() + self._back_off_s
            self._back_off_s = min(self._back_off_s * 2, _BACK_OFF_MOST_S)
            _log.warning("no box for the pool: %s", error)
        finally:
            busy.release()
            if not kept:
                await asyncio.wait({self._gone(standing.end())})
            state.starting -= 1
            self._work.set()

    def _tidy(self) -> None:
        """End boxes that are dead or too old, forget kinds that nobody uses, make room for the ones in use."""
        now = time.monotonic()
        for kind, state in list(self._kinds.items()):
            dead = [s for s in state.waiting if not s.alive]
            for standing in [*dead, *(s for s in state.waiting if s.alive and self._too_old(s))]:
                state.waiting.remove(standing)
                self._discard(standing)
            # A run's box that was ended by others: another worker closes the run, and a new one would be in its way.
            if (dead and kind.workspace) or now - state.used > self.settings.idle_s:
                self._forget(kind)
        lacking = any(len(s.waiting) + s.starting < s.target for s in self._kinds.values())
        if lacking and self.waiting >= self.settings.total:
            holding = [kind for kind, state in self._kinds.items() if state.waiting]
            oldest = min(holding, key=lambda k: self._kinds[k].used)
            newest = max(self._kinds, key=lambda k: self._kinds[k].used)
            if oldest is not newest:
                self._forget(oldest)

    def _forget(self, kind: Box) -> None:
        for standing in self._kinds.pop(kind).waiting:
            self._discard(standing)

    def _discard(self, standing: Standing) -> None:
        self.stats.expired += 1
        self._meter.count("gatehouse_pool_expired")
        self._told()
        self._gone(standing.end())

    def _told(self) -> None:
        self._meter.level("gatehouse_pool_boxes", self.waiting)

    def _too_old(self, standing: Standing) -> bool:
        return time.monotonic() - standing.born > self.settings.max_age_s
