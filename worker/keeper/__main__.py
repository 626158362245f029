"""The keeper process: `python -m worker.keeper`. Composition root of the background duties.

Holds the store, the connection to Temporal and the secrets of channels; no provider keys, no Docker. SIGTERM and SIGINT
end it; a kill loses nothing.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from datetime import timedelta

import structlog
from temporalio.client import Client
from temporalio.runtime import Runtime

from worker import metrics, own_keys, telemetry, temporal
from worker.keeper.delivering import Delivering
from worker.keeper.pruning import Pruning
from worker.keeper.retaining import Retaining
from worker.keeper.stopping import Stopping
from worker.keeper.sweeping import sweeping
from worker.notify.channels import Secrets, load
from worker.notify.following import Following
from worker.notify.senders import Current, senders
from worker.notify.tokens import Tokens
from worker.process import run, stop_signal
from worker.sandbox.process import this_process
from worker.settings import Settings
from worker.storage import open_database
from worker.store import times
from worker.store.audit import AuditLog
from worker.store.database import StoreUnavailable
from worker.store.leases import Lease
from worker.store.outbox import Outbox
from worker.store.spent import Spent
from worker.store.stops import Stops
from worker.store.switches import Switches

STOPPING_S = 0.5
"""How often switches are looked at: most of the time between a switch and the last run standing still."""
DELIVERING_S = 0.5
SWEEPING_S = 120.0
PRUNING_S = 600.0
RETAINING_S = 3600.0
COUNTING_S = 5.0
MAX_WAIT_S = 10.0

log = structlog.stdlib.get_logger("gatehouse.keeper")


class Connection:
    """To Temporal, made when a duty needs it and kept."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._client: Client | None = None
        self._making = asyncio.Lock()

    async def client(self) -> Client:
        """Raises TemporalUnavailable."""
        async with self._making:
            if self._client is None:
                self._client = await temporal.connect(self._settings)
            return self._client


async def duty(name: str, lease: Lease, look: Callable[[], Awaitable[None]], period_s: float) -> None:
    """Look again and again while the lease is ours, until cancelled. What is away is waited for, longer each time."""
    wait_s = period_s
    while True:
        try:
            if await lease.take():
                await look()
            wait_s = period_s
        except (StoreUnavailable, temporal.TemporalUnavailable) as fault:
            log.warning("a duty waits", duty=name, reason=str(fault), wait_s=wait_s)
            wait_s = min(wait_s * 2, MAX_WAIT_S)
        except Exception:
            # One thing that cannot be done must not keep the rest from being done.
            log.exception("a duty failed", duty=name)
            wait_s = min(wait_s * 2, MAX_WAIT_S)
        await asyncio.sleep(wait_s)


class Counting:
    """Shows what was not told and not confirmed. Every keeper does: a monitor asks the one it knows."""

    def __init__(self, outbox: Outbox, stops: Stops, meter: metrics.Metrics) -> None:
        self._outbox = outbox
        self._stops = stops
        self._meter = meter

    async def run(self) -> None:
        """Count again and again until cancelled; a store that is away is waited for."""
        while True:
            with contextlib.suppress(StoreUnavailable):
                await self.look()
            await asyncio.sleep(COUNTING_S)

    async def look(self) -> None:
        """Count once. Raises StoreUnavailable."""
        backlog, oldest = await self._outbox.backlog(), 0.0
        if backlog.oldest_pending_at is not None:
            oldest = max(0.0, (times.now() - backlog.oldest_pending_at).total_seconds())
        self._meter.level("gatehouse_notices_pending", backlog.pending)
        self._meter.level("gatehouse_notices_dead", backlog.dead)
        self._meter.level("gatehouse_notices_oldest_seconds", oldest)
        self._meter.level("gatehouse_stops_unconfirmed", len(await self._stops.unconfirmed()))


async def serve(settings: Settings) -> None:
    """Do every duty until a signal comes. Raises what makes it impossible to start."""
    metrics.serve(settings, "keeper")
    stop = stop_signal()
    db, me, secrets = open_database(settings), this_process(), Secrets()
    own_keys.require(settings)
    tasks: list[asyncio.Task[None]] = []
    leases: list[Lease] = []
    try:
        await db.migrate()
        audit, connection = AuditLog(db), Connection(settings)
        stopping = Stopping(Switches(db, audit), Stops(db), audit, connection.client)
        following = Following(settings.home, lambda home: load(home, secrets), start_without=False)
        tokens = Tokens(settings.keys)
        delivering = Delivering(Outbox(db), Current(following, lambda found: senders(found, secrets, tokens)))
        pruning = Pruning(Outbox(db), Spent(db, audit), timedelta(days=settings.notices_days))
        duties = (
            ("stopping", stopping.look, STOPPING_S),
            ("delivering", delivering.look, DELIVERING_S),
            ("sweeping", sweeping(settings, db, connection.client).look, SWEEPING_S),
            ("pruning", pruning.look, PRUNING_S),
            ("retaining", Retaining(audit, settings).look, RETAINING_S),
        )
        counting = Counting(Outbox(db), Stops(db), metrics.Metrics(Runtime.default().metric_meter))
        tasks.append(asyncio.create_task(counting.run()))
        for name, look, period_s in duties:
            lease = Lease(db, name, me)
            leases.append(lease)
            tasks.append(asyncio.create_task(duty(name, lease, look, period_s)))
        log.info("keeping", duties=len(tasks))
        await stop.wait()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for lease in leases:
            with contextlib.suppress(StoreUnavailable):
                await lease.give_back()
        await db.close()
    log.info("stopped")


def main() -> None:
    """Exit status 0 after a signal, 1 when it could not start."""
    settings = Settings()
    telemetry.configure(settings.log_level, process="keeper", redacts=temporal.redactor(settings))
    logging.getLogger("alembic").setLevel(logging.WARNING)
    run(serve(settings), log)


if __name__ == "__main__":
    main()
