"""A run told afterwards, from its audit records: every call with verdict, rule, answer and outcome, every question."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from api.commands.client import Event

Obj = dict[str, Any]


@dataclass
class CallAccount:
    """What happened to one call."""

    id: str
    tool: str
    arguments: Obj | None
    asked_by: str
    verdict: str = ""
    rule: str = ""
    question: str = ""
    """Id of the approval, when a human was asked."""
    answer: str = ""
    outcome: str = ""
    error: str = ""
    duration_ms: int = 0


@dataclass
class QuestionAccount:
    """One question to humans and how it ended."""

    id: str
    about: str
    role: str
    deadline: str
    asked_at: str
    state: str = "pending"
    by: str = ""
    reason: str = ""
    edited: Obj | None = None
    closed_at: str = ""


@dataclass
class RunAccount:
    """A run from its records, in order."""

    calls: dict[str, CallAccount] = field(default_factory=dict[str, CallAccount])
    questions: dict[str, QuestionAccount] = field(default_factory=dict[str, QuestionAccount])
    models: list[Obj] = field(default_factory=list[Obj])
    degraded: list[Obj] = field(default_factory=list[Obj])
    closed: Obj | None = None
    records: int = 0


def account(events: Iterable[Event]) -> RunAccount:
    """Read a run's records; unknown types are counted and otherwise left alone."""
    told = RunAccount()
    for event in events:
        told.records += 1
        body: Obj = event.record.get("body") or {}
        match event.type:
            case "call.intent":
                call = CallAccount(body["call_id"], body["tool"], body.get("arguments"), body.get("asked_by", ""))
                told.calls[call.id] = call
            case "gate.decided" | "call.outcome":
                _on_call(told, event.type, body)
            case "approval.requested":
                _asked(told, event, body)
            case "approval.approved" | "approval.denied" | "approval.expired" | "approval.cancelled":
                _answered(told, event, body)
            case "model.requested":
                told.models.append(body)
            case "run.degraded":
                told.degraded.append(body)
            case "run.closed":
                told.closed = body
            case _:
                pass
    return told


def _on_call(told: RunAccount, type_: str, body: Obj) -> None:
    call = told.calls.get(body["call_id"])
    if call is None:
        return
    if type_ == "call.outcome":
        call.outcome, call.error = body["outcome"], body.get("error") or ""
        call.duration_ms = body.get("duration_ms") or 0
    elif not body.get("gate_pass") or body["decision"]["verdict"] == "deny":
        call.verdict, call.rule = body["decision"]["verdict"], body["decision"]["rule"]


def _asked(told: RunAccount, event: Event, body: Obj) -> None:
    call: Obj = body.get("call") or {}
    about = f"{body['question']}: {call['tool']}" if call else str(body["question"])
    told.questions[body["approval_id"]] = QuestionAccount(
        body["approval_id"], about, body["approvers"], body["deadline"], event.record["ts"]
    )
    if call.get("call_id") in told.calls:
        told.calls[call["call_id"]].question = body["approval_id"]


def _answered(told: RunAccount, event: Event, body: Obj) -> None:
    question = told.questions.get(body["approval_id"])
    if question is None:
        return
    answer: Obj = body.get("answer") or {}
    edited: Obj = answer.get("edited") or {}
    question.state = event.type.removeprefix("approval.")
    question.by, question.reason = event.record["actor"], answer.get("reason") or ""
    question.edited, question.closed_at = edited.get("arguments"), event.record["ts"]
    for call in told.calls.values():
        if call.question == question.id:
            call.answer = f"{question.state} by {question.by}"
