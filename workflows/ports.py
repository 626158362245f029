"""Typed names of everything a workflow may ask the outside for. Bodies raise: implementations live in worker/activities
under the same names, and a test compares the signatures.

Local activities (queue of runs; a few milliseconds each, idempotent by event id):
  run.open, call.open, call.close, approval.open, approval.note, approval.close, model.record,
  rung.record, rules.next, run.hold, run.close
Remote activity on the queue of runs, the only one there:
  run.commit
Remote activities (sandbox queue; the only ones near Docker):
  workspace.open, tool.run, workspace.close
"""

from temporalio import activity

from policies.decision import Decision
from tools.contract import ToolResult
from workflows.contracts import (
    ApprovalClosed,
    ApprovalNoted,
    ApprovalRequest,
    ArtifactRef,
    CallOpened,
    CallRefused,
    ModelRequested,
    RulesAnswer,
    RulesAsked,
    RunClosed,
    RungChanged,
    RunOpened,
    RunRef,
    ToolRun,
    WorkspaceOpened,
)
from workflows.held import RunHeld


class NotBoundError(RuntimeError):
    """A port was called directly instead of through Temporal."""


@activity.defn(name="run.open")
async def open_run(opened: RunOpened) -> None:
    """Record `run.opened`, mark the run working, and refuse (ApplicationError `untrusted_request`) a run whose answer
    keys are not ours."""
    raise NotBoundError("run.open")


@activity.defn(name="run.commit")
async def commit() -> None:
    """Do nothing. Temporal starts it only once what the run decided before is in the run's history."""
    raise NotBoundError("run.commit")


@activity.defn(name="call.open")
async def open_call(opened: CallOpened) -> Decision:
    """Record `call.intent` (pass 0) durably, ask the gate, record `gate.decided`; a repeat returns the recorded one."""
    raise NotBoundError("call.open")


@activity.defn(name="call.close")
async def close_call(refused: CallRefused) -> ToolResult:
    """Record `call.outcome` unless one is recorded already; return the recorded one."""
    raise NotBoundError("call.close")


@activity.defn(name="approval.open")
async def open_approval(request: ApprovalRequest) -> None:
    """Insert the row for people and record `approval.requested`."""
    raise NotBoundError("approval.open")


@activity.defn(name="approval.close")
async def close_approval(closed: ApprovalClosed) -> None:
    """Set the row's state and record `approval.<state>`."""
    raise NotBoundError("approval.close")


@activity.defn(name="approval.note")
async def note_approval(noted: ApprovalNoted) -> None:
    """Show on the row what happened to a pending question, and record it."""
    raise NotBoundError("approval.note")


@activity.defn(name="model.record")
async def record_model(requested: ModelRequested) -> None:
    """Record `model.requested`."""
    raise NotBoundError("model.record")


@activity.defn(name="rung.record")
async def record_rung(changed: RungChanged) -> None:
    """Record `run.degraded`, and the new rung on the run's row."""
    raise NotBoundError("rung.record")


@activity.defn(name="rules.next")
async def next_by_rules(asked: RulesAsked) -> RulesAnswer:
    """Evaluate the automation's fallback rules. Pure."""
    raise NotBoundError("rules.next")


@activity.defn(name="run.hold")
async def hold_run(held: RunHeld) -> None:
    """Acknowledge a switch: its row, the questions' rows and the run's, and `run.frozen` or `run.thawed`."""
    raise NotBoundError("run.hold")


@activity.defn(name="run.close")
async def close_run(closed: RunClosed) -> None:
    """Record `run.closed` with the run's record count; final state, result and artifacts on the run's row."""
    raise NotBoundError("run.close")


@activity.defn(name="workspace.open")
async def open_workspace(opened: WorkspaceOpened) -> None:
    """Create the run's labelled volume and stage the input files under `in/`. Idempotent."""
    raise NotBoundError("workspace.open")


@activity.defn(name="tool.run")
async def run_tool(run: ToolRun) -> ToolResult:
    """Claim the key in the effect ledger, run the program in a fresh container, store the result and record
    `call.outcome` in one transaction. A repeat returns the stored result. ApplicationError types (non-retryable):
    `outcome_unknown` (an at-most-once call may have happened), `sandbox_unavailable` (no Docker engine answers),
    `refused` (digest mismatch, egress, unknown image)."""
    raise NotBoundError("tool.run")


@activity.defn(name="workspace.close")
async def close_workspace(run: RunRef) -> tuple[ArtifactRef, ...]:
    """Keep the regular files under `out/` as artifacts and remove the volume. Idempotent: a repeat returns the same."""
    raise NotBoundError("workspace.close")
