"""A whole installation in the test's own process: real server, store, policy and boxes; only its models are scripted.

`House.start` puts a run where the API would; what people do goes through signed answers, as the API signs them.
"""

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from pydantic_ai.durable_exec.temporal import TemporalDurability
from temporalio.client import Client, WorkflowFailureError, WorkflowHandle
from temporalio.exceptions import ApplicationError
from temporalio.worker import Interceptor, Worker

from policies.decision import Decision, GateRequest, Principal, Verdict
from policies.engine import PolicyEngine
from policies.rules import load_rules, rule_paths
from policies.signatures import GRANT
from policies.standing import Grant
from policies.terms import Terms
from tests.fixtures.provider import Provider
from tests.workflows.doors import Doors
from tests.workflows.tools import TOOLS
from tools.contract import JsonObject
from worker import temporal
from worker.activities.committing import CommitActivities, LocalOnly
from worker.activities.gate import GateActivities
from worker.activities.records import RecordActivities
from worker.activities.rules import RuleActivities
from worker.activities.sandbox import SandboxActivities
from worker.models import Models
from worker.sandbox.container import Sandbox
from worker.sandbox.workspace import Workspaces
from worker.settings import Settings
from worker.stoppable import stoppable
from worker.storage import open_database
from worker.store.approvals import Approvals
from worker.store.audit import AuditLog, AuditRecord
from worker.store.blobs import Blobs
from worker.store.database import Database
from worker.store.ids import new_id
from worker.store.ledger import Ledger
from worker.store.runs import Run, Runs
from worker.store.signing import AnswerKey, PublicKeys, load_or_create, public_keys
from worker.store.standing import Standing
from worker.store.switches import Switches
from workflows import contracts
from workflows.agents import build_agent
from workflows.automation import RUN_FAILED, AutomationWorkflow
from workflows.contracts import (
    AnswerAccepted,
    ApprovalAction,
    ApprovalAnswer,
    ApprovalRequest,
    RunRequest,
    RunResult,
    RunState,
)
from workflows.spec import AutomationFile, AutomationSpec, resolve

T = TypeVar("T")

OLGA = Principal(id="olga", roles=("operator",))
RUTH = Principal(id="ruth", roles=("approver",))
OUTPUT: JsonObject = {
    "type": "object",
    "properties": {"said": {"type": "string"}},
    "required": ["said"],
    "additionalProperties": False,
}


class ArgumentGate:
    """The real engine, stricter where a text begins with a marker: rules on arguments, before there are conditions."""

    def __init__(self, engine: PolicyEngine) -> None:
        self._engine = engine
        self.version = engine.version
        self.terms: dict[str, Terms] = {}
        """Text of a call -> what its question demands."""
        self.forbidden: set[str] = set()
        """Texts of calls that are denied from now on."""

    def decide(self, request: GateRequest) -> Decision:
        """`lead:` asks another role, `never:` and `forbidden` deny, `terms` ask by these; else as the engine says."""
        decision = self._engine.decide(request)
        text = str(request.arguments.get("text", ""))
        if text.startswith("never:") or text in self.forbidden:
            return decision.model_copy(update={"verdict": Verdict.DENY, "rule": "never", "reason": "not that"})
        if text.startswith("lead:"):
            return decision.model_copy(update={"verdict": Verdict.ASK, "rule": "lead", "approvers": "lead"})
        if text in self.terms:
            asks = {"verdict": Verdict.ASK, "rule": "terms", "approvers": "approver", "terms": self.terms[text]}
            return decision.model_copy(update=asks)
        return decision


def automation(*models: str, **changes: Any) -> AutomationSpec:
    """An automation that may use every test tool."""
    fields: dict[str, Any] = {
        "apiVersion": "gatehouse/v1",
        "name": "practice-run",
        "version": "1.0",
        "description": "d",
        "owner": "o",
        "instructions": "Do as scripted.",
        "inputs": {"type": "object"},
        "tools": tuple(TOOLS),
        "models": models,
        "output": OUTPUT,
    }
    return resolve(AutomationFile.model_validate({**fields, **changes}), tuple(t.spec for t in TOOLS.values()))


def one_call(text: str) -> list[dict[str, Any]]:
    """Rules that note this text without a model; a call that does not run leaves the job done all the same."""
    call = {"id": "only", "tool": "note", "args": {"text": text}, "optional": True}
    return [{"id": "no-model-needed", "when": "true", "then": {"calls": [call], "answer": {"said": "done"}}}]


@dataclass(frozen=True)
class Started:
    """One run on its way."""

    id: str
    handle: "WorkflowHandle[AutomationWorkflow, RunResult]"
    approvals: Approvals

    async def result(self, timeout_s: float = 120) -> RunResult:
        """How it ended, failed runs included. Raises CancelledError's WorkflowFailureError for a cancelled one."""
        try:
            async with asyncio.timeout(timeout_s):
                return await self.handle.result()
        except WorkflowFailureError as error:
            if isinstance(error.cause, ApplicationError) and error.cause.type == RUN_FAILED:
                return RunResult.model_validate(error.cause.details[0])
            raise

    async def state(self) -> RunState:
        """The `state` query."""
        return await self.handle.query(contracts.QUERY_STATE, result_type=RunState)

    async def question(self, nth: int = 1, timeout_s: float = 120) -> ApprovalRequest:
        """Wait until the nth question of the run is pending."""
        return (await self.questions(f"{self.id}.{nth}", timeout_s=timeout_s))[0]

    async def questions(self, *ids: str, timeout_s: float = 120) -> list[ApprovalRequest]:
        """Wait until all of these are pending, and on the list for people."""

        async def found() -> list[ApprovalRequest]:
            waiting = {q.id: q for q in (await self.state()).waiting}
            listed = [await self.approvals.get(None, id_) for id_ in ids if id_ in waiting]
            return [waiting[id_] for id_ in ids] if len(listed) == len(ids) and all(listed) else []

        return await until(found, timeout_s)


@dataclass(frozen=True)
class House:
    """The parts, and what people do with them."""

    client: Client
    settings: Settings
    provider: Provider
    db: Database
    audit: AuditLog
    runs: Runs
    approvals: Approvals
    blobs: Blobs
    key: AnswerKey
    sandbox: Sandbox
    gate: ArgumentGate
    standing: Standing
    doors: Doors = field(default_factory=Doors)

    async def start(
        self,
        spec: AutomationSpec,
        *,
        by: Principal = OLGA,
        inputs: JsonObject | None = None,
        run_id: str | None = None,
        sandbox_wait_s: float = 120,
        task_timeout: timedelta | None = None,
    ) -> Started:
        """Ask for a run as the API does: its row first, then its workflow. `task_timeout`: when a workflow task counts
        as lost with its worker."""
        run_id = run_id or new_id("run")
        now = datetime.now(UTC)
        request = RunRequest(
            run_id=run_id,
            principal=by,
            automation=spec,
            inputs=inputs or {},
            answer_keys=public_keys(self.settings.keys),
            sandbox_wait_s=sandbox_wait_s,
        )
        await self.runs.insert(
            Run(
                id=run_id, tenant=by.tenant, automation=spec.name, automation_version=spec.definition.version,
                digest=spec.digest, requester=by.id, principal=by, inputs=request.inputs,
                created_at=now, updated_at=now,
            )
        )  # fmt: skip
        temporal.belongs(self.client, run_id, by.tenant)
        handle = await self.client.start_workflow(
            AutomationWorkflow.run, request, id=run_id, task_queue=contracts.QUEUE_RUNS, task_timeout=task_timeout
        )
        return Started(run_id, handle, self.approvals)

    def signed(self, question: ApprovalRequest, verdict: str, by: Principal = RUTH, **changes: Any) -> ApprovalAnswer:
        """An answer as the API would sign it."""
        now = datetime.now(UTC)
        unsigned = ApprovalAnswer.model_validate(
            {
                "approval_id": question.id, "run_id": question.run_id, "verdict": verdict, "digest": question.digest,
                "principal": by, "answered_at": now, "expires_at": now + timedelta(days=30), "key_id": "", **changes,
            }
        )  # fmt: skip
        return self.key.sign_answer(unsigned)

    async def send(self, run: Started, answer: ApprovalAnswer, *, id: str | None = None) -> AnswerAccepted:  # noqa: A002
        """Send an answer (`id`: of the update). Raises WorkflowUpdateFailedError when it is refused."""
        # One overload of the SDK's method has an untyped argument.
        return await run.handle.execute_update(  # pyright: ignore[reportUnknownMemberType]
            contracts.UPDATE_ANSWER, answer, id=id, result_type=AnswerAccepted
        )

    async def say(
        self, run: Started, question: ApprovalRequest, verdict: str, by: Principal = RUTH, **changes: Any
    ) -> AnswerAccepted:
        """Answer a question."""
        return await self.send(run, self.signed(question, verdict, by, **changes))

    def action(self, question: ApprovalRequest, kind: str, by: Principal = RUTH, **changes: Any) -> ApprovalAction:
        """An action as the API would sign it."""
        now = datetime.now(UTC)
        unsigned = ApprovalAction.model_validate(
            {
                "approval_id": question.id, "run_id": question.run_id, "kind": kind, "digest": question.digest,
                "principal": by, "acted_at": now, "expires_at": now + timedelta(days=30), "key_id": "", **changes,
            }
        )  # fmt: skip
        return self.key.sign_action(unsigned)

    async def act(
        self, run: Started, question: ApprovalRequest, kind: str, by: Principal = RUTH, **changes: Any
    ) -> AnswerAccepted:
        """Say something else to a question. Raises WorkflowUpdateFailedError when it is refused."""
        return await self.send_action(run, self.action(question, kind, by, **changes))

    async def send_action(self, run: Started, action: ApprovalAction) -> AnswerAccepted:
        """Send an action. Raises WorkflowUpdateFailedError when it is refused."""
        return await run.handle.execute_update(  # pyright: ignore[reportUnknownMemberType]
            contracts.UPDATE_ACT, action, result_type=AnswerAccepted
        )

    async def records(self, run: Started, type_: str | None = None) -> list[AuditRecord]:
        """Audit records of the run, in order."""
        return await self.audit.page(tenant=None, run_id=run.id, type=type_, limit=500)

    async def outcomes(self, run: Started) -> dict[str, str]:
        """Call id -> recorded outcome; fails unless every intent has exactly one."""
        intents = [str(r.body["call_id"]) for r in await self.records(run, "call.intent")]
        found = [(str(r.body["call_id"]), str(r.body["outcome"])) for r in await self.records(run, "call.outcome")]
        assert sorted(intents) == sorted(call for call, _ in found), f"intents {intents}, outcomes {found}"
        return dict(found)

    async def effects(self, result: RunResult) -> list[str]:
        """What the tools really did, from the artifact they append to: one text per execution."""
        return [str(e["text"]) for e in await self.effect_lines(result)]

    async def effect_lines(self, result: RunResult) -> list[dict[str, Any]]:
        """As `effects`, whole."""
        found = [a for a in result.artifacts if a.name == "effects.jsonl"]
        if not found:
            return []
        return [json.loads(line) for line in (await self.blobs.read(found[0].sha256)).splitlines()]


async def put_grant(house: House, **changes: Any) -> Grant:
    """A grant as the API signs it: `erase` with any text that begins with `old`, once."""
    now = datetime.now(UTC)
    values: dict[str, Any] = {
        "id": new_id("grant"), "tenant": "default", "automation": "practice-run", "tool": "erase",
        "arguments": {"text": "old*"}, "uses": 1, "until": now + timedelta(days=1), "created_by": "ruth",
        "created_at": now, **changes,
    }  # fmt: skip
    grant = house.key.sign(Grant.model_validate(values), GRANT)
    await house.standing.add_grant(grant)
    return grant


@asynccontextmanager
async def opened(
    provider: Provider, sandbox: Sandbox, blobs: Blobs, settings: Settings, *, client: Client | None = None
) -> AsyncGenerator[House]:
    """The installation, its workers not polling yet. `client`: another than the product's."""
    db = open_database(settings)
    await db.migrate()
    for tool in TOOLS.values():
        await blobs.put(tool.program)
    audit, runs, approvals = AuditLog(db), Runs(db), Approvals(db)
    key = load_or_create(settings.keys)
    client = client or await temporal.connect(settings)
    gate = ArgumentGate(PolicyEngine(load_rules(rule_paths(None), set(TOOLS) | _BUILT_IN)))
    standing = Standing(db, audit, PublicKeys(settings.keys))
    house = House(client, settings, provider, db, audit, runs, approvals, blobs, key, sandbox, gate, standing)
    await temporal.ensure_search_attributes(client)
    yield house
    await db.close()


@asynccontextmanager
async def workers(
    house: House, *, cached: int = 1000, boxes_of: Sandbox | None = None, boxes: bool = True,
    runs: bool = True, interceptors: tuple[Interceptor, ...] = (),
) -> AsyncGenerator[None]:  # fmt: skip
    """The three workers; `cached=0` makes the runs worker replay every run at every step.

    `boxes_of`: another sandbox for the calls, while workspaces stay where they are. `boxes=False`: no sandbox worker;
    `runs=False`: no runs worker.
    """
    ledger = Ledger(house.db, house.audit)
    records = RecordActivities(house.audit, house.runs, house.approvals, ledger, PublicKeys(house.settings.keys))
    gate = GateActivities(house.gate, house.audit, standing=house.standing)
    calls = SandboxActivities(
        boxes_of or house.sandbox, ledger, house.blobs, Workspaces(house.sandbox, house.blobs), house.audit
    )
    durability = TemporalDurability[None].from_agent(
        build_agent(stoppable(Models(house.settings).resolve, Switches(house.db, house.audit), house.runs))
    )
    assert durability is not None
    runs_worker = Worker(
        house.client, task_queue=contracts.QUEUE_RUNS, workflows=[AutomationWorkflow],
        activities=[*records.all(), *gate.all(), *RuleActivities().all(), *CommitActivities().all()],
        workflow_runner=temporal.workflow_runner(), interceptors=[LocalOnly(), house.doors, *interceptors],
        max_cached_workflows=cached, sticky_queue_schedule_to_start_timeout=timedelta(seconds=1),
    )  # fmt: skip
    async with (
        runs_worker if runs else nullcontext(),
        Worker(house.client, task_queue=contracts.QUEUE_MODELS, activities=durability.temporal_activities),
        sandbox_worker(house, calls) if boxes else nullcontext(),
    ):
        yield


def sandbox_worker(house: House, calls: SandboxActivities) -> Worker:
    """The one that a test may do without."""
    return Worker(house.client, task_queue=contracts.QUEUE_SANDBOX, activities=calls.all(), interceptors=[house.doors])


_BUILT_IN = frozenset({"http_request"})


async def until(find: Callable[[], Awaitable[T]], timeout_s: float = 120) -> T:
    """What `find` finds, as soon as it is something; fails when it stays nothing."""
    async with asyncio.timeout(timeout_s):
        while True:
            if found := await find():
                return found
            await asyncio.sleep(0.05)


def signed_by_another(answer: ApprovalAnswer, key: AnswerKey) -> ApprovalAnswer:
    """The same answer with a signature of a key the run does not trust, under the trusted key's id."""
    forged = key.sign_answer(answer)
    return forged.model_copy(update={"key_id": answer.key_id})
