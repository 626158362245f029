"""One worker process: `python -m worker.main --queue runs|models|sandbox`. The composition root of all three.

runs     workflow code and its recording activities: SQL, no provider keys, no Docker
models   model requests: provider keys, of the store only the switches, no Docker
sandbox  tool calls: the Docker engine and SQL, no provider keys
Each process imports only what its queue needs. SIGTERM and SIGINT drain it: work in hand is finished or handed back.
"""

import argparse
import asyncio
import dataclasses
import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Literal, cast

import structlog
from temporalio.client import Client
from temporalio.runtime import Runtime
from temporalio.service import RPCError
from temporalio.worker import Worker

from worker import metrics, telemetry, temporal
from worker.process import run, stop_signal
from worker.settings import Settings
from worker.store.signing import PublicKeys
from workflows.contracts import QUEUE_MODELS, QUEUE_RUNS, QUEUE_SANDBOX

if TYPE_CHECKING:
    from worker.sandbox.secrets import Secrets

Queue = Literal["runs", "models", "sandbox"]

DRAIN = timedelta(seconds=20)
"""How long a stopping worker lets activities finish before it cancels them."""
CACHED = 500
"""Runs a worker keeps in memory, about 0.7 MB each. One that waits longer is read from its history when it goes on."""
STICKY = timedelta(seconds=3)
"""After a worker died, how long its runs wait for it before another takes over."""
MAX_WAIT_S = 10.0

log = structlog.stdlib.get_logger("gatehouse.worker")


async def serve(queue: Queue, settings: Settings) -> None:
    """Poll the queue until a signal comes, then drain. Raises what makes it impossible to start (policy, store)."""
    stop = stop_signal()
    client = await _connected(settings, stop)
    if client is None:
        return
    compose = {"runs": _runs, "models": _models, "sandbox": _sandbox}[queue]
    async with compose(settings, client) as worker:
        polling, stopping = asyncio.create_task(worker.run()), asyncio.create_task(stop.wait())
        log.info("polling", queue=worker.task_queue)
        await asyncio.wait({polling, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if not polling.done():
            log.info("draining", queue=worker.task_queue)
            await worker.shutdown()
        await polling
    log.info("stopped", queue=queue)


async def _connected(settings: Settings, stop: asyncio.Event) -> Client | None:
    """A client as soon as Temporal answers; None when stopped first."""
    wait_s = 0.2
    while not stop.is_set():
        try:
            client = await temporal.connect(settings)
            await temporal.ensure_search_attributes(client)
        except (temporal.TemporalUnavailable, RPCError) as error:
            log.warning("waiting for Temporal", reason=str(error), wait_s=wait_s)
            try:
                await asyncio.wait_for(stop.wait(), wait_s)
            except TimeoutError:
                wait_s = min(wait_s * 2, MAX_WAIT_S)
            continue
        return client
    return None


@asynccontextmanager
async def _runs(settings: Settings, client: Client) -> AsyncGenerator[Worker]:
    from tools.catalog import BUILT_IN, load_tools  # noqa: PLC0415  (only this queue may need it, see the module's text)
    from worker.activities.committing import CommitActivities, LocalOnly  # noqa: PLC0415
    from worker.activities.gate import GateActivities  # noqa: PLC0415
    from worker.activities.records import RecordActivities  # noqa: PLC0415
    from worker.activities.rules import RuleActivities  # noqa: PLC0415
    from worker.policy import LivePolicy  # noqa: PLC0415
    from worker.storage import open_database  # noqa: PLC0415
    from worker.store.approvals import Approvals  # noqa: PLC0415
    from worker.store.audit import AuditLog  # noqa: PLC0415
    from worker.store.ledger import Ledger  # noqa: PLC0415
    from worker.store.policies import Policies  # noqa: PLC0415
    from worker.store.runs import Runs  # noqa: PLC0415
    from worker.store.standing import Standing  # noqa: PLC0415
    from workflows.automation import AutomationWorkflow  # noqa: PLC0415

    folders = [BUILT_IN, *([settings.home / "tools"] if settings.home else [])]
    tools = {name: tool.spec for name, tool in load_tools(folders).items()}
    db = open_database(settings)
    following: asyncio.Task[None] | None = None
    try:
        await db.migrate()
        audit = AuditLog(db)
        policy = LivePolicy(
            Policies(db, audit), settings.home, tools, environment=settings.environment, strict=settings.policy_strict
        )
        await policy.start()
        following = asyncio.create_task(policy.follow())
        keys = PublicKeys(settings.keys)
        redact = temporal.redactor(settings).json
        records = RecordActivities(audit, Runs(db), Approvals(db), Ledger(db, audit), keys, redact=redact)
        gate = GateActivities(policy, audit, standing=Standing(db, audit, keys), redact=redact)
        yield Worker(
            client,
            task_queue=QUEUE_RUNS,
            workflows=[AutomationWorkflow],
            activities=[*records.all(), *gate.all(), *RuleActivities().all(), *CommitActivities().all()],
            workflow_runner=temporal.workflow_runner(),
            max_cached_workflows=CACHED,
            # What records is local: as a remote activity it would be somebody's mistake or worse.
            interceptors=[LocalOnly()],
            sticky_queue_schedule_to_start_timeout=STICKY,
            graceful_shutdown_timeout=DRAIN,
        )
    finally:
        if following is not None:
            following.cancel()
        await db.close()


@asynccontextmanager
async def _models(settings: Settings, client: Client) -> AsyncGenerator[Worker]:
    from pydantic_ai.durable_exec.temporal import TemporalDurability  # noqa: PLC0415

    from worker.models import Models  # noqa: PLC0415
    from worker.stoppable import stoppable  # noqa: PLC0415
    from worker.storage import open_database  # noqa: PLC0415
    from worker.store.audit import AuditLog  # noqa: PLC0415
    from worker.store.runs import Runs  # noqa: PLC0415
    from worker.store.switches import Switches  # noqa: PLC0415
    from workflows.agents import build_agent  # noqa: PLC0415

    db = open_database(settings)
    resolve = stoppable(Models(settings).resolve, Switches(db, AuditLog(db)), Runs(db))
    durability = TemporalDurability[None].from_agent(build_agent(resolve))
    if durability is None:
        raise RuntimeError("the agent has no durability: model requests would not be recorded")
    try:
        yield Worker(
            client,
            task_queue=QUEUE_MODELS,
            activities=durability.temporal_activities,
            max_concurrent_activities=50,
            graceful_shutdown_timeout=DRAIN,
        )
    finally:
        await db.close()


@asynccontextmanager
async def _sandbox(settings: Settings, client: Client) -> AsyncGenerator[Worker]:
    from worker.activities.means import Means  # noqa: PLC0415
    from worker.activities.sandbox import SandboxActivities  # noqa: PLC0415
    from worker.artifacts import open_blobs  # noqa: PLC0415
    from worker.sandbox.egress import Egress  # noqa: PLC0415
    from worker.sandbox.engine import Engine, SandboxUnavailable, installation_id  # noqa: PLC0415
    from worker.sandbox.pool import PoolSettings  # noqa: PLC0415
    from worker.sandbox.proven import ProvenSandbox  # noqa: PLC0415
    from worker.sandbox.reaper import Reaper  # noqa: PLC0415
    from worker.sandbox.stopping import Stopper  # noqa: PLC0415
    from worker.sandbox.workspace import Workspaces  # noqa: PLC0415
    from worker.storage import open_database  # noqa: PLC0415
    from worker.store.audit import AuditLog  # noqa: PLC0415
    from worker.store.database import StoreUnavailable  # noqa: PLC0415
    from worker.store.ledger import Ledger  # noqa: PLC0415
    from worker.store.runs import Runs  # noqa: PLC0415
    from worker.store.stops import Stops  # noqa: PLC0415

    data, blobs, db = settings.data.resolve(), open_blobs(settings), open_database(settings)
    async with Engine(settings.docker_host, patience_s=settings.engine_patience_s) as engine:
        meter = metrics.Metrics(Runtime.default().metric_meter)
        sandbox = ProvenSandbox(
            engine, data=data, owner=installation_id(data), pool=PoolSettings(), meter=meter,
            wanted=settings.sandbox_runtime,
        )  # fmt: skip
        stopper = Stopper(engine, sandbox.owner, Stops(db), sandbox.clear_run)
        tasks = [asyncio.create_task(Reaper(engine, sandbox.owner, Runs(db).closed).run())]
        try:
            await db.migrate()
            tasks.append(asyncio.create_task(stopper.run()))
            try:
                await sandbox.prove()
            except SandboxUnavailable as error:
                # Calls fail with this reason until it is mended; nothing ever runs outside a box instead.
                log.error("no sandbox", problem=error.problem, remedy=error.remedy)  # noqa: TRY400  (it says it all)
            audit = AuditLog(db)
            workspaces = Workspaces(sandbox, blobs)
            egress = Egress(data / "egress")
            await asyncio.to_thread(egress.sweep)
            means = Means(egress, _secrets(settings), audit, opened=settings.egress_hosts)
            activities = SandboxActivities(
                sandbox, Ledger(db, audit), blobs, workspaces, audit, means=means, redacts=temporal.redactor(settings)
            )
            yield Worker(
                client,
                task_queue=QUEUE_SANDBOX,
                activities=activities.all(),
                max_concurrent_activities=16,
                graceful_shutdown_timeout=DRAIN,
                # A worker hears of a cancellation with a heartbeat: throttled longer, a box would outlive its run.
                max_heartbeat_throttle_interval=timedelta(seconds=1),
            )
        finally:
            for task in tasks:
                task.cancel()
            await sandbox.close()
            with suppress(StoreUnavailable):
                await stopper.close()
            log.info("boxes", **dataclasses.asdict(sandbox.pool.stats), hit_rate=sandbox.pool.stats.hit_rate)
            await db.close()


def _secrets(settings: Settings) -> "Secrets":
    """The sources of tools' secrets that are configured, the nearest first."""
    from worker.sandbox.scrubbing import Scrubber  # noqa: PLC0415
    from worker.sandbox.secrets import (  # noqa: PLC0415
        EnvironmentSecrets,
        FolderSecrets,
        Secrets,
        Source,
        VaultSecrets,
    )

    sources: list[Source] = [EnvironmentSecrets(os.environ)]
    if settings.secrets_dir:
        sources.append(FolderSecrets(settings.secrets_dir))
    if settings.vault_url:
        given, file = settings.vault_token, settings.vault_token_file

        def token() -> str:
            return file.read_text().strip() if file else given.get_secret_value() if given else ""

        sources.append(VaultSecrets(settings.vault_url, token, mount=settings.vault_mount, path=settings.vault_path))
    return Secrets(sources, Scrubber(), temporal.redactor(settings).learn)


def main() -> None:
    """Serve one queue. Exit status 0 after a signal, 1 when it could not start or fell over."""
    parser = argparse.ArgumentParser(prog="python -m worker.main")
    parser.add_argument("--queue", choices=["runs", "models", "sandbox"], required=True)
    queue = cast("Queue", parser.parse_args().queue)
    settings = Settings()
    telemetry.configure(settings.log_level, process=f"worker-{queue}", redacts=temporal.redactor(settings))
    run(_measured(queue, settings), log.bind(queue=queue))


async def _measured(queue: Queue, settings: Settings) -> None:
    metrics.serve(settings, queue)
    await serve(queue, settings)


if __name__ == "__main__":
    main()
