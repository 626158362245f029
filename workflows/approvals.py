"""The desk: questions a run has put to humans, and the answers it accepts. Workflow state is the truth.

An answer reaches the desk as the `answer` update. Its validator (`Desk.check`) refuses everything that
`policies.approval` refuses, on every route, because it is the only way in; a refused update leaves no event.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import NoReturn

from temporalio import workflow
from temporalio.exceptions import ApplicationError, FailureError

from policies.approval import refusal, verify_signature
from tools.contract import ToolCall, ToolSpec
from workflows import ports
from workflows.contracts import (
    AnswerAccepted,
    AnswerRefused,
    ApprovalAnswer,
    ApprovalClosed,
    ApprovalRequest,
    ApprovalState,
    Question,
    RunRef,
    RunRequest,
)
from workflows.held import FrozenQuestion
from workflows.recording import record

_WORDS = {
    AnswerRefused.NOT_FOUND: "the run has no such question",
    AnswerRefused.ALREADY_DECIDED: "the question is already decided",
    AnswerRefused.EXPIRED: "the deadline has passed",
    AnswerRefused.CANCELLED: "the question was withdrawn",
    AnswerRefused.ARGS_CHANGED: "the answer is for other arguments than those asked now",
    AnswerRefused.SELF_APPROVAL: "the run's requester may not answer",
    AnswerRefused.NOT_AN_APPROVER: "the answer needs a role its author does not have",
    AnswerRefused.BAD_SIGNATURE: "the answer is not signed by a key this run trusts",
    AnswerRefused.FROZEN: "a kill switch holds the run",
}


_OPEN = (ApprovalState.PENDING, ApprovalState.FROZEN)


@dataclass(frozen=True)
class Draft:
    """A question before it is put: who may answer, by when, and what a valid answer must contain."""

    question: Question
    digest: str
    approvers: str
    deadline_s: int
    reason: str = ""
    rule: str = ""
    policy_version: str = ""
    call: ToolCall | None = None
    tool: ToolSpec | None = None
    problem: Callable[[ApprovalAnswer], str | None] = field(default=lambda _: None)
    """What is wrong with an answer's own content (edited arguments, output), naming the field."""


@dataclass
class _Entry:
    request: ApprovalRequest
    problem: Callable[[ApprovalAnswer], str | None]
    state: ApprovalState = ApprovalState.PENDING
    answer: ApprovalAnswer | None = None


class Desk:
    """All questions of one part of a run. `changed` is called whenever the set of pending questions changes."""

    def __init__(self, request: RunRequest, ref: RunRef, changed: Callable[[], None]) -> None:
        self._run = request
        self._ref = ref
        self._changed = changed
        self._entries: dict[str, _Entry] = {}
        self._before = request.carried.questions if request.carried else 0
        self._waited = timedelta()
        self._waiting_since: datetime | None = None
        self._frozen_at: datetime | None = None

    @property
    def asked(self) -> int:
        """Questions put so far, former parts included."""
        return self._before + len(self._entries)

    @property
    def waiting(self) -> tuple[ApprovalRequest, ...]:
        """Questions nobody has answered yet, frozen ones too, oldest first."""
        return tuple(e.request for e in self._entries.values() if e.state in _OPEN)

    @property
    def frozen(self) -> tuple[FrozenQuestion, ...]:
        """The open questions as the list for people has to show them."""
        open_ = [e for e in self._entries.values() if e.state in _OPEN]
        return tuple(
            FrozenQuestion(approval_id=e.request.id, state=e.state, deadline=e.request.deadline) for e in open_
        )

    def waited_s(self, now: datetime) -> float:
        """Seconds of this part during which a question was open or the run was frozen."""
        open_for = now - self._waiting_since if self._waiting_since else timedelta()
        return (self._waited + open_for).total_seconds()

    def freeze(self) -> None:
        """Stop the clock of every open question; answers are refused. Freezing twice is freezing once."""
        if self._frozen_at is not None:
            return
        self._frozen_at = workflow.now()
        self._since(self._frozen_at)
        for entry in self._entries.values():
            if entry.state is ApprovalState.PENDING:
                entry.state = ApprovalState.FROZEN

    def thaw(self) -> None:
        """Let the clocks go on where they stood: deadlines move by the time that was frozen."""
        if self._frozen_at is None:
            return
        stood, self._frozen_at = workflow.now() - self._frozen_at, None
        for entry in self._entries.values():
            if entry.state is ApprovalState.FROZEN:
                entry.state = ApprovalState.PENDING
                entry.request = entry.request.model_copy(update={"deadline": entry.request.deadline + stood})
        self._idle_over()

    async def ask(self, draft: Draft) -> ApprovalAnswer | None:
        """Put a question and wait for its answer; None when the deadline passed. The deadline can only deny.

        On cancellation or a fault the question is withdrawn before the exception goes on.
        """
        entry = self._put(draft)
        try:
            await record(ports.open_approval, entry.request, f"ask {entry.request.id}")
            await self._decided(entry)
        except (asyncio.CancelledError, FailureError):
            self._settle(entry, ApprovalState.CANCELLED)
            await self._close(entry)
            raise
        if entry.answer is None:
            self._settle(entry, ApprovalState.EXPIRED)
        await self._close(entry)
        return entry.answer

    def check(self, answer: ApprovalAnswer) -> None:
        """Validator of the `answer` update: raises ApplicationError whose type is an `AnswerRefused` value."""
        entry = self._entries.get(answer.approval_id)
        if entry is None:
            _refuse(self._unknown(answer))
        why = refusal(entry.request, answer, self._run.answer_keys, workflow.now(), entry.state.value)
        if why is not None:
            _refuse(AnswerRefused(why))
        if answer.verdict == "approve" and (problem := entry.problem(answer)) is not None:
            _refuse(AnswerRefused.INVALID_ARGUMENTS, problem)

    def accept(self, answer: ApprovalAnswer) -> AnswerAccepted:
        """Take a checked answer. From here on nothing can decide the question differently."""
        entry = self._entries[answer.approval_id]
        entry.answer = answer
        self._settle(entry, ApprovalState.APPROVED if answer.verdict == "approve" else ApprovalState.DENIED)
        return AnswerAccepted(approval_id=answer.approval_id, state=entry.state)

    async def _decided(self, entry: _Entry) -> None:
        """Wait for the answer or the deadline.

        The timer only wakes us: when it fires in the same workflow task as an accepted answer arrives, the answer
        wins, because its sender was told so. `check` refuses every answer after the deadline. While the question is
        frozen there is no timer at all.
        """
        what = entry.request.call.tool if entry.request.call else entry.request.question.value
        while entry.answer is None:
            if entry.state is ApprovalState.FROZEN:
                await workflow.wait_condition(lambda: entry.state is not ApprovalState.FROZEN)
            try:
                await workflow.wait_condition(
                    lambda: entry.answer is not None or entry.state is ApprovalState.FROZEN,
                    timeout=max(entry.request.deadline - workflow.now(), timedelta()),
                    timeout_summary=f"deadline of {entry.request.id}: {what}",
                )
            except TimeoutError:
                if entry.state is not ApprovalState.FROZEN:  # a switch that came with the deadline stops the clock
                    return

    def _put(self, draft: Draft) -> _Entry:
        now = workflow.now()
        request = ApprovalRequest(
            id=f"{self._run.run_id}.{self.asked + 1}",
            run_id=self._run.run_id,
            question=draft.question,
            tenant=self._ref.tenant,
            automation=self._ref.automation,
            requester=self._run.principal.id,
            call=draft.call,
            tool_version=draft.tool.version if draft.tool else None,
            effect=draft.tool.effect.value if draft.tool else None,
            digest=draft.digest,
            rule=draft.rule,
            reason=draft.reason,
            policy_version=draft.policy_version,
            approvers=draft.approvers,
            requested_at=now,
            deadline=now + timedelta(seconds=draft.deadline_s),
        )
        entry = _Entry(request, draft.problem)
        if self._frozen_at is not None:
            # Its clock has not begun to run: thawing must not give it more time than it was drafted with.
            request = request.model_copy(update={"deadline": request.deadline - (now - self._frozen_at)})
            entry = _Entry(request, draft.problem, ApprovalState.FROZEN)
        self._entries[request.id] = entry
        self._since(now)
        self._changed()
        return entry

    def _settle(self, entry: _Entry, state: ApprovalState) -> None:
        if entry.state not in _OPEN:
            return
        entry.state = state
        self._idle_over()
        self._changed()

    def _since(self, now: datetime) -> None:
        if self._waiting_since is None:
            self._waiting_since = now

    def _idle_over(self) -> None:
        """Count the waiting, once nothing is open and nothing frozen any more."""
        if not self.waiting and self._frozen_at is None and self._waiting_since is not None:
            self._waited += workflow.now() - self._waiting_since
            self._waiting_since = None

    async def _close(self, entry: _Entry) -> None:
        closed = ApprovalClosed(run=self._ref, approval_id=entry.request.id, state=entry.state, answer=entry.answer)
        await record(ports.close_approval, closed, f"{entry.request.id} {entry.state.value}")

    def _unknown(self, answer: ApprovalAnswer) -> AnswerRefused:
        """Why an answer to a question this part does not know is refused; a former part's questions are all decided."""
        if not verify_signature(answer, self._run.answer_keys):
            return AnswerRefused.BAD_SIGNATURE
        number = answer.approval_id.removeprefix(f"{self._run.run_id}.")
        if number.isascii() and number.isdigit() and 1 <= int(number) <= self._before:
            return AnswerRefused.ALREADY_DECIDED
        return AnswerRefused.NOT_FOUND


def _refuse(why: AnswerRefused, detail: str | None = None) -> NoReturn:
    raise ApplicationError(detail or _WORDS[why], type=why.value, non_retryable=True)
