"""Brings switches to the runs they stop, again and again until each is confirmed; then lets the runs go on.

Everything to do stands in the store, so a keeper that dies leaves nothing undone: the next look finds it.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Final

import structlog
from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

from policies.switches import EVERYWHERE, RUN_WIDE, Hold, Switch
from worker.store import times
from worker.store.audit import AuditEvent, AuditLog, RunAlreadyClosed
from worker.store.stops import Stop, Stops, add_stops
from worker.store.switches import INSTALLATION, Switches
from workflows.contracts import SIGNAL_FREEZE, SIGNAL_THAW

ASK_AGAIN: Final = timedelta(seconds=5)
FIND_MORE_S: Final = 2.0
RPC: Final = timedelta(seconds=5)
AT_ONCE: Final = 20
"""Requests to Temporal at one time: a stop of thousands of runs must not be what brings it down."""

log = structlog.stdlib.get_logger("gatehouse.keeper")

Connect = Callable[[], Awaitable[Client]]
"""The connection to Temporal, made when first needed; raises what keeps it from being made."""


class Stopping:
    """The duty. One look may be repeated at any time, also by two keepers at once."""

    def __init__(self, switches: Switches, stops: Stops, audit: AuditLog, connect: Connect) -> None:
        self._switches = switches
        self._stops = stops
        self._audit = audit
        self._connect = connect
        self._confirmed: set[str] = set()
        """Switches whose confirmation this process has recorded."""
        self._found_at = -FIND_MORE_S
        self._few = asyncio.Semaphore(AT_ONCE)

    async def look(self) -> None:
        """One pass. What needs only the store is done first. Raises StoreUnavailable and what connecting raises."""
        stopping = [s for s in await self._switches.in_force() if s.state == "stop" and s.scope in RUN_WIDE]
        await self._find_more(stopping)
        stops = await self._stops.unconfirmed()
        await self._confirm(stops)
        for switch in stopping:
            await self._record_confirmation(switch)
        resuming = [s for s in await self._stops.to_resume() if _due(s)]
        asking = [s for s in stops if _due(s) and s.acknowledged_at is None and not s.phase.final]
        if not asking and not resuming:
            return
        client = await self._connect()
        known = {switch.id: switch for switch in stopping}
        await asyncio.gather(*(self._stop(client, known[s.switch_id], s) for s in asking if s.switch_id in known))
        await asyncio.gather(*(self._resume(client, s) for s in resuming))

    async def _find_more(self, switches: Sequence[Switch]) -> None:
        """Runs that came into being while a switch was set: their transaction did not see it, nor it them."""
        now = asyncio.get_running_loop().time()
        if not switches or now - self._found_at < FIND_MORE_S:
            return
        self._found_at = now
        for switch in switches:
            async with self._switches.db.begin() as conn:
                added = await add_stops(conn, switch)
            if added:
                log.info("a switch stops more runs", switch=switch.id, runs=added)

    async def _confirm(self, stops: Sequence[Stop]) -> None:
        """Write down which stops are complete: acknowledged or over, and no container left on any engine."""
        over = [s for s in stops if s.acknowledged_at is None and s.phase.final]
        if over:
            await self._stops.note(over, "acknowledged_at")
        engines = await self._stops.engines() if stops else {}
        if not engines or not all(engines.values()):
            return  # an engine that is silent confirms nothing
        done = [s for s in stops if s.acknowledged_at is not None and all(s.boxes.get(e) == 0 for e in engines)]
        if done:
            await self._stops.note(done, "confirmed_at")

    async def _record_confirmation(self, switch: Switch) -> None:
        if switch.id in self._confirmed:
            return
        counts = await self._stops.counts(switch.id)
        if counts.confirmed < counts.requested:
            return
        tenant = INSTALLATION if switch.tenant == EVERYWHERE else switch.tenant
        body = {"switch_id": switch.id, "requested": counts.requested, "confirmed": counts.confirmed}
        event = AuditEvent(f"switch/{switch.id}/confirmed", "switch.confirmed", tenant, None, "system:keeper", {**body})
        await self._audit.append(event)
        self._confirmed.add(switch.id)
        log.warning("a switch is confirmed", switch=switch.id, runs=counts.confirmed)

    async def _stop(self, client: Client, switch: Switch, stop: Stop) -> None:
        """Tell a run to stand still, or to end. Its answer comes through the store."""
        handle = client.get_workflow_handle(stop.run_id)
        async with self._few:
            try:
                if switch.running == "cancel":
                    await self._record_cancel(switch, stop)
                    await handle.cancel(rpc_timeout=RPC)
                else:
                    hold = Hold(switch_id=switch.id, revision=switch.revision, reason=switch.reason)
                    await handle.signal(SIGNAL_FREEZE, hold, rpc_timeout=RPC)
            except RPCError as error:
                if error.status is not RPCStatusCode.NOT_FOUND:
                    log.warning("a run could not be told to stop", run=stop.run_id, reason=error.message)
                    return
                # Never started, or over and its row is behind: there is nothing that could go on.
                await self._stops.note([stop], "acknowledged_at")
        await self._stops.note([stop], "asked_at")

    async def _resume(self, client: Client, stop: Stop) -> None:
        switch = await self._switches.get(stop.switch_id)
        if switch is None:
            return
        async with self._few:
            try:
                hold = Hold(switch_id=switch.id, revision=switch.revision, held=False)
                await client.get_workflow_handle(stop.run_id).signal(SIGNAL_THAW, hold, rpc_timeout=RPC)
            except RPCError as error:
                if error.status is not RPCStatusCode.NOT_FOUND:
                    log.warning("a run could not be told to go on", run=stop.run_id, reason=error.message)
                    return
                await self._stops.note([stop], "resumed_at")
        await self._stops.note([stop], "asked_at")

    async def _record_cancel(self, switch: Switch, stop: Stop) -> None:
        event_id, body = f"{stop.run_id}/cancel/{switch.id}", {"switch_id": switch.id, "reason": switch.reason}
        event = AuditEvent(event_id, "run.cancel_requested", stop.tenant, stop.run_id, switch.set_by, {**body})
        try:
            await self._audit.append(event)
        except RunAlreadyClosed:
            return


def _due(stop: Stop) -> bool:
    return stop.asked_at is None or not times.recent(stop.asked_at, ASK_AGAIN)
