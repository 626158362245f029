"""What the recording activities share: how faults of the store reach Temporal, and how data enters the log."""

from collections.abc import Generator
from contextlib import contextmanager
from typing import NoReturn

from temporalio.exceptions import ApplicationError

from tools.contract import JsonObject, ToolCall, canonical_json
from worker.store.audit import RunAlreadyClosed
from worker.store.database import Redact, StoreUnavailable
from worker.store.events import HEAD_CHARS
from worker.store.ledger import LedgerConflict

STORE_UNAVAILABLE = "store_unavailable"
"""ApplicationError type, retried: nothing was recorded, or nobody knows, and a repeat is harmless."""
RUN_CLOSED = "run_closed"
BAD_RECORD = "bad_record"
"""Never retried: the fact contradicts what is recorded, or cannot be written down."""
UNTRUSTED_REQUEST = "untrusted_request"

SYSTEM_RUNS = "system:runs"
SYSTEM_GATE = "system:gate"

_WHOLE_ARGUMENTS_BYTES = 16_384


@contextmanager
def recorded() -> Generator[None]:
    """Around the body of a recording activity: store faults become errors that Temporal retries, contradictions ones
    that it does not."""
    try:
        yield
    except StoreUnavailable as fault:
        raise ApplicationError(str(fault), type=STORE_UNAVAILABLE) from fault
    except RunAlreadyClosed as fault:
        raise ApplicationError(str(fault), type=RUN_CLOSED, non_retryable=True) from fault
    except (LedgerConflict, ValueError) as fault:
        # ValueError: a body without canonical JSON, an unknown event type, a stored body this version cannot read.
        raise ApplicationError(str(fault)[:500], type=BAD_RECORD, non_retryable=True) from fault


def refuse(kind: str, message: str) -> NoReturn:
    """Fail the activity for good."""
    raise ApplicationError(message, type=kind, non_retryable=True)


def text(redact: Redact, words: str) -> str:
    """Free text as the log keeps it: redacted, and of bounded length."""
    return str(redact(words))[: 4 * HEAD_CHARS]


def arguments_fields(redact: Redact, call: ToolCall, digest: str) -> JsonObject:
    """Arguments as the log keeps them: redacted, whole when small, else their head; the digest binds the real ones."""
    size = len(canonical_json(call.arguments))
    redacted = redact(dict(call.arguments))
    fields: JsonObject = {"call_id": call.id, "tool": call.tool, "digest": digest, "arguments_bytes": size}
    if size <= _WHOLE_ARGUMENTS_BYTES:
        return {**fields, "arguments": redacted}
    head = canonical_json(redacted)[:_WHOLE_ARGUMENTS_BYTES].decode(errors="ignore")
    return {**fields, "arguments_head": head}
