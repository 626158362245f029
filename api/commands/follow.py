"""A run as it happens: one line for every record that means something to the person watching."""

from collections.abc import Callable, Iterator
from typing import Any

from api.commands.client import Client, Event
from api.commands.output import paint, say, shade, span, until, visible

Obj = dict[str, Any]
_ARGUMENT_CHARS = 100


def _word(word: object) -> str:
    import sys

    text = visible(word)
    return paint(text, shade(text), sys.stderr)


def _shown(arguments: object) -> str:
    import json

    text = visible(json.dumps(arguments, ensure_ascii=False))
    return text if len(text) <= _ARGUMENT_CHARS else text[: _ARGUMENT_CHARS - 1] + "…"


def describe(event: Event) -> str | None:
    """The line for one record; None for records that tell a watcher nothing."""
    body: Obj = event.record.get("body") or {}
    line = _LINES.get(event.type)
    return line(event, body) if line else None


def _intent(_: Event, body: Obj) -> str:
    return f"call {visible(body.get('tool'))} {_shown(body.get('arguments'))}"


def _gate(_: Event, body: Obj) -> str | None:
    decision: Obj = body.get("decision") or {}
    again = bool(body.get("gate_pass"))
    if again and decision.get("verdict") != "deny":
        return None  # asked again right before running, and nothing has changed
    told = decision.get("reason") and decision.get("verdict") != "allow"
    reason = f": {visible(decision['reason'])}" if told else ""
    when = "gate asked again" if again else "gate"
    rule = visible(decision.get("rule"))
    return f"  {visible(body.get('tool'))}: {when}: {_word(decision.get('verdict'))} by rule {rule}{reason}"


def _outcome(_: Event, body: Obj) -> str:
    took = f" in {span(body['duration_ms'] / 1000)}" if body.get("duration_ms") else ""
    error = f" ({visible(body['error'])})" if body.get("error") else ""
    return f"  {visible(body.get('tool'))}: {_word(body.get('outcome'))}{error}{took}"


def _degraded(_: Event, body: Obj) -> str:
    return f"degraded: {body.get('from_rung')} gave up, now {body.get('to_rung')}: {visible(body.get('reason'))}"


def _model(_: Event, body: Obj) -> str:
    if body.get("outcome") == "failed":
        return f"model {visible(body.get('model'))}: {_word('failed')}: {visible(body.get('failure'))[:200]}"
    tokens = f" ({body.get('input_tokens', 0)} + {body.get('output_tokens', 0)} tokens)"
    return f"step {body.get('step')}: {visible(body.get('model'))} answered{tokens}"


def _question(_: Event, body: Obj) -> str:
    what = {"handover": "the job itself (every machine rung gave up)", "unknown_outcome": "a call of unknown outcome"}
    about = what.get(str(body.get("question")), "this call")
    role = visible(body.get("approvers"))
    return (
        f"  {_word('pending')}: {about} waits for a person with the role {role} until {until(body.get('deadline'))}\n"
        f"    gatehouse approvals show {visible(body.get('approval_id'))}"
    )


def _answered(event: Event, body: Obj) -> str:
    answer: Obj = body.get("answer") or {}
    who = event.record.get("actor")
    edited = f" with edited arguments {_shown(answer['edited'].get('arguments'))}" if answer.get("edited") else ""
    reason = f": {visible(answer['reason'])}" if answer.get("reason") else ""
    return f"  {_word(event.type.removeprefix('approval.'))} by {visible(who)}{edited}{reason}"


def _closed(_: Event, body: Obj) -> str:
    failure = f": {visible(body['failure'])}" if body.get("failure") else ""
    return f"run {_word(body.get('phase'))} on rung {visible(body.get('rung'))}{failure}"


_LINES: dict[str, Callable[[Event, Obj], str | None]] = {
    "run.requested": lambda event, _: f"requested by {visible(event.record.get('actor'))}",
    "run.opened": lambda _, __: "started",
    "model.requested": _model,
    "call.intent": _intent,
    "gate.decided": _gate,
    "approval.requested": _question,
    "approval.approved": _answered,
    "approval.denied": _answered,
    "approval.expired": _answered,
    "approval.cancelled": _answered,
    "call.outcome": _outcome,
    "run.degraded": _degraded,
    "artifact.stored": lambda _, body: f"kept {visible(body.get('name'))} ({body.get('size')} bytes)",
    "run.cancel_requested": lambda event, _: f"cancel asked for by {visible(event.record.get('actor'))}",
    "run.closed": _closed,
}


def follow(client: Client, run_id: str, *, after: int = 0, stop_at_approval: bool = False) -> Iterator[Event]:
    """Print the run's progress on stderr and hand every event on. Stops at the end, or at a question if asked to."""
    for event in client.events(run_id, after):
        if line := describe(event):
            say(line)
        yield event
        if stop_at_approval and event.type == "approval.requested":
            return
