"""Removes what dead workers left behind: containers past their deadline or without a living worker, volumes of runs
that are closed.

By labels of this installation only, never by a name: others use the same engine.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection
from typing import Final, NamedTuple

from tools.contract import JsonObject
from worker.sandbox import engine as names
from worker.sandbox.engine import Engine, NotFound, SandboxUnavailable
from worker.sandbox.lifetime import is_orphan

_log: Final = logging.getLogger(__name__)
PERIOD_S: Final = 60.0
# After a sweep that did not get through, or left something: the engine may just have been restarting.
_AGAIN_S: Final = 5.0


class Swept(NamedTuple):
    """How many containers and volumes a sweep removed."""

    containers: int
    volumes: int


class Reaper:
    """Sweeps one installation's leftovers.

    `closed` says in which of these runs nothing will happen any more; a volume is removed only then.
    """

    def __init__(self, engine: Engine, owner: str, closed: Callable[[Collection[str]], Awaitable[set[str]]]) -> None:
        self._engine = engine
        self._owner = owner
        self._closed = closed

    async def sweep(self) -> Swept:
        """One pass. Raises SandboxUnavailable when no engine answers."""
        containers = 0
        for name in list(self._engine.undisposed):
            containers += await self._engine.dispose(name, patience_s=0)
        for container in await self._engine.find_containers({names.LABEL_OWNER: self._owner}):
            if _is_orphan(_labels(container)) and await self._engine.dispose(str(container["Id"])):
                containers += 1
        volumes = 0
        ours = {names.LABEL_OWNER: self._owner, names.LABEL_KIND: "workspace"}
        workspaces = {
            str(volume["Name"]): _labels(volume).get(names.LABEL_RUN, "")
            for volume in await self._engine.find_volumes(ours)
        }
        closed = await self._closed({run_id for run_id in workspaces.values() if run_id})
        for name, run_id in workspaces.items():
            if run_id in closed and await self._remove_volume(name):
                volumes += 1
        direct = {names.LABEL_OWNER: self._owner, names.LABEL_KIND: "direct"}
        for volume in await self._engine.find_volumes(direct):
            # Of a program run by hand: its process is all that knows of it.
            if _is_orphan(_labels(volume)) and await self._remove_volume(str(volume["Name"])):
                volumes += 1
        if containers or volumes:
            _log.warning("removed leftovers: %d containers, %d volumes", containers, volumes)
        return Swept(containers, volumes)

    async def _remove_volume(self, name: str) -> bool:
        try:
            await self._engine.call(lambda api: api.remove_volume(name))
        except (NotFound, names.Conflict):
            # Gone meanwhile, or still mounted by a container that the next sweep may find.
            return False
        return True

    async def run(self, period_s: float = PERIOD_S) -> None:
        """Sweep at once and then every `period_s` seconds until cancelled, more often while a sweep is not complete."""
        while True:
            clean = False
            try:
                await self.sweep()
                clean = not self._engine.undisposed
            except SandboxUnavailable as error:
                _log.warning("no sweep: %s", error)
            except Exception:  # noqa: BLE001 - see below
                # Whatever went wrong, without the reaper leftovers would pile up unseen.
                _log.exception("sweep failed")
            await asyncio.sleep(period_s if clean else min(period_s, _AGAIN_S))


def _labels(found: JsonObject) -> dict[str, str]:
    labels = found.get("Labels")
    return {name: str(value) for name, value in labels.items()} if isinstance(labels, dict) else {}


def _is_orphan(labels: dict[str, str]) -> bool:
    return names.LABEL_KIND in labels and is_orphan(labels)
