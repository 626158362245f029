"""One tool call from intent to outcome. Every call goes through `tool_call`, whoever asks: model, rule or edit.

Runs in workflow code, so the path below is the whole path: there is no hook to forget and no other way to a sandbox.
"""

import asyncio
from datetime import timedelta
from typing import Literal

from temporalio import workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import ActivityError, is_cancelled_exception

from policies.decision import Decision, Facts, GateRequest, Verdict
from policies.switches import KILL_SWITCH
from tools.contract import RECONCILE_S, Outcome, Repeat, ToolCall, ToolResult, ToolSpec, arguments_digest
from workflows import ports
from workflows.approvals import Draft, Ending
from workflows.contracts import (
    QUEUE_SANDBOX,
    ApprovalAnswer,
    ApprovalState,
    CallOpened,
    CallRefused,
    Question,
    ToolRun,
)
from workflows.faults import OUTCOME_UNKNOWN, REFUSED, SANDBOX_UNAVAILABLE, STOPPED, tool_fault
from workflows.live import LiveRun
from workflows.recording import record
from workflows.schemas import problems

AskedBy = Literal["model", "rules"]

HEARTBEAT = timedelta(seconds=5)
START_MARGIN_S = 30.0
"""On top of the tool's own limit: preparing and removing the container, storing the result."""


async def tool_call(run: LiveRun, call: ToolCall, asked_by: AskedBy) -> ToolResult:
    """Take a call from intent to outcome and return what the asker reads.

    Arguments that do not fit the tool's schema go straight back, before any intent. Otherwise: record the intent and
    ask the gate; while the gate asks for a human, put the question and gate again what was answered (edited arguments
    under their new value; and always again right before running, as days may have passed); run in the sandbox; an
    uncertain outcome of a call that may not be repeated is a human's to decide. Each intent gets exactly one outcome:
    from the sandbox, or recorded here when the call is refused, cancelled or broken. Raises only when the run is
    cancelled or cannot record.
    """
    tool = run.tool(call.tool)
    problem = f"unknown tool {call.tool!r}" if tool is None else problems(tool.parameters, call.arguments, "arguments")
    if tool is None or problem is not None:
        return ToolResult(outcome=Outcome.FAILED, content=f"Not run: {problem}", error="invalid_arguments")
    passage = _Passage(run, tool, call, asked_by)
    try:
        result = await passage.run(await passage.permission())
        while result is None:
            if passage.uncertain:
                await passage.order_to_repeat()
            result = await passage.run(await passage.permission())
    except _RefusedError as refused:
        result = await passage.close(refused.result)
    except (Exception, asyncio.CancelledError) as fault:
        await passage.close(passage.abandoned(cancelled=is_cancelled_exception(fault)))
        raise
    run.note_call(passage.call, result=result)
    return result


class _RefusedError(Exception):
    """The call will not run (again); `result` is its outcome."""

    def __init__(self, result: ToolResult) -> None:
        super().__init__(result.content)
        self.result = result


class _Passage:
    """One call on its way: its current arguments, how often it was gated and run, and who approved what."""

    def __init__(self, run: LiveRun, tool: ToolSpec, call: ToolCall, asked_by: AskedBy) -> None:
        self.call = call
        self._run = run
        self._tool = tool
        self._asked_by: AskedBy = asked_by
        self._gate_pass = 0
        self._generation = 1
        self._approved: tuple[str, object] | None = None
        """Digest of the arguments humans approved, and whose answers were asked for."""
        self._approval_id: str | None = None
        """The question to which they said so."""
        self._asked: tuple[Decision, Ending] | None = None
        """The last question about the call, and how it ended."""
        self._seen = Facts()
        self._uncertain: str | None = None
        """Why it is not known whether the call took effect."""
        self._before = run.trail.count(tool.name)
        """Calls of the run before this one, in all and of this tool."""

    @property
    def _digest(self) -> str:
        return arguments_digest(self.call.tool, self.call.arguments)

    @property
    def uncertain(self) -> bool:
        """Whether nobody knows if the call took effect."""
        return self._uncertain is not None

    async def permission(self) -> Decision:
        """The decision that lets the call run now, as it stands now. Raises _RefusedError."""
        while True:
            decision = await self._decision()
            match decision.verdict:
                case Verdict.ALLOW:
                    return decision
                case Verdict.ASK if self._approved == (self._digest, decision.demands):
                    return decision
                case Verdict.ASK:
                    await self._ask(decision)
                case Verdict.DENY:
                    reason = f": {decision.reason}" if decision.reason else "."
                    raise self._refused(Outcome.DENIED, "policy", f"Denied by policy rule {decision.rule}{reason}")

    async def run(self, decision: Decision) -> ToolResult | None:
        """Run the call once in the sandbox; None when nobody knows whether it took effect, or when a switch that came
        after the gate kept it from beginning. Raises _RefusedError."""
        order = ToolRun(
            run=self._run.ref, key=self._run.key(self.call.id), call=self.call, digest=self._digest, tool=self._tool,
            rule=decision.rule, generation=self._generation, gate_pass=self._gate_pass - 1,
            approval_id=self._approval_id,
        )  # fmt: skip
        try:
            result = await in_sandbox(order, timedelta(seconds=self._run.request.sandbox_wait_s))
        except ActivityError as error:
            if is_cancelled_exception(error):
                raise
            fault = tool_fault(error, self._tool)
            self._run.sandbox_faults = self._run.sandbox_faults + 1 if fault.kind == SANDBOX_UNAVAILABLE else 0
            if fault.uncertain:
                self._uncertain = fault.message
                return None
            if fault.kind == STOPPED:
                return None
            raise self._refused(Outcome.FAILED, fault.kind, fault.message) from error
        self._run.sandbox_faults = 0
        self._run.trail.saw(self._tool, self.call.arguments, result.content)
        return result

    async def order_to_repeat(self) -> None:
        """Ask a human whether a call of unknown outcome runs once more. Raises _RefusedError unless ordered."""
        decision = await self._decision()
        if decision.verdict is Verdict.DENY:
            raise self._refused(Outcome.UNKNOWN, "policy", "Policy forbids to repeat it.")
        ending = await self._run.desk.ask(
            self._draft(Question.UNKNOWN_OUTCOME, decision, reason=self._uncertain or "outcome unknown")
        )
        answer = ending.answer
        if answer is None:
            raise self._refused(Outcome.UNKNOWN, "deadline", "Nobody decided in time.")
        if answer.verdict == "deny":
            raise self._refused(Outcome.UNKNOWN, "human", f"{_said(answer)} not to repeat it")
        self._approved, self._approval_id = (self._digest, decision.demands), ending.id
        self._generation += 1

    async def close(self, result: ToolResult) -> ToolResult:
        """Record the outcome of a call that did not end in the sandbox; returns the one that stands."""
        refused = CallRefused(
            run=self._run.ref, key=self._run.key(self.call.id), call_id=self.call.id, tool=self.call.tool, result=result
        )
        return await record(ports.close_call, refused, f"{self.call.id} {result.outcome.value}")

    def abandoned(self, *, cancelled: bool) -> ToolResult:
        """The outcome of a call that ends because its run does."""
        if self._uncertain is not None:
            return ToolResult(outcome=Outcome.UNKNOWN, content=self._uncertain, error=OUTCOME_UNKNOWN)
        if cancelled:
            return ToolResult(outcome=Outcome.CANCELLED, content="The run was cancelled.", error="cancelled")
        return ToolResult(outcome=Outcome.FAILED, content="The run failed before the call could end.", error="fault")

    async def _decision(self) -> Decision:
        """What the gate says, once no switch holds the run. A switch that holds the run refuses nothing: it delays."""
        while True:
            await self._run.holds.over()
            decision = await self._gate()
            if decision.rule != KILL_SWITCH or not await self._run.holds.begun():
                return decision

    async def _gate(self) -> Decision:
        """Ask the gate about the call as it stands; the first time this records the intent before anything else."""
        opened = CallOpened(
            run=self._run.ref, call=self.call, digest=self._digest, asked_by=self._asked_by, gate_pass=self._gate_pass,
            request=GateRequest(
                principal=self._run.request.principal, automation=self._run.ref.automation, tool=self._tool.name,
                effect=self._tool.effect, arguments=self.call.arguments, facts=self._look(),
            ),
        )  # fmt: skip
        self._gate_pass += 1
        decision = await record(ports.open_call, opened, f"gate {self.call.tool} {self.call.id}")
        self._run.note_call(self.call, verdict=decision.verdict.value)
        return decision

    def _look(self) -> Facts:
        """What the run has read and done so far; asked for again at each pass, as other calls go on meanwhile."""
        run = self._run
        left = run.spent.left_usd(run.definition.budgets)
        self._seen = run.trail.facts(
            self._tool, self.call, before=self._before, budget_left_usd=left, now=workflow.now()
        )
        return self._seen

    async def _ask(self, decision: Decision) -> None:
        """Put the call to humans and take over what was answered. Raises _RefusedError on a no or no answer."""
        ending = await self._run.desk.ask(self._draft(Question.CALL, decision, reason=decision.reason))
        self._asked = decision, ending
        answer = ending.answer
        if answer is None:
            if decision.terms is not None and decision.terms.on_expiry == "fallback":
                self._run.left_to_rules = f"nobody answered {ending.id} before its deadline"
            raise self._refused(Outcome.EXPIRED, "deadline", "Nobody approved the call before its deadline.")
        if answer.verdict == "deny":
            raise self._refused(Outcome.DENIED, "human", f"{_said(answer)} no")
        if answer.edited_arguments is not None:
            self.call = self.call.model_copy(update={"arguments": answer.edited_arguments})
        self._approved, self._approval_id = None, None
        if ending.state is ApprovalState.APPROVED:
            self._approved, self._approval_id = (self._digest, decision.demands), ending.id

    def _draft(self, question: Question, decision: Decision, *, reason: str) -> Draft:
        return Draft(
            question=question, digest=self._digest, approvers=decision.approvers, reason=reason, rule=decision.rule,
            deadline_s=self._run.definition.approvals.deadline_s, policy_version=decision.policy_version,
            call=self.call, tool=self._tool, terms=decision.terms,
            problem=self._problem_of_edit if question is Question.CALL else _no_edit,
            shown={
                "tainted": self._seen.tainted, "origins": self._seen.arguments,
                "read": self._run.trail.others(self._tool), **self._again(decision),
            },
            given=self._given(decision) if question is Question.CALL else (),
        )  # fmt: skip

    def _again(self, decision: Decision) -> dict[str, str]:
        """Why the call is put to people once more, when it is."""
        if self._asked is None:
            return {}
        before, ending = self._asked
        edited = ending.answer is not None and ending.answer.edited_arguments is not None
        because = "edited" if edited else "facts_changed"
        if before.policy_version != decision.policy_version:
            because = "policy_changed"
        return {"because": because, "follows": ending.id}

    def _given(self, decision: Decision) -> tuple[ApprovalAnswer, ...]:
        """Whoever edited the call has approved it as it now stands, as long as the same people are asked by the same
        policy."""
        if self._asked is None:
            return ()
        before, ending = self._asked
        same = (before.policy_version, before.demands) == (decision.policy_version, decision.demands)
        edited = ending.state is ApprovalState.CANCELLED and ending.answer is not None
        return (ending.answer,) if ending.answer is not None and edited and same else ()

    def _problem_of_edit(self, answer: ApprovalAnswer) -> str | None:
        if answer.edited_arguments is None:
            return None
        return problems(self._tool.parameters, answer.edited_arguments, "edited_arguments")

    def _refused(self, outcome: Outcome, error: str, content: str) -> _RefusedError:
        if self._uncertain is not None:
            # Whatever stopped the repetition, the first time may have taken effect.
            outcome, content = Outcome.UNKNOWN, f"{self._uncertain} {content}"
        return _RefusedError(ToolResult(outcome=outcome, content=content, error=error))


def _no_edit(answer: ApprovalAnswer) -> str | None:
    return None if answer.edited_arguments is None else "edited_arguments: what is repeated cannot be changed"


def _said(answer: ApprovalAnswer) -> str:
    reason = f" ({answer.reason})" if answer.reason else ""
    return f"{answer.principal.id} answered{reason}:"


async def in_sandbox(order: ToolRun, wait: timedelta) -> ToolResult:
    """Run the call on a sandbox worker that takes it within `wait`. Raises ActivityError with one of the port's error
    types."""
    tool = order.tool
    return await workflow.execute_activity(
        ports.run_tool,
        order,
        task_queue=QUEUE_SANDBOX,
        schedule_to_start_timeout=wait,
        start_to_close_timeout=timedelta(seconds=tool.limits.timeout_s + START_MARGIN_S + _looking_s(tool)),
        heartbeat_timeout=HEARTBEAT,
        cancellation_type=workflow.ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
        retry_policy=RetryPolicy(
            initial_interval=timedelta(milliseconds=500),
            backoff_coefficient=2,
            maximum_interval=timedelta(seconds=10),
            # A later attempt of an at-most-once call first looks what became of the one before.
            maximum_attempts=3 if tool.repeat is Repeat.AT_MOST_ONCE else 5,
            non_retryable_error_types=[OUTCOME_UNKNOWN, SANDBOX_UNAVAILABLE, REFUSED, STOPPED],
        ),
        summary=f"{tool.name}@{tool.version} {order.call.id}",
    )


def _looking_s(tool: ToolSpec) -> float:
    return RECONCILE_S if tool.reconcile_sha256 else 0.0
