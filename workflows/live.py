"""What one run holds in workflow memory while it works, and how it shows itself to operators."""

from datetime import datetime
from typing import Any

from temporalio import workflow
from temporalio.common import SearchAttributeKey, SearchAttributeUpdate

from policies.switches import Hold
from tools.contract import ToolResult, ToolSpec
from workflows import contracts, ports
from workflows.approvals import Desk
from workflows.contracts import (
    CallState,
    Phase,
    Question,
    Rung,
    RungChanged,
    RunRef,
    RunRequest,
    RunResult,
    RunState,
)
from workflows.held import RunHeld
from workflows.holding import Holds
from workflows.recording import record
from workflows.spending import Spent
from workflows.trail import trail_of

_AUTOMATION = SearchAttributeKey.for_keyword(contracts.SA_AUTOMATION)
_TENANT = SearchAttributeKey.for_keyword(contracts.SA_TENANT)
_PHASE = SearchAttributeKey.for_keyword(contracts.SA_PHASE)
_RUNG = SearchAttributeKey.for_keyword(contracts.SA_RUNG)
_APPROVERS = SearchAttributeKey.for_keyword_list(contracts.SA_APPROVERS)
_DEADLINE = SearchAttributeKey.for_datetime(contracts.SA_DEADLINE)

_DETAIL_CALLS = 20


class LiveRun:
    """One run's state. Collaborators change it; `publish` makes it visible. Lives and dies with the workflow."""

    def __init__(self, request: RunRequest) -> None:
        carried = request.carried
        self.request = request
        self.ref = RunRef(run_id=request.run_id, tenant=request.principal.tenant, automation=request.automation.name)
        self.definition = request.automation.definition
        self.phase = Phase.QUEUED if carried is None else Phase.WORKING
        self.rung = Rung.MODEL if carried is None or carried.model_index == 0 else Rung.FALLBACK_MODEL
        self.model: str | None = None
        self.calls: dict[str, CallState] = {}
        self.spent = Spent.carried(carried)
        self.degraded: list[str] = list(carried.degraded) if carried else []
        self.left_to_rules: str | None = None
        """Why the run goes on by its rules: a question expired whose rule says so."""
        self.sandbox_faults = 0
        """Consecutive calls that found no sandbox; two end the model rung."""
        self.trail = trail_of(request)
        """Taint and provenance: what the gate is told besides the call."""
        self.desk = Desk(request, self.ref, self.publish)
        self.holds = Holds(carried.holds if carried else ())
        self._worked_before_s = carried.worked_s if carried else 0.0
        self._shown: dict[str, object] = {}

    # ------------------------------------------------------------ facts

    def tool(self, name: str) -> ToolSpec | None:
        """The tool of that name, if the automation may ask for it."""
        return self.request.automation.tool(name)

    def key(self, call_id: str) -> str:
        """Idempotency key of a call: survives retries, continued parts and resets."""
        info = workflow.info()
        return f"{info.workflow_id}/{info.first_execution_run_id}/{call_id}"

    def worked_s(self) -> float:
        """Seconds of working time so far, all parts together; time with an open question or frozen does not count."""
        now: datetime = workflow.now()
        part_s = (now - workflow.info().start_time).total_seconds()
        return self._worked_before_s + max(0.0, part_s - self.desk.waited_s(now))

    def state(self) -> RunState:
        """Answer of the `state` query."""
        return RunState(
            phase=self.phase,
            rung=self.rung,
            model=self.model,
            steps=self.spent.steps,
            calls=tuple(self.calls.values()),
            waiting=self.desk.waiting,
        )

    def result(self, phase: Phase, output: contracts.JsonObject | None = None, failure: str | None = None) -> RunResult:
        """How the run ended, artifacts still missing."""
        return RunResult(
            phase=phase,
            rung=self.rung,
            output=output,
            failure=failure,
            model=self.model if self.rung in (Rung.MODEL, Rung.FALLBACK_MODEL) else None,
            steps=self.spent.steps,
            tool_calls=self.spent.tool_calls,
            input_tokens=self.spent.input_tokens,
            output_tokens=self.spent.output_tokens,
            cost_microusd=self.spent.known_cost_microusd,
            degraded=tuple(self.degraded),
        )

    # ------------------------------------------------------------ changes

    def note_call(
        self, call: contracts.ToolCall, *, verdict: str | None = None, result: ToolResult | None = None
    ) -> None:
        """Show what is known of a call."""
        before = self.calls.get(call.id)
        self.calls[call.id] = CallState(
            id=call.id,
            tool=call.tool,
            verdict=verdict or (before.verdict if before else None),
            outcome=result.outcome if result else None,
        )
        self.publish()

    async def degrade(self, to: Rung, reason: str) -> None:
        """Record that the current rung gave up and go one down."""
        changed = RungChanged(run=self.ref, index=len(self.degraded), from_rung=self.rung, to_rung=to, reason=reason)
        self.degraded.append(reason)
        self.rung = to
        self.model = None
        await record(ports.record_rung, changed, f"degrade to {to.value}")
        self.publish()

    async def hold(self, hold: Hold) -> None:
        """Take a switch's word: stand still or go on, and acknowledge it on record. Raises ActivityError."""
        if self.phase.final or not self.holds.take(hold):
            return
        if self.holds.held:
            self.desk.freeze()
        else:
            self.desk.thaw()
        self.publish()
        held = RunHeld(
            run=self.ref, hold=hold, held=self.holds.held, phase=self.phase, questions=self.desk.frozen
        )  # fmt: skip
        await record(ports.hold_run, held, f"{'frozen' if hold.held else 'thawed'} by {hold.switch_id}")

    def enter(self, phase: Phase) -> None:
        """Set the phase of a run that is not waiting, and show it."""
        self.phase = phase
        self.publish()

    def publish(self) -> None:
        """Bring search attributes and current details up to date; costs a history event only where one changed."""
        if not self.phase.final:
            self.phase = self._phase_now()
        waiting = self.desk.waiting
        deadline = min((q.deadline for q in waiting), default=None)
        wanted: list[tuple[str, object, SearchAttributeUpdate[Any]]] = [
            (_AUTOMATION.name, self.ref.automation, _AUTOMATION.value_set(self.ref.automation)),
            (_TENANT.name, self.ref.tenant, _TENANT.value_set(self.ref.tenant)),
            (_PHASE.name, self.phase, _PHASE.value_set(self.phase.value)),
            (_RUNG.name, self.rung, _RUNG.value_set(self.rung.value)),
        ]
        approvers = sorted({q.approvers for q in waiting})
        if approvers or self._shown.get(_APPROVERS.name):
            wanted.append((_APPROVERS.name, approvers, _APPROVERS.value_set(approvers)))
        if deadline or self._shown.get(_DEADLINE.name):
            update = _DEADLINE.value_set(deadline) if deadline else _DEADLINE.value_unset()
            wanted.append((_DEADLINE.name, deadline, update))
        changes = [update for name, value, update in wanted if self._shown.get(name) != value]
        if changes:
            # The stub leaves the update's type parameter open.
            workflow.upsert_search_attributes(changes)  # pyright: ignore[reportUnknownMemberType]
            self._shown.update({name: value for name, value, _ in wanted})
        workflow.set_current_details(self._details())

    def _phase_now(self) -> Phase:
        if self.holds.held:
            return Phase.FROZEN
        questions = {q.question for q in self.desk.waiting}
        if Question.HANDOVER in questions:
            return Phase.AWAITING_HUMAN
        if questions:
            return Phase.AWAITING_APPROVAL
        return Phase.QUEUED if self.phase is Phase.QUEUED else Phase.WORKING

    def _details(self) -> str:
        """Markdown for the Temporal UI: names and states only, never arguments (details are stored in plain text)."""
        stands = f"**{self.phase.value}** on rung **{self.rung.value}**" + (f" ({self.model})" if self.model else "")
        lines = [stands, ""]  # the empty line makes what follows a list
        for q in self.desk.waiting:
            about = f"{q.call.tool} ({q.call.id})" if q.call else q.question.value
            lines.append(
                f"- waiting for **{q.approvers}**: {about}, question `{q.id}`, until {q.deadline:%Y-%m-%d %H:%M} UTC"
            )
        shown = list(self.calls.values())[-_DETAIL_CALLS:]
        lines += [f"- `{call.id}` {call.tool}: {call.outcome or call.verdict or 'asked'}" for call in shown]
        lines += [f"- gave up: {reason}" for reason in self.degraded]
        return "\n".join(lines)
