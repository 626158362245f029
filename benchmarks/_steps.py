"""A workflow installation for benchmarks: real server, store, policy and activities, but a box that runs nothing."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from temporalio.client import Client
from temporalio.worker import Worker

from policies.decision import Principal
from policies.engine import PolicyEngine
from policies.rules import load_rules, rule_paths
from tests.fixtures.temporal import TemporalServer
from tools.contract import Effect, JsonObject, ToolSpec
from worker import temporal
from worker.activities.committing import CommitActivities, LocalOnly
from worker.activities.gate import GateActivities
from worker.activities.records import RecordActivities
from worker.activities.rules import RuleActivities
from worker.activities.sandbox import SandboxActivities
from worker.sandbox.container import Ending, Job, Ran, Sandbox
from worker.sandbox.workspace import Collected, Workspaces
from worker.settings import Settings
from worker.storage import open_database
from worker.store.approvals import Approvals
from worker.store.audit import AuditLog
from worker.store.blobs import Blobs
from worker.store.ids import new_id
from worker.store.ledger import Ledger
from worker.store.runs import Run, Runs
from worker.store.signing import load_or_create, public_keys
from workflows.contracts import QUEUE_RUNS, QUEUE_SANDBOX, FileRef, RunRequest
from workflows.spec import AutomationFile, AutomationSpec, resolve

OLGA = Principal(id="olga", roles=("operator",))
PROGRAM = b"print('{}')\n"


class NullBox(Sandbox):
    """Claims the call and answers as the real sandbox does, without a container."""

    def __init__(self, stdout: bytes = b'{"did": "a"}') -> None:
        # Nothing of an engine is needed, so nothing of Sandbox is set up.
        self._stdout = stdout

    async def run(self, job: Job, *, commit: Callable[[str], Awaitable[None]] | None = None) -> Ran:  # noqa: ARG002
        """The answer at once, after the claim on the effect ledger."""
        if commit is not None:
            await commit("none")
        return Ran(ending=Ending.SUCCEEDED, exit_code=0, stdout=self._stdout, stderr=b"", duration_ms=0)

    async def fence(self, key: str, box: str | None = None) -> int:  # noqa: ARG002
        """Nothing runs."""
        return 0

    async def clear_run(self, run_id: str) -> int:  # noqa: ARG002
        """Nothing runs."""
        return 0


class NoWorkspaces(Workspaces):
    """Runs without files."""

    def __init__(self) -> None: ...

    async def open(self, run_id: str, files: Sequence[FileRef]) -> None:
        """Nothing to stage."""

    async def collect(self, run_id: str) -> Collected:  # noqa: ARG002
        """Nothing to keep."""
        return Collected()

    async def remove(self, run_id: str) -> None:
        """Nothing to remove."""


def automation(program_sha256: str, *models: str) -> AutomationSpec:
    """One tool that only reads, allowed by the built-in rules."""
    schema: JsonObject = {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]}
    look = ToolSpec(
        name="look", version="1", description="Looks.", parameters=schema, effect=Effect.READ, workspace="none",
        program_sha256=program_sha256,
    )  # fmt: skip
    definition = AutomationFile.model_validate(
        {
            "apiVersion": "gatehouse/v1", "name": "bench", "version": "1", "description": "d", "owner": "o",
            "instructions": "Look, and look again.", "inputs": {"type": "object"}, "tools": ("look",),
            "models": models, "output": schema, "budgets": {"steps": 100, "tool_calls": 100, "tokens": 10**9},
        }
    )  # fmt: skip
    return resolve(definition, (look,))


@dataclass(frozen=True)
class Bench:
    """What a benchmark needs to start runs."""

    client: Client
    settings: Settings
    runs: Runs
    audit: AuditLog
    program_sha256: str

    async def request(self, *models: str) -> RunRequest:
        """A run as the API would ask for it, its row inserted."""
        spec, now = automation(self.program_sha256, *models), datetime.now(UTC)
        request = RunRequest(
            run_id=new_id("run"), principal=OLGA, automation=spec, inputs={},
            answer_keys=public_keys(self.settings.keys),
        )  # fmt: skip
        await self.runs.insert(
            Run(
                id=request.run_id, tenant=OLGA.tenant, automation=spec.name, digest=spec.digest, requester=OLGA.id,
                automation_version=spec.definition.version, principal=OLGA, inputs={}, created_at=now, updated_at=now,
            )
        )  # fmt: skip
        return request


@asynccontextmanager
async def installation(
    folder: Path, box: NullBox, *, workflows: Sequence[type], extra: Sequence[Callable[..., object]] = (),
    **settings: object,
) -> AsyncGenerator[Bench]:  # fmt: skip
    """Server with its database in a file, as the product runs it; runs and sandbox workers polling."""
    server = TemporalServer(db=folder / "temporal.db")
    await server.start()
    configured = Settings.model_validate({"data": folder, "temporal_address": server.address, **settings})
    db, blobs = open_database(configured), Blobs(configured.blobs)
    await db.migrate()
    load_or_create(configured.keys)
    program = await blobs.put(PROGRAM)
    audit, runs = AuditLog(db), Runs(db)
    ledger = Ledger(db, audit)
    engine = PolicyEngine(load_rules(rule_paths(None), {"http_request"}))
    records = RecordActivities(audit, runs, Approvals(db), ledger, public_keys(configured.keys))
    boxes = SandboxActivities(box, ledger, blobs, NoWorkspaces(), audit)
    client = await temporal.connect(configured)
    gate, rules = GateActivities(engine, audit), RuleActivities()
    local = [*records.all(), *gate.all(), *rules.all(), *CommitActivities().all()]
    async with (
        Worker(
            client, task_queue=QUEUE_RUNS, workflows=workflows, activities=local, interceptors=[LocalOnly()],
            workflow_runner=temporal.workflow_runner(),
        ),
        Worker(client, task_queue=QUEUE_SANDBOX, activities=[*boxes.all(), *extra]),
    ):  # fmt: skip
        yield Bench(client, configured, runs, audit, program.sha256)
    await db.close()
    server.stop()
