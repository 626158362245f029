"""The desk: questions a run has put to humans, and the answers it accepts. Workflow state is the truth.

What people say reaches the desk as the updates `answer` and `act`. Their validators (`Desk.check`, `Desk.check_action`)
refuse everything that `policies.approval` refuses, on every route, because they are the only way in; a refused update
leaves no event.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, NamedTuple, NoReturn

from temporalio import workflow
from temporalio.exceptions import ApplicationError, FailureError

from policies.approval import action_refusal, refusal, verify_signature
from policies.terms import Schedule, Terms, schedule
from tools.contract import ToolCall, ToolSpec
from workflows import ports
from workflows.concurrency import settled, through_cancellation
from workflows.contracts import (
    AnswerAccepted,
    AnswerRefused,
    ApprovalAction,
    ApprovalAnswer,
    ApprovalClosed,
    ApprovalNoted,
    ApprovalRequest,
    ApprovalState,
    Question,
    RunRef,
    RunRequest,
)
from workflows.held import FrozenQuestion
from workflows.pending import Pending, Problem
from workflows.recording import committed, record

_WORDS = {
    AnswerRefused.NOT_FOUND: "the run has no such question",
    AnswerRefused.ALREADY_DECIDED: "the question is already decided",
    AnswerRefused.EXPIRED: "the deadline has passed",
    AnswerRefused.CANCELLED: "the question was withdrawn",
    AnswerRefused.ARGS_CHANGED: "the answer is for other arguments, or another version of the tool, than asked now",
    AnswerRefused.POLICY_CHANGED: "the answer is for a question under another policy",
    AnswerRefused.FROZEN: "a kill switch holds the run",
    AnswerRefused.ALREADY_ANSWERED: "this person, or the one they stand for, has answered already",
    AnswerRefused.INVALID_ARGUMENTS: "what was said does not fit the question",
    AnswerRefused.SELF_APPROVAL: "the run's requester may not answer",
    AnswerRefused.NOT_AN_APPROVER: "its author is not among those who may answer",
    AnswerRefused.BAD_SIGNATURE: "the answer is not signed by a key this run trusts",
}


_COMMITTED = "answers-committed"


@dataclass(frozen=True)
class Draft:
    """A question before it is put: who may answer, by when, and what a valid answer must contain."""

    question: Question
    digest: str
    approvers: str
    deadline_s: int
    """Where the terms name no deadline."""
    reason: str = ""
    rule: str = ""
    policy_version: str = ""
    call: ToolCall | None = None
    tool: ToolSpec | None = None
    terms: Terms | None = None
    problem: Problem = field(default=lambda _: None)
    """What is wrong with an answer's own content (edited arguments, output), naming the field."""
    shown: dict[str, Any] = field(default_factory=dict[str, Any])
    """Further fields of the request, for those who look at it."""
    given: tuple[ApprovalAnswer, ...] = ()
    """Answers to the question this one follows that count here."""


class Ending(NamedTuple):
    """How a question ended."""

    id: str
    state: ApprovalState
    answer: ApprovalAnswer | None
    """The answer that decided, or the edit for which it was withdrawn; None when there was none in time."""


class Desk:
    """All questions of one part of a run. `changed` is called whenever the set of pending questions changes."""

    def __init__(self, request: RunRequest, ref: RunRef, changed: Callable[[], None]) -> None:
        self._run = request
        self._ref = ref
        self._changed = changed
        self._entries: dict[str, Pending] = {}
        self._before = request.carried.questions if request.carried else 0
        self._frozen = False
        self._waited = timedelta()
        self._waiting_since: datetime | None = None
        self._frozen_at: datetime | None = None

    @property
    def asked(self) -> int:
        """Questions put so far, former parts included."""
        return self._before + len(self._entries)

    @property
    def waiting(self) -> tuple[ApprovalRequest, ...]:
        """Questions nobody has decided yet, frozen ones too, oldest first."""
        return tuple(e.request for e in self._entries.values() if e.open)

    @property
    def frozen(self) -> tuple[FrozenQuestion, ...]:
        """The open questions as the list for people has to show them."""
        open_ = [e for e in self._entries.values() if e.open]
        return tuple(FrozenQuestion(approval_id=e.request.id, state=e.state, deadline=e.deadline) for e in open_)

    def waited_s(self, now: datetime) -> float:
        """Seconds of this part during which a question was open or the run was frozen."""
        open_for = now - self._waiting_since if self._waiting_since else timedelta()
        return (self._waited + open_for).total_seconds()

    async def ask(self, draft: Draft) -> Ending:
        """Put a question and wait for its end. A deadline can only deny.

        On cancellation or a fault the question is withdrawn before the exception goes on.
        """
        entry = self._put(draft)
        # Runs that began before there was a commit go on without one.
        entry.commits = workflow.patched(_COMMITTED)
        try:
            await self._commit(entry)
            await record(ports.open_approval, entry.request, f"ask {entry.request.id}")
            await self._decided(entry)
            await (settled(self._end(entry)) if entry.commits else self._end(entry))
        except (asyncio.CancelledError, FailureError):
            if not entry.ending:
                entry.withdraw()
                self._settled()
                await (through_cancellation(self._end(entry)) if entry.commits else self._end(entry))
            raise
        finally:
            entry.over = True
        return Ending(entry.request.id, entry.state, entry.answer)

    def check(self, answer: ApprovalAnswer) -> None:
        """Validator of the `answer` update: raises ApplicationError whose type is an `AnswerRefused` value."""
        entry = self._entries.get(answer.approval_id)
        if entry is None:
            _refuse(self._unknown(answer))
        keys, now = self._run.answer_keys, workflow.now()
        why = refusal(entry.request, answer, keys, now, _state(entry), entry.progress)
        if why is not None:
            _refuse(AnswerRefused(why))
        if answer.break_glass and answer.edited_arguments is not None:
            _refuse(AnswerRefused.INVALID_ARGUMENTS, "edited_arguments: an emergency runs what was asked, or nothing")
        if answer.verdict == "approve" and (problem := entry.problem(answer)) is not None:
            _refuse(AnswerRefused.INVALID_ARGUMENTS, problem)

    async def accept(self, answer: ApprovalAnswer) -> AnswerAccepted:
        """Take a checked answer, and return once it is on record: from then on nothing can undo it."""
        entry = self._entries[answer.approval_id]
        entry.take(answer)
        self._settled()
        return await _on_record(entry)

    def check_action(self, action: ApprovalAction) -> None:
        """Validator of the `act` update, as `check`."""
        entry = self._entries.get(action.approval_id)
        if entry is None:
            _refuse(AnswerRefused.NOT_FOUND)
        keys, now = self._run.answer_keys, workflow.now()
        why = action_refusal(entry.request, action, keys, now, _state(entry), entry.progress)
        if why is not None:
            _refuse(AnswerRefused(why))
        if action.kind in ("ask", "reply") and not action.text.strip():
            _refuse(AnswerRefused.INVALID_ARGUMENTS, "text: say something")

    async def act(self, action: ApprovalAction) -> AnswerAccepted:
        """Take a checked action, as `accept`."""
        entry = self._entries[action.approval_id]
        entry.act(action, workflow.now())
        return await _on_record(entry)

    def freeze(self) -> None:
        """Stop the clocks of all questions, of those still to be put too, and take no answers until `thaw`."""
        if not self._frozen:
            self._frozen = True
            self._since(workflow.now())
            for entry in self._entries.values():
                entry.freeze(workflow.now())

    def thaw(self) -> None:
        """Go on: each question has as much time left as when it was frozen."""
        if self._frozen:
            self._frozen = False
            for entry in self._entries.values():
                entry.thaw(workflow.now())
            self._idle_over()

    async def _decided(self, entry: Pending) -> None:
        """Wait for the end, and meanwhile record what happens and do what is due.

        A timer only wakes us: when it fires in the same workflow task as an accepted answer arrives, the answer wins,
        because its sender was told so. `check` refuses every answer after the deadline.
        """
        while await self._noted(entry):
            moment = entry.next_moment
            what = entry.request.call.tool if entry.request.call else entry.request.question.value
            last = moment == entry.deadline
            try:
                await workflow.wait_condition(
                    lambda: not entry.open or bool(entry.notes) or entry.next_moment != moment,  # noqa: B023  (awaited here)
                    timeout=None if moment is None else max(moment - workflow.now(), timedelta()),
                    timeout_summary=f"{'deadline' if last else 'reminder'} of {entry.request.id}: {what}",
                )
            except TimeoutError:
                # The server's clock may be a little behind the moment its own timer was set for. A switch that came
                # together with it stops the clock all the same.
                if moment is not None and entry.state is ApprovalState.PENDING:
                    entry.reach(max(moment, workflow.now()))
                    self._settled()

    def _put(self, draft: Draft) -> Pending:
        now = workflow.now()
        terms = draft.terms
        plain = Schedule(now + timedelta(seconds=draft.deadline_s), ())
        moments = plain if terms is None else schedule(terms, now, draft.deadline_s)
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
            deadline=moments.deadline,
            terms=terms,
            **draft.shown,
        )
        entry = Pending(request, moments, draft.problem, draft.given)
        self._entries[request.id] = entry
        if self._frozen:
            entry.freeze(now)
        self._since(now)
        self._changed()
        return entry

    def _settled(self) -> None:
        """Something may have ended: show it."""
        self._idle_over()
        self._changed()

    def _since(self, now: datetime) -> None:
        if self._waiting_since is None:
            self._waiting_since = now

    def _idle_over(self) -> None:
        """Count the waiting, once nothing is open and nothing frozen any more."""
        if not self.waiting and not self._frozen and self._waiting_since is not None:
            self._waited += workflow.now() - self._waiting_since
            self._waiting_since = None

    async def _noted(self, entry: Pending) -> bool:
        """Record what happened, in its order; whether the question still waits."""
        while entry.notes:
            kept = len(entry.notes)
            await self._commit(entry)
            for _ in range(kept):
                event, actor, body, progress = entry.notes.pop(0)
                noted = ApprovalNoted(
                    run=self._ref, approval_id=entry.request.id, event=event, actor=actor, body=body,
                    progress=progress,
                )  # fmt: skip
                await record(ports.note_approval, noted, f"{entry.request.id} {event.removeprefix('approval.')}")
                if progress.seq == entry.recorded + 1:
                    entry.recorded = progress.seq
        return entry.open

    async def _end(self, entry: Pending) -> None:
        """Record the end, and what happened before."""
        entry.ending = True
        await self._noted(entry)
        if not entry.committed:
            await self._commit(entry)
        closed = ApprovalClosed(
            run=self._ref, approval_id=entry.request.id, state=entry.state, answer=entry.answer,
            progress=entry.progress,
        )  # fmt: skip
        await record(ports.close_approval, closed, f"{entry.request.id} {entry.state.value}")
        entry.closed = True

    async def _commit(self, entry: Pending) -> None:
        """What the list and the log are about to show must not be decided anew, perhaps otherwise, after a crash."""
        if entry.commits:
            ended = not entry.open
            await committed(entry.request.id)
            entry.committed = ended

    def _unknown(self, answer: ApprovalAnswer) -> AnswerRefused:
        """Why an answer to a question this part does not know is refused; a former part's questions are all decided."""
        if not verify_signature(answer, self._run.answer_keys):
            return AnswerRefused.BAD_SIGNATURE
        number = answer.approval_id.removeprefix(f"{self._run.run_id}.")
        if number.isascii() and number.isdigit() and 1 <= int(number) <= self._before:
            return AnswerRefused.ALREADY_DECIDED
        return AnswerRefused.NOT_FOUND


def _state(entry: Pending) -> str:
    """Where a question stands for those who answer now: withdrawn as soon as the run has heard that it is cancelled,
    though it learns of that itself only once it has recorded what happened to it before."""
    cancelled = entry.open and workflow.cancellation_reason() is not None
    return ApprovalState.CANCELLED.value if cancelled else entry.state.value


async def _on_record(entry: Pending) -> AnswerAccepted:
    """What the sender of something just taken is told, once the row and the log show it."""
    accepted = AnswerAccepted(approval_id=entry.request.id, state=entry.state, seq=entry.progress.seq)

    def shown() -> bool:
        return entry.recorded >= accepted.seq and (accepted.state is ApprovalState.PENDING or entry.closed)

    if entry.commits:
        await workflow.wait_condition(lambda: entry.over or shown())
        if not shown():
            raise ApplicationError("it could not be recorded, so nothing follows from it", non_retryable=True)
    return accepted


def _refuse(why: AnswerRefused, detail: str | None = None) -> NoReturn:
    raise ApplicationError(detail or _WORDS[why], type=why.value, non_retryable=True)
