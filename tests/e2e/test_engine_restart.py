"""Load of 200 calls; meanwhile sandbox workers are killed, and so is the engine, twice, which then starts again.

Real Temporal, store, sandbox workers and engine; the engine is the test's own. What a call did is not asked of the
program but counted in the runs' volumes, where each program leaves one line.
"""

import asyncio
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import docker.errors
import pytest
from temporalio import workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import ActivityError, ApplicationError
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from tests.fixtures import own_engine
from tests.fixtures.own_engine import OwnEngine
from tests.fixtures.temporal import TemporalServer
from tests.worker.activities.payloads import decided
from tools.contract import Effect, Limits, Outcome, Repeat, ToolCall, ToolSpec, Wire, arguments_digest
from worker import temporal
from worker.sandbox import engine as names
from worker.sandbox.engine import installation_id
from worker.settings import Settings
from worker.storage import open_database
from worker.store.audit import AuditLog
from worker.store.blobs import Blobs
from worker.store.database import Database
from worker.store.ledger import ClaimState, Ledger
from workflows import ports
from workflows.contracts import QUEUE_SANDBOX, RunRef, ToolRun, WorkspaceOpened
from workflows.tool_call import in_sandbox

ROOT = Path(__file__).resolve().parents[2]
RUNS, CALLS = 4, 50
QUEUE = "load"

# Leaves its line before it works, so that whatever ends it later, the host can see that it ran.
PROGRAM = b"""
import json, os, sys, time
call = json.load(sys.stdin)
file = os.open("out/" + call["call_id"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
os.write(file, b"ran\\n")
os.fsync(file)
time.sleep(1.5)
print("true")
"""


class Ended(Wire):
    """How one call came back to its workflow: with an outcome, or with the error that stands for it."""

    call: str
    outcome: str


@workflow.defn(sandboxed=False)
class Load:
    """Many calls of one run at once, each through the product's own way into the sandbox; then its workspace goes."""

    def __init__(self) -> None:
        self.ended: list[Ended] = []

    @workflow.run
    async def run(self, orders: list[ToolRun]) -> list[Ended]:
        """All calls, as they ended."""
        run = orders[0].run
        await self._volume(ports.open_workspace, WorkspaceOpened(run=run, files=()))
        await asyncio.gather(*(self._one(order) for order in orders))
        await workflow.wait_condition(lambda: self.counted)
        await self._volume(ports.close_workspace, run)
        return self.ended

    counted = False

    @workflow.signal
    def count(self) -> None:
        """The volume was looked at; it may go."""
        self.counted = True

    @workflow.query
    def so_far(self) -> list[Ended]:
        """Calls that ended."""
        return self.ended

    async def _one(self, order: ToolRun) -> None:
        try:
            outcome = (await in_sandbox(order, timedelta(minutes=10))).outcome.value
        except ActivityError as error:
            cause = error.cause
            outcome = f"error {cause.type if isinstance(cause, ApplicationError) else type(cause).__name__}"
        self.ended.append(Ended(call=order.call.id, outcome=outcome))

    async def _volume(self, port: Any, argument: object) -> None:
        await workflow.execute_activity(
            port, argument, task_queue=QUEUE_SANDBOX, start_to_close_timeout=timedelta(minutes=2),
            heartbeat_timeout=timedelta(seconds=30), retry_policy=RetryPolicy(maximum_attempts=5),
        )  # fmt: skip


@dataclass
class Workers:
    """Sandbox workers as processes of their own."""

    settings: Settings
    folder: Path
    docker_host: str
    running: list[subprocess.Popen[bytes]] = field(default_factory=list[subprocess.Popen[bytes]])

    def start(self) -> None:
        """One more."""
        environment = {k: v for k, v in os.environ.items() if not k.startswith("GATEHOUSE_")} | {
            "GATEHOUSE_DATA": str(self.settings.data),
            "GATEHOUSE_TEMPORAL_ADDRESS": self.settings.temporal_address,
            "GATEHOUSE_TEMPORAL_NAMESPACE": self.settings.temporal_namespace,
            "GATEHOUSE_DOCKER_HOST": self.docker_host,
            # A busy machine may need long to bring an engine back.
            "GATEHOUSE_ENGINE_PATIENCE_S": "25",
        }
        with (self.folder / "workers.log").open("ab") as log:
            command = [sys.executable, "-m", "worker.main", "--queue", "sandbox"]
            self.running.append(
                subprocess.Popen(command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
            )

    def kill(self) -> None:
        """kill -9 of the eldest."""
        process = self.running.pop(0)
        process.kill()
        process.wait(60)

    def log(self) -> str:
        """What they had to say."""
        return (self.folder / "workers.log").read_text(errors="replace")[-6000:]


@pytest.fixture
def engine(sandbox_data: Path, tmp_path: Path) -> Iterator[OwnEngine]:
    if reason := own_engine.unavailable():
        pytest.skip(reason)
    engine = OwnEngine()
    try:
        engine.start()
        engine.take_images(sandbox_data, tmp_path / "data")
        yield engine
    finally:
        engine.close()


@pytest.fixture
async def workers(engine: OwnEngine, tmp_path: Path) -> AsyncIterator[Workers]:
    server = TemporalServer()
    await server.start()
    workers = Workers(Settings(data=tmp_path / "data", temporal_address=server.address), tmp_path, engine.address)
    database = Database(workers.settings.sql_url)
    await database.migrate()
    await database.close()
    for _ in range(2):
        workers.start()
    yield workers
    while workers.running:
        workers.kill()
    server.stop()


async def orders(settings: Settings, run_id: str) -> list[ToolRun]:
    program = await Blobs(settings.blobs).put(PROGRAM)

    def order(number: int) -> ToolRun:
        repeat = Repeat.AT_MOST_ONCE if number % 2 else Repeat.SAFE
        tool = ToolSpec(
            name=f"mark_{repeat}", version="1", description="d", parameters={"type": "object"}, effect=Effect.WRITE,
            repeat=repeat, workspace="write", limits=Limits(timeout_s=20, memory_mb=64), program_sha256=program.sha256,
        )  # fmt: skip
        call = ToolCall(id=f"{repeat}-{number}", tool=tool.name, arguments={})
        return ToolRun(
            run=RunRef(run_id=run_id, tenant="t", automation="a"), key=f"{run_id}/{call.id}", tool=tool, rule="r",
            call=call, digest=arguments_digest(tool.name, {}),
        )  # fmt: skip

    found = [order(number) for number in range(CALLS)]
    database = open_database(settings)
    await AuditLog(database).append(*map(decided, found))
    await database.close()
    return found


@pytest.mark.timeout(900)
async def test_every_call_has_one_outcome_and_nothing_is_left(engine: OwnEngine, workers: Workers) -> None:
    client = await temporal.connect(workers.settings)
    runs = {f"run_load{n}": await orders(workers.settings, f"run_load{n}") for n in range(RUNS)}
    async with Worker(client, task_queue=QUEUE, workflows=[Load], workflow_runner=UnsandboxedWorkflowRunner()):
        handles = {
            run_id: await client.start_workflow(Load.run, calls, id=run_id, task_queue=QUEUE)
            for run_id, calls in runs.items()
        }

        async def ended() -> dict[str, list[Ended]]:
            return {run_id: await handle.query(Load.so_far) for run_id, handle in handles.items()}

        async def until(count: int) -> None:
            deadline = time.monotonic() + 600
            while sum(map(len, (await ended()).values())) < count:
                assert time.monotonic() < deadline, (await ended(), workers.log())
                await asyncio.sleep(0.1)

        await until(30)
        workers.kill()
        workers.start()
        await until(70)
        engine.kill(containerd=False)
        await asyncio.to_thread(engine.start)
        await until(110)
        workers.kill()
        engine.kill()
        workers.start()
        await asyncio.sleep(1)
        await asyncio.to_thread(engine.start)
        await until(RUNS * CALLS)
        over = time.monotonic()
        outcomes = await ended()
        await accounted(workers, engine, runs, outcomes)
        for handle in handles.values():
            await handle.signal(Load.count)
        for handle in handles.values():
            await handle.result()
        labels = {"label": f"{names.LABEL_OWNER}={installation_id(workers.settings.data)}"}
        # Within 30 s on a machine that does nothing else.
        while left := left_in(engine, labels):
            assert time.monotonic() - over < 300, (left, workers.log())
            # Boxes that wait for the next call are no leftovers: they go with their workers.
            while workers.running:
                process = workers.running.pop()
                process.terminate()
                await asyncio.to_thread(process.wait)
            await asyncio.sleep(0.2)


def exists(api: Any, container: str) -> bool:
    """Not so an entry of a list that the engine itself knows nothing behind, until its next start (decision 8)."""
    try:
        api.inspect_container(container)
    except docker.errors.NotFound:
        return False
    return True


def left_in(engine: OwnEngine, labels: dict[str, str]) -> list[str]:
    api: Any = engine.api()
    return [
        *(str(found["Id"]) for found in api.containers(all=True, filters=labels) if exists(api, str(found["Id"]))),
        *(str(found["Name"]) for found in cast(list[Any], api.volumes(filters=labels)["Volumes"] or [])),
        *(str(found["Name"]) for found in api.networks(filters=labels)),
    ]


async def accounted(
    workers: Workers, engine: OwnEngine, runs: dict[str, list[ToolRun]], outcomes: dict[str, list[Ended]]
) -> None:
    """Compare what each workflow was told with the ledger, the audit log, and what lies in the volume."""
    database = open_database(workers.settings)
    audit, ledger = AuditLog(database), Ledger(database)
    for run_id, calls in runs.items():
        told = {e.call: e.outcome for e in outcomes[run_id]}
        assert len(outcomes[run_id]) == len(told) == len(calls)
        records = await audit.page(tenant="t", run_id=run_id, type="call.outcome", limit=200)
        recorded = Counter(str(record.body["call_id"]) for record in records)
        for order in calls:
            call, held = order.call.id, await ledger.get(order.key)
            ran = times_ran(engine, run_id, call)
            state = (call, told[call], recorded[call], held, ran)
            if order.tool.repeat is Repeat.AT_MOST_ONCE:
                assert ran <= 1, state
            if told[call] == Outcome.SUCCEEDED:
                assert held is not None, state
                assert (recorded[call], held.state) == (1, ClaimState.SETTLED), state
                assert ran >= 1, state
            else:
                # The only other thing that may be said, of a call that had begun: a human is asked what became of it.
                assert told[call] == "error outcome_unknown", (state, workers.log())
                assert held is not None, state
                assert (recorded[call], held.state) == (0, ClaimState.HELD), state
                assert order.tool.repeat is Repeat.AT_MOST_ONCE, state
    await database.close()


def times_ran(engine: OwnEngine, run_id: str, call: str) -> int:
    (volume,) = engine.api().volumes(filters={"label": f"{names.LABEL_RUN}={run_id}"})["Volumes"]
    try:
        return (Path(volume["Mountpoint"]) / "out" / call).read_bytes().count(b"\n")
    except FileNotFoundError:
        return 0
