"""Logs of every process: JSON lines with run, call and trace ids, silent during replay, redacted as rendered."""

import hashlib
import logging
import sys
from collections.abc import Mapping
from typing import cast

import structlog
from structlog.typing import EventDict, WrappedLogger
from temporalio import activity, workflow

from policies.redaction import Redactor

_EXTRA = ("temporal_workflow", "temporal_activity")
"""Attributes the Temporal SDK puts on its log records; their ids are taken over, the rest is dropped."""


def configure(level: str, *, process: str, redacts: Redactor) -> None:
    """Send every log line of this process, the standard library's included, to stderr. Call once, at start."""

    def redact_fields(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
        return {key: redacts.field(key, value) for key, value in event.items()}

    def redact_line(_: WrappedLogger, __: str, line: str) -> str:
        # Once more as rendered: fields may hold objects whose text only shows now.
        return redacts.text(line)

    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        silent_in_replay,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.ExtraAdder(allow=_EXTRA),
        add_ids,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                redact_fields,
                structlog.processors.JSONRenderer(sort_keys=True),
                cast("structlog.typing.Processor", redact_line),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for noisy in ("httpx", "httpcore", "openai", "anthropic", "aiosqlite"):
        logging.getLogger(noisy).setLevel(max(logging.WARNING, root.level))
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(process=process)


def silent_in_replay(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Drop what a workflow logs while its history is replayed: it was logged when it happened."""
    if workflow.in_workflow() and workflow.unsafe.is_replaying():
        raise structlog.DropEvent
    return event


def add_ids(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Name the run (and one trace id per run, the same in all processes) and the call a line belongs to."""
    run_id = _run_id(event)
    for key in _EXTRA:
        event.pop(key, None)
    if run_id is not None:
        event.setdefault("run", run_id)
    if isinstance(run := event.get("run"), str):
        event.setdefault("trace", hashlib.sha256(run.encode()).hexdigest()[:32])
    return event


def bind_call(call_id: str) -> None:
    """Name the tool call in every later line of this task."""
    structlog.contextvars.bind_contextvars(call=call_id)


def _run_id(event: EventDict) -> str | None:
    if workflow.in_workflow():
        return workflow.info().workflow_id
    if activity.in_activity():
        return activity.info().workflow_id
    for key in _EXTRA:
        # The SDK's own lines, logged outside of both: their ids travel as a mapping.
        found = event.get(key)
        if isinstance(found, Mapping):
            value = cast("Mapping[str, object]", found).get("workflow_id")
            return value if isinstance(value, str) else None
    return None
