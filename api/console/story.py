"""A run as a timeline: its audit records, each in a few plain words, with what belongs to it folded away."""

from collections.abc import Sequence
from datetime import datetime
from typing import cast

from pydantic import JsonValue

from tools.contract import JsonObject, Wire
from worker.store.audit import AuditRecord


class Step(Wire):
    """One record."""

    seq: int
    at: datetime
    type: str
    title: str
    subject: str = ""
    """A tool, a model, a rung."""
    state: str = ""
    """A verdict, an answer or an outcome: how it is coloured."""
    note: str = ""
    link: str = ""
    body: JsonObject


class Spent(Wire):
    """What the run has used so far."""

    requests: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost_microusd: int | None = 0
    calls: int = 0


def steps(records: Sequence[AuditRecord]) -> list[Step]:
    """Every record, in order."""
    return [_step(record) for record in records]


def spent(records: Sequence[AuditRecord]) -> Spent:
    """Summed over what is on record; the cost is unknown as soon as one request's is."""
    asked = [r.body for r in records if r.type == "model.requested"]
    costs = [b.get("cost_microusd") for b in asked if b.get("outcome") == "answered"]
    return Spent(
        requests=len(asked),
        input_tokens=sum(_int(b.get("input_tokens")) for b in asked),
        output_tokens=sum(_int(b.get("output_tokens")) for b in asked),
        cost_microusd=None if None in costs else sum(_int(c) for c in costs),
        calls=sum(r.type == "call.intent" for r in records),
    )


def _step(record: AuditRecord) -> Step:
    body, kind = record.body, record.type
    title, subject, state, note, link = kind.replace(".", " ").replace("_", " "), "", "", "", ""
    match kind:
        case "call.intent":
            title, subject = (
                f"{'A rule' if body.get('asked_by') == 'rules' else 'The model'} asks for",
                _s(body, "tool"),
            )
        case "gate.decided":
            decision = cast("JsonObject", body.get("decision") or {})
            title, subject, state = "The gate says", _s(body, "tool"), _s(decision, "verdict")
            note = f"by rule {_s(decision, 'rule')}"
        case "call.outcome":
            title, subject, state = "Ended", _s(body, "tool"), _s(body, "outcome")
            note = f"{_int(body.get('duration_ms')):,} ms" + (f" · {_s(body, 'error')}" if body.get("error") else "")
        case "model.requested":
            title, subject = "Model request", _s(body, "model")
            state = "succeeded" if body.get("outcome") == "answered" else "failed"
            note = _s(body, "failure") or f"{_int(body.get('input_tokens')):,} tokens in, "
            note += "" if body.get("failure") else f"{_int(body.get('output_tokens')):,} out"
        case "run.degraded":
            title, subject, note = "Gave up, next rung", _s(body, "to_rung") or _s(body, "to"), _s(body, "reason")
        case "run.closed":
            title, state, note = "The run ended", _s(body, "phase"), f"{_int(body.get('records'))} records"
        case _ if kind.startswith("approval."):
            state = "pending" if kind == "approval.requested" else kind.removeprefix("approval.")
            title, note = "Question to people", "" if state == "pending" else f"by {record.actor}"
            link = f"/console/questions/{_s(body, 'approval_id')}"
        case _:
            note = f"by {record.actor}"
    return Step(
        seq=record.seq, at=record.ts, type=kind, title=title[:1].upper() + title[1:], subject=subject, state=state,
        note=note, link=link, body=body,
    )  # fmt: skip


def _s(body: JsonObject, name: str) -> str:
    value = body.get(name)
    return value if isinstance(value, str) else ""


def _int(value: JsonValue) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else 0
