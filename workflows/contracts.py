"""Everything that crosses the Temporal boundary of a run: input, result, state, questions, answers, records (what a
switch says to a run: `policies.switches.Hold`, `workflows.held`).

Names and fields here are durable: add optional fields with defaults, never rename, never reshape. No
`from __future__ import annotations` in this module: the payload converter reads real annotations.
"""

from enum import StrEnum
from typing import Literal

from pydantic import Field

from policies.decision import Decision, GateRequest, Principal
from policies.switches import Hold
from policies.taint import Carry
from tools.contract import JsonObject, Outcome, ToolCall, ToolResult, ToolSpec, Wire
from workflows.questions import (
    UPDATE_ACT,
    UPDATE_ANSWER,
    AnswerAccepted,
    AnswerRefused,
    ApprovalAction,
    ApprovalAnswer,
    ApprovalProgress,
    ApprovalRequest,
    ApprovalState,
    Delegated,
    Escalated,
    Question,
    Remark,
)
from workflows.spec import AutomationSpec

# ---------------------------------------------------------------- durable names

WORKFLOW = "AutomationWorkflow"
QUERY_STATE = "state"
SIGNAL_FREEZE = "run.freeze"
SIGNAL_THAW = "run.thaw"
QUEUE_RUNS = "gatehouse-runs"
QUEUE_MODELS = "gatehouse-models"
QUEUE_SANDBOX = "gatehouse-sandbox"

SA_AUTOMATION = "GatehouseAutomation"  # Keyword
SA_TENANT = "GatehouseTenant"  # Keyword
SA_PHASE = "GatehousePhase"  # Keyword
SA_RUNG = "GatehouseRung"  # Keyword
SA_APPROVERS = "GatehouseApprovers"  # KeywordList
SA_DEADLINE = "GatehouseDeadline"  # Datetime: the next approval deadline


class Phase(StrEnum):
    """Where a run stands. The last three are final."""

    QUEUED = "queued"
    WORKING = "working"
    AWAITING_APPROVAL = "awaiting_approval"
    AWAITING_HUMAN = "awaiting_human"
    """Handed over: a person must finish the job."""
    FROZEN = "frozen"
    """Stands still for a kill switch."""
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def final(self) -> bool:
        """Whether nothing more will happen in the run."""
        return self in (Phase.SUCCEEDED, Phase.FAILED, Phase.CANCELLED)


class Rung(StrEnum):
    """Which step of the degrade ladder produced (or is working on) the result."""

    MODEL = "model"
    FALLBACK_MODEL = "fallback_model"
    RULES = "rules"
    HUMAN = "human"


class FileRef(Wire):
    """An uploaded input file: staged read-write under `in/<name>` of the workspace."""

    name: str
    sha256: str
    size: int


class Carried(Wire):
    """What one continued part hands to the next (between two model requests, when no question is open)."""

    part: int
    messages_json: str
    """pydantic-ai message history, as its own adapter writes it."""
    input_tokens: int = 0
    output_tokens: int = 0
    steps: int = 0
    tool_calls: int = 0
    cost_microusd: int = 0
    worked_s: float = 0.0
    model_index: int = 0
    call_ids: tuple[str, ...] = ()
    results: dict[str, ToolResult] = Field(default_factory=dict)
    """Call id -> result of the last turn's calls, which the next model request will be the first to show."""
    prompt: str | None = None
    """What the next turn says to the model besides the results, e.g. why its final answer was refused."""
    degraded: tuple[str, ...] = ()
    questions: int = 0
    """How many questions were asked so far; the next one counts on."""
    unpriced: bool = False
    """Whether a model of unknown price was used: the cost is then not known, whatever `cost_microusd` adds up to."""
    holds: tuple[Hold, ...] = ()
    """The last word of each switch the run heard of."""
    trail: Carry | None = None
    """What of taint and provenance cannot be read from the conversation; None from a part that kept none: tainted."""


class RunRequest(Wire):
    """Input of AutomationWorkflow: the whole definition by value, so that an in-flight run keeps its version."""

    run_id: str
    """Equals the workflow id."""
    principal: Principal
    automation: AutomationSpec
    inputs: JsonObject
    files: tuple[FileRef, ...] = ()
    answer_keys: dict[str, str]
    """Key id -> base64 Ed25519 public key: the only keys whose signed answers this run accepts."""
    carried: Carried | None = None
    sandbox_wait_s: float = 120.0
    """How long a call may wait for a sandbox worker to take it."""


class ArtifactRef(Wire):
    """A file the run left under `out/` of its workspace, kept in the blob store."""

    name: str
    sha256: str
    size: int
    media_type: str


class RunResult(Wire):
    """How a run ended."""

    phase: Phase
    rung: Rung
    output: JsonObject | None = None
    failure: str | None = None
    """Why it did not succeed, for people."""
    model: str | None = None
    artifacts: tuple[ArtifactRef, ...] = ()
    steps: int = 0
    tool_calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost_microusd: int | None = None
    """Millionths of a dollar; None when a model used has no known price."""
    degraded: tuple[str, ...] = ()
    """Why each higher rung gave up, in order."""


class CallState(Wire):
    """One call as the state query shows it."""

    id: str
    tool: str
    verdict: str | None = None
    outcome: Outcome | None = None


class RunState(Wire):
    """Answer of the `state` query: enough to draw a live page without decoding history."""

    phase: Phase
    rung: Rung
    model: str | None
    steps: int
    calls: tuple[CallState, ...]
    waiting: tuple[ApprovalRequest, ...]


# ---------------------------------------------------------------- activity payloads


class RunRef(Wire):
    """Which run a record belongs to."""

    run_id: str
    tenant: str
    automation: str


class RunOpened(Wire):
    """`run.open`: the run starts working."""

    run: RunRef
    principal: Principal
    automation_version: str
    automation_digest: str
    inputs_digest: str
    files: tuple[FileRef, ...]
    answer_keys: dict[str, str]


class CallOpened(Wire):
    """`call.open`: record the intent (first pass) and ask the gate. One payload per pass of one call."""

    run: RunRef
    call: ToolCall
    digest: str
    request: GateRequest
    asked_by: Literal["model", "rules"]
    gate_pass: int
    """0 first, then +1 each time the gate is asked again (edited arguments; right before running)."""


class CallRefused(Wire):
    """`call.close`: the recorded outcome of a call that did not end inside the sandbox activity."""

    run: RunRef
    key: str
    """Idempotency key `workflow_id/first_execution_run_id/tool_call_id`."""
    call_id: str
    tool: str
    result: ToolResult


class ToolRun(Wire):
    """`tool.run`, on the sandbox queue: run this call once, in a box, and record its outcome."""

    run: RunRef
    key: str
    call: ToolCall
    digest: str
    """Of the arguments the gate allowed; compared again before anything runs."""
    tool: ToolSpec
    rule: str
    generation: int = 1
    """Raised by a human who orders a call of unknown outcome to run once more."""
    gate_pass: int = 0
    """The pass of the gate that lets it run."""
    approval_id: str | None = None
    """The question that was answered with yes, where the gate asks or the call is repeated."""


class WorkspaceOpened(Wire):
    """`workspace.open`: the run needs its volume with these files staged."""

    run: RunRef
    files: tuple[FileRef, ...]


class ApprovalClosed(Wire):
    """`approval.close`: how a question ended."""

    run: RunRef
    approval_id: str
    state: ApprovalState
    answer: ApprovalAnswer | None = None
    """The answer that decided."""
    progress: ApprovalProgress | None = None


class ApprovalNoted(Wire):
    """`approval.note`: something happened to a question that did not end it."""

    run: RunRef
    approval_id: str
    event: str
    """Type of the audit event."""
    actor: str | None = None
    """None for the machinery."""
    body: JsonObject = Field(default_factory=dict)
    progress: ApprovalProgress


class ModelRequested(Wire):
    """`model.record`: one model request that was answered or failed."""

    run: RunRef
    step: int
    """Counts model requests of the run from 1, failed ones included."""
    model: str
    prompt_digest: str
    outcome: Literal["answered", "failed"]
    input_tokens: int = 0
    output_tokens: int = 0
    cost_microusd: int | None = None
    failure: str | None = None


class RungChanged(Wire):
    """`rung.record`: the run degrades."""

    run: RunRef
    index: int
    from_rung: Rung
    to_rung: Rung
    reason: str


class RulesAsked(Wire):
    """`rules.next`: what do the automation's fallback rules say now? Evaluated on the worker, its answer recorded."""

    automation: AutomationSpec
    inputs: JsonObject
    files: tuple[str, ...]
    failure: str
    rule: str | None = None
    """The rule chosen earlier; None asks for the first match."""
    results: dict[str, JsonObject] = Field(default_factory=dict)
    """Call id of the rule -> {"outcome": ..., "content": ..., "data": parsed JSON or null}."""


class RulesAnswer(Wire):
    """The next thing the chosen rule wants: a call, the answer, or nothing (go on to a human)."""

    rule: str | None
    call: ToolCall | None = None
    """`id` is `<rule id>-<call id>`."""
    call_id: str | None = None
    """The rule-local id under which the result must be handed back."""
    answer: JsonObject | None = None
    problem: str | None = None
    """Why a rule could not be followed (an expression failed, a call of it failed)."""


class RunClosed(Wire):
    """`run.close`: final record; counts the run's audit records so that omission shows."""

    run: RunRef
    result: RunResult


__all__ = [
    "UPDATE_ACT", "UPDATE_ANSWER", "AnswerAccepted", "AnswerRefused", "ApprovalAction", "ApprovalAnswer",
    "ApprovalClosed", "ApprovalNoted", "ApprovalProgress", "ApprovalRequest", "ApprovalState", "ArtifactRef",
    "CallOpened", "CallRefused", "CallState", "Carried", "Decision", "Delegated", "Escalated", "FileRef", "GateRequest",
    "Hold", "ModelRequested", "Phase", "Question", "Remark", "RulesAnswer", "RulesAsked", "RunClosed", "RunOpened",
    "RunRef", "RunRequest", "RunResult", "RunState", "Rung", "RungChanged", "ToolRun", "WorkspaceOpened",
]  # fmt: skip
