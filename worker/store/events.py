"""The catalogue of audit events: every type there is, what it means, and the ids that make a repeat harmless.

An event id is `<subject>/<fact>`. It is unique in the log, so that a fact reported twice is recorded once.
"""

import hashlib

from tools.contract import JsonObject, ToolResult

CATALOGUE = 1
"""Version of the catalogue. A type's meaning and its body's fields are a contract: both may be added to; a change or
removal takes another version."""

EVENT_TYPES: dict[str, str] = {
    "run.requested": "Somebody asked for a run through the API; the run's row exists from here on.",
    "run.opened": "The run's workflow started working, with this automation, by digest.",
    "run.degraded": "A rung of the degrade ladder gave up and the next one took over.",
    "run.cancel_requested": "Somebody asked for the run to be cancelled.",
    "run.closed": "The run ended; `records` counts its audit records up to and including this one.",
    "call.intent": "A tool call is asked for. Recorded before anything else happens to it.",
    "gate.decided": "What policy said of the call with these arguments.",
    "call.outcome": "What became of a call. Exactly one for each intent.",
    "call.reconciled": "An attempt was lost; whether it took effect, as the tool's reconcile program says.",
    "egress.refused": "The egress proxy refused what a call's program asked for, with kind, host and reason.",
    "approval.requested": "A question to humans was opened.",
    "approval.approved": "A human said yes, possibly with edited arguments.",
    "approval.denied": "A human said no.",
    "approval.expired": "Nobody answered before the deadline, which counts as no.",
    "approval.cancelled": "The run ended or moved on before anybody answered.",
    "approval.answered": "Somebody's answer counted, and more are needed; or it changed the arguments.",
    "approval.asked_back": "An approver asked the run's requester something.",
    "approval.replied": "The run's requester replied.",
    "approval.delegated": "An approver handed the question on to somebody.",
    "approval.escalated": "A further group may answer, by the rule's chain or because somebody wanted it.",
    "approval.reminder": "Those who may answer are reminded.",
    "approval.break_glass": "EMERGENCY: somebody approved by the role break-glass, past the rule's own approvers.",
    "grant.created": "Like calls need not be asked about again, within the bounds named.",
    "grant.used": "A call that would have been asked about ran by a standing grant.",
    "grant.revoked": "A standing grant was withdrawn.",
    "delegation.created": "Somebody answers for somebody else while they are away.",
    "delegation.revoked": "That ended before its time.",
    "answer_key.rotated": "Another key signs answers from here on; its predecessor named it.",
    "answer_key.revoked": "A key's signatures count no more, also of answers given before.",
    "message.used": "A button or a link of a message was used; `way` and `verb` say which.",
    "answer.refused": "Somebody's answer had no effect, with the reason.",
    "model.requested": "One model request, answered or failed: model, tokens, cost, digest of the prompt.",
    "artifact.stored": "A file the run left was kept in the blob store.",
    "key.created": "An API key was issued.",
    "key.revoked": "An API key was withdrawn.",
    "data_key.rotated": "Another data key encrypts from here on; one that the file does not hold was cut off before.",
    "checkpoint_key.rotated": "Another key signs checkpoints, if the anchor says so too; else it was cut off before.",
    "key.rotated": "An API key got a successor; it goes on until the time given.",
    "session.opened": "Somebody signed in to the console, with an API key or through the identity provider.",
    "session.closed": "Somebody signed out of the console.",
    "policy.proposed": "Somebody proposed another policy; `diff` says what it would change.",
    "policy.applied": "Another policy came into force: by somebody's proposal, or from the files of the installation.",
    "policy.rejected": "A proposed policy was turned down.",
    "switch.set": "A kill switch or safe mode was put in force; `runs` counts the runs it stops.",
    "switch.eased": "A kill switch was released to safe mode.",
    "switch.released": "A switch has no effect any more.",
    "switch.confirmed": "Every run that a switch stops stands still or has ended, and has no container left.",
    "sweep.repaired": "The store and Temporal did not agree on a run, and the keeper repaired it; `what` says how.",
    "run.frozen": "The run stands still for a switch; the clocks of its questions are stopped.",
    "run.thawed": "A switch does not hold the run any more; `held` says whether another one does.",
    "retention.pruned": "Bodies of old records were removed; `seqs` and `remains` say of which, signed.",
    "retention.contents_removed": "What these old runs worked with was removed, and these uploads; `rows` counts it.",
    "hold.placed": "Somebody keeps records and contents from being removed: a tenant's, a run's, or those of a time.",
    "hold.lifted": "That hold ended.",
    "history.decoded": "Somebody was shown decrypted payloads of these runs, redacted.",
    "log.heartbeat": "The log is being kept: one each minute, so that silence shows.",
    "access.denied": "An authenticated principal asked for something it may not do.",
}
"""Type -> meaning. A type that is not here is refused."""

LATE_TYPES = frozenset({"answer.refused", "run.cancel_requested", "access.denied"})
"""What may still be recorded for a run after `run.closed`: somebody's attempt that came too late. It carries the next
`run_seq`, beyond the count in `run.closed`."""

HEAD_CHARS = 500
"""How much of an output the log keeps for people to read; the digest and size stand for the rest."""


def closed_id(run_id: str) -> str:
    """Event id of a run's `run.closed`."""
    return f"{run_id}/closed"


def intent_id(run_id: str, call_id: str) -> str:
    """Event id of a call's `call.intent`."""
    return f"{run_id}/call/{call_id}/intent"


def gate_id(run_id: str, call_id: str, gate_pass: int) -> str:
    """Event id of one pass of the gate over a call."""
    return f"{run_id}/call/{call_id}/gate/{gate_pass}"


def outcome_id(run_id: str, call_id: str) -> str:
    """Event id of a call's `call.outcome`."""
    return f"{run_id}/call/{call_id}/outcome"


def reconciled_id(run_id: str, call_id: str, generation: int, attempt: int) -> str:
    """Event id of what one attempt learnt of the one before."""
    return f"{run_id}/call/{call_id}/reconciled/{generation}.{attempt}"


def egress_refused_id(run_id: str, call_id: str, number: str) -> str:
    """Event id of one kind of refusal of a call's egress; `number` counts within generation and attempt."""
    return f"{run_id}/call/{call_id}/egress/{number}"


def outcome_body(*, call_id: str, tool: str, key: str, result: ToolResult) -> JsonObject:
    """Body of `call.outcome`: the output by digest, size and its head. `result.content` must be redacted already."""
    content = result.content.encode(errors="surrogatepass")
    return {
        "call_id": call_id,
        "tool": tool,
        "key": key,
        "outcome": result.outcome.value,
        "error": result.error,
        "content_sha256": hashlib.sha256(content).hexdigest(),
        "content_bytes": len(content),
        "content_head": result.content[:HEAD_CHARS],
        "full_sha256": result.full_sha256,
        "duration_ms": result.duration_ms,
        "exit_code": result.exit_code,
    }
