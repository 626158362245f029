"""Kills the containers of runs that a switch stops. Looks at the store itself, so it needs no Temporal for it.

What it reports is what it saw: of a stop that its workflow had acknowledged before the containers were listed, how
many were left. Together with the check right before a program starts this makes "nothing is left" a fact: after the
switch was set nothing starts, and whatever had started is on the list.
"""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import structlog

from worker.sandbox import engine as names
from worker.sandbox.engine import Engine, NotFound, SandboxUnavailable
from worker.store.database import StoreUnavailable
from worker.store.stops import Stop, Stops

PERIOD_S: Final = 0.5
REPORT_S: Final = 5.0
"""How often an engine without work is reported as watched."""

log = structlog.stdlib.get_logger("gatehouse.sandbox")


class Stopper:
    """One engine's watcher. `owner`: the installation whose containers it may touch."""

    def __init__(
        self, engine: Engine, owner: str, stops: Stops, clear: Callable[[str], Awaitable[object]] | None = None
    ) -> None:
        """`clear`: has nothing more started ahead for a run, and removes what waits for it."""
        self._engine = engine
        self._owner = owner
        self._stops = stops
        self._id: str | None = None
        self._reported = 0.0
        self._clear = clear
        self._cleared: set[tuple[str, str]] = set()

    async def run(self) -> None:
        """Look every half second until cancelled; store and engine are waited for."""
        while True:
            try:
                await self.look()
            except (StoreUnavailable, SandboxUnavailable) as fault:
                log.warning("stops are not looked for", reason=str(fault))
                await asyncio.sleep(PERIOD_S)
            except Exception:
                # Whatever went wrong, without this loop a kill switch would not reach what runs.
                log.exception("stops are not looked for")
            await asyncio.sleep(PERIOD_S)

    async def look(self) -> int:
        """Once: kill what must not run, and report. How many containers were killed."""
        engine = await self._engine_id()
        now = asyncio.get_running_loop().time()
        if now - self._reported >= REPORT_S:
            await self._stops.engine_seen(engine)
            self._reported = now
        stops = await self._stops.unconfirmed()
        if not stops:
            return 0
        await self._clear_new(stops)
        found = await self.boxes(stops)
        gone = dict(zip(found, await asyncio.gather(*map(self._kill, found)), strict=True))
        left: defaultdict[str, int] = defaultdict(int)
        for box, run_id in found.items():
            left[run_id] += not gone[box]
        # Only what was acknowledged before we looked: afterwards nothing of such a run can begin any more.
        seen = {(s.switch_id, s.run_id): left[s.run_id] for s in stops if s.acknowledged_at is not None}
        news = {key: count for key, count in seen.items() if _known(stops, key).get(engine) != count}
        if news:
            await self._stops.boxes_left(engine, news)
        killed = sum(gone.values())
        if killed:
            log.warning("containers killed by a switch", killed=killed, left=len(gone) - killed)
        return killed

    async def _clear_new(self, stops: Sequence[Stop]) -> None:
        """Once a stop; what that leaves, `look` finds by itself."""
        keys = {(s.switch_id, s.run_id) for s in stops}
        new, self._cleared = keys - self._cleared, keys
        if self._clear is not None and new:
            await asyncio.gather(*map(self._clear, sorted({run_id for _, run_id in new})), return_exceptions=True)

    async def close(self) -> None:
        """Say that this engine is watched no more. After the worker has removed its containers."""
        if self._id is not None:
            await self._stops.engine_gone(self._id)

    async def boxes(self, stops: Sequence[Stop]) -> dict[str, str]:
        """Container -> run, of every container that belongs to a stopped run."""
        stopped = sorted({s.run_id for s in stops})
        found: dict[str, str] = {}
        listed: set[str] = set()
        ours = {names.LABEL_OWNER: self._owner, names.LABEL_KIND: "call"}
        for container in await self._engine.find_containers(ours):
            labels = container.get("Labels")
            run_id = labels.get(names.LABEL_RUN) if isinstance(labels, dict) else None
            if isinstance(run_id, str) and run_id in stopped:
                found[str(container["Id"])] = run_id
                called = container.get("Names")
                listed.update(str(name).lstrip("/") for name in (called if isinstance(called, list) else ()))
        for run_id, boxes in (await self._stops.claimed_boxes(stopped)).items():
            for box in boxes:
                if box not in listed and await self._exists(box):
                    found[box] = run_id
        return found

    async def _exists(self, box: str) -> bool:
        try:
            await self._engine.call(lambda api: api.inspect_container(box))
        except NotFound:
            return False
        return True

    async def _kill(self, box: str) -> bool:
        return await self._engine.dispose(box, patience_s=0)

    async def _engine_id(self) -> str:
        if self._id is None:
            self._id = str((await self._engine.call(lambda api: api.info())).get("ID") or self._owner)
        return self._id


def _known(stops: Sequence[Stop], key: tuple[str, str]) -> dict[str, int]:
    none: dict[str, int] = {}
    return next((s.boxes for s in stops if (s.switch_id, s.run_id) == key), none)
