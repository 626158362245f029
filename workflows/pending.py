"""One question and everything that happens to it until it is decided. No waiting, no clock: the desk brings both.

Each change makes a note that the desk records, so that the row for people and the audit log follow this state.
"""

from collections.abc import Callable
from datetime import datetime

from policies.approval import needed, outcome
from policies.terms import Schedule
from tools.contract import JsonObject, arguments_digest
from workflows.questions import (
    ApprovalAction,
    ApprovalAnswer,
    ApprovalProgress,
    ApprovalRequest,
    ApprovalState,
    Delegated,
    Escalated,
    Remark,
)

Problem = Callable[[ApprovalAnswer], str | None]
Note = tuple[str, str | None, JsonObject, ApprovalProgress]
"""Event type, actor (None: the machinery), body, and where the question stands after it."""

OPEN = (ApprovalState.PENDING, ApprovalState.FROZEN)


class Pending:
    """The state of one question. Final once `open` is false."""

    def __init__(
        self, request: ApprovalRequest, schedule: Schedule, problem: Problem, given: tuple[ApprovalAnswer, ...] = ()
    ) -> None:
        """`given`: answers that count although they were given to the question this one follows."""
        self.request = request
        self.problem = problem
        self.state = ApprovalState.PENDING
        self.progress = ApprovalProgress(answers=given)
        self.answer: ApprovalAnswer | None = None
        """The answer that decided."""
        self.notes: list[Note] = []
        self.commits = False
        """Whether what happens is made durable before it is recorded."""
        self.committed = False
        """Whether its end is."""
        self.ending = False
        """Whether its end is being recorded."""
        self.recorded = 0
        """Up to which change (`progress.seq`) its row and the log show what happened."""
        self.closed = False
        """Whether they show its end."""
        self.over = False
        """Whether nothing more will be recorded, for good or ill."""
        self._schedule = schedule
        self._frozen_at: datetime | None = None

    @property
    def open(self) -> bool:
        """Whether it still waits for somebody."""
        return self.state in OPEN

    @property
    def deadline(self) -> datetime:
        """When it expires; freezes move it."""
        return self._schedule.deadline

    @property
    def next_moment(self) -> datetime | None:
        """When something is due next; None while its clock is stopped."""
        if self._frozen_at is not None:
            return None
        return self._schedule.due[0].at if self._schedule.due else self._schedule.deadline

    def take(self, answer: ApprovalAnswer) -> None:
        """An answer that counts. One denial decides, and so does the last approval that was needed.

        Other arguments than those asked are one person's wish: where several must agree, the question ends here, and
        the edited call is put to the others as it now stands.
        """
        answers = (*self.progress.answers, answer)
        decided = outcome(self.request, answers)
        event = "approval.break_glass" if answer.break_glass else "approval.answered"
        if self._edits(answer) and needed(self.request) > 1:
            self.state, self.answer = ApprovalState.CANCELLED, answer
            self._note(event, answer.principal.id, _said(answer), answers=answers, void="args_changed")
        elif decided is not None:
            self.state, self.answer = ApprovalState(decided), answer
            if answer.break_glass:
                self._note(event, answer.principal.id, _said(answer), answers=answers)
            else:
                self.progress = self.progress.model_copy(update={"answers": answers})
        else:
            self._note(event, answer.principal.id, _said(answer), answers=answers)

    def act(self, action: ApprovalAction, now: datetime) -> None:
        """Something else somebody said, which may count."""
        who, proof = action.principal.id, _proof(action)
        match action.kind:
            case "ask" | "reply":
                remark = Remark(kind=action.kind, by=who, text=action.text, at=now)
                event = "approval.asked_back" if action.kind == "ask" else "approval.replied"
                body: JsonObject = {"text": action.text, **proof}
                self._note(event, who, body, conversation=(*self.progress.conversation, remark))
            case "delegate":
                handed = Delegated(by=who, to=action.to or "", reason=action.text, at=now)
                body = {"to": handed.to, "reason": action.text, **proof}
                self._note("approval.delegated", who, body, delegated=(*self.progress.delegated, handed))
            case "escalate":
                self._escalate(now, by=who, body={"reason": action.text, **proof})

    def reach(self, now: datetime) -> None:
        """Time has come this far: expire, or do what was due. Of several missed reminders one is enough."""
        if now >= self._schedule.deadline:
            self.state = ApprovalState.EXPIRED
            return
        come = [moment for moment in self._schedule.due if moment.at <= now]
        self._schedule = self._schedule._replace(due=self._schedule.due[len(come) :])
        for moment in come:
            if moment.step is not None and moment.step >= len(self.progress.escalated):
                self._escalate(now, by=None, body={})
        if any(moment.step is None for moment in come):
            body: JsonObject = {"deadline": self.deadline.isoformat(), "number": len(self.progress.reminded_at) + 1}
            self._note("approval.reminder", None, body, reminded_at=(*self.progress.reminded_at, now))

    def freeze(self, now: datetime) -> None:
        """Stop its clock and take no answers."""
        if self.state is ApprovalState.PENDING:
            self.state, self._frozen_at = ApprovalState.FROZEN, now

    def thaw(self, now: datetime) -> None:
        """Go on where it was frozen, with as much time left as then."""
        if self.state is ApprovalState.FROZEN and self._frozen_at is not None:
            self._schedule = self._schedule.later(now - self._frozen_at)
            self.state, self._frozen_at = ApprovalState.PENDING, None
            self.request = self.request.model_copy(update={"deadline": self.deadline})

    def withdraw(self) -> None:
        """Nobody is to answer it any more."""
        if self.open:
            self.state = ApprovalState.CANCELLED

    def _escalate(self, now: datetime, *, by: str | None, body: JsonObject) -> None:
        chain = self.request.terms.escalation if self.request.terms else ()
        step = chain[len(self.progress.escalated)]
        to = Escalated(to=step.to, by=by, at=now)
        self._note("approval.escalated", by, {"to": step.to.name, **body}, escalated=(*self.progress.escalated, to))

    def _edits(self, answer: ApprovalAnswer) -> bool:
        call, edited = self.request.call, answer.edited_arguments
        return call is not None and edited is not None and arguments_digest(call.tool, edited) != self.request.digest

    def _note(self, event: str, actor: str | None, body: JsonObject, **changes: object) -> None:
        self.progress = self.progress.model_copy(update={**changes, "seq": self.progress.seq + 1})
        self.notes.append((event, actor, body, self.progress))


def _said(answer: ApprovalAnswer) -> JsonObject:
    return {"verdict": answer.verdict, "reason": answer.reason, **_proof(answer)}


def _proof(said: ApprovalAnswer | ApprovalAction) -> JsonObject:
    """Who said it, for whom, and the signature that proves it."""
    behalf = said.on_behalf_of
    return {
        "principal": said.principal.model_dump(mode="json"),
        "on_behalf_of": None if behalf is None else behalf.model_dump(mode="json"),
        "key_id": said.key_id,
        "signature": said.signature,
    }
