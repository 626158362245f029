"""What went wrong outside, in words a person and the audit can use. Pure; the one place that reads error types.

A provider's error text may quote the request or a key, so only the class, the HTTP status and our own
messages are used.
"""

from dataclasses import dataclass

from pydantic_ai.exceptions import (
    AgentRunError,
    ContentFilterError,
    ModelAPIError,
    ModelAuthenticationError,
    ModelConnectionError,
    ModelContextWindowExceededError,
    ModelHTTPError,
    ModelNotFoundError,
    ModelQuotaExceededError,
    ModelRateLimitError,
    ModelRequestRejectedError,
    ModelRequestTimeout,
    ModelServerError,
    ModelTimeoutError,
    ModelUnavailableError,
    UnexpectedModelBehavior,
    UserError,
)
from temporalio.exceptions import ActivityError, ApplicationError, TimeoutType
from temporalio.exceptions import TimeoutError as ActivityTimeoutError

from tools.contract import Repeat, ToolSpec

MODEL_UNCONFIGURED = "model_unconfigured"
"""ApplicationError type of the models worker: no key, no address, or no such provider. Its message says which."""
MODEL_BUSY = "model_busy"
"""ApplicationError type of the models worker: the provider asks to wait longer than a run should."""
OUTCOME_UNKNOWN = "outcome_unknown"
SANDBOX_UNAVAILABLE = "sandbox_unavailable"
REFUSED = "refused"
STOPPED = "stopped"
"""ApplicationError type of workers: a switch in force refuses it; nothing was begun."""

# What an agent run raises when the model cannot be used any further.
MODEL_ERRORS = (AgentRunError, UserError, ActivityError)

# The first class that matches speaks; subclasses stand before their bases.
_MODEL_LABELS: tuple[tuple[type[BaseException], str], ...] = (
    (ModelRateLimitError, "rate limited"),
    (ModelQuotaExceededError, "quota used up"),
    (ModelUnavailableError, "unavailable"),
    (ModelTimeoutError, "timed out"),
    (ModelRequestTimeout, "timed out"),
    (ModelConnectionError, "unreachable, or its answer could not be read"),
    (ModelServerError, "server error"),
    (ModelAuthenticationError, "credentials refused"),
    (ModelNotFoundError, "no such model"),
    (ModelContextWindowExceededError, "the conversation is too long for it"),
    (ModelRequestRejectedError, "request refused"),
    (ModelAPIError, "request failed, or its answer could not be read"),
    (ContentFilterError, "content filter"),
    (UnexpectedModelBehavior, "unusable answer"),
)


def model_fault(model: str, error: BaseException) -> str:
    """Why the run gave up on this model: `<model id>: <what happened>`."""
    if isinstance(error, ActivityError):
        return f"{model}: {_activity_fault(error)}"
    label = next((text for kind, text in _MODEL_LABELS if isinstance(error, kind)), type(error).__name__)
    status = f" (HTTP {error.status_code})" if isinstance(error, ModelHTTPError) else ""
    return f"{model}: {label}{status}"


def is_unconfigured(error: BaseException) -> bool:
    """Whether no request was ever made, because the models worker has no such model or may not ask it."""
    return (
        isinstance(error, ActivityError)
        and isinstance(error.cause, ApplicationError)
        and error.cause.type in (MODEL_UNCONFIGURED, STOPPED)
    )


def _activity_fault(error: ActivityError) -> str:
    match error.cause:
        case ApplicationError(type=kind, message=message) if kind in (MODEL_UNCONFIGURED, MODEL_BUSY, STOPPED):
            return message
        case ApplicationError(type="UnexpectedModelBehavior"):
            return "unusable answer"
        case ApplicationError(type=kind):
            return f"the models worker failed ({kind or 'unknown'})"
        case ActivityTimeoutError(type=TimeoutType.SCHEDULE_TO_START):
            return "no models worker took the request in time"
        case ActivityTimeoutError():
            return "the models worker did not answer in time"
        case _:
            return "the models worker failed"


@dataclass(frozen=True)
class ToolFault:
    """Why a call that was allowed to run has no result from the sandbox."""

    kind: str
    """As `ToolResult.error`."""
    message: str
    uncertain: bool = False
    """Whether it may have taken effect and must not be repeated by the machine."""


def tool_fault(error: ActivityError, tool: ToolSpec) -> ToolFault:
    """Read the failure of `tool.run`. What is not known to be harmless counts as uncertain for at-most-once tools."""
    doubt = tool.repeat is Repeat.AT_MOST_ONCE
    match error.cause:
        case ApplicationError(type="outcome_unknown", message=message):
            return ToolFault(OUTCOME_UNKNOWN, message, uncertain=True)
        case ApplicationError(type="sandbox_unavailable", message=message):
            return ToolFault(SANDBOX_UNAVAILABLE, f"No sandbox to run in: {message}")
        case ApplicationError(type="stopped", message=message):
            return ToolFault(STOPPED, message)
        case ApplicationError(type="refused", message=message):
            return ToolFault("policy", f"Refused before it ran: {message}")
        case ActivityTimeoutError(type=TimeoutType.SCHEDULE_TO_START):
            return ToolFault(SANDBOX_UNAVAILABLE, "No sandbox worker took the call in time.", uncertain=doubt)
        case ActivityTimeoutError():
            return ToolFault("worker_lost", "The sandbox worker was lost while the call ran.", uncertain=doubt)
        case ApplicationError(type=kind):
            return ToolFault("worker_lost", f"The sandbox worker failed ({kind or 'unknown'}).", uncertain=doubt)
        case _:
            return ToolFault("worker_lost", "The sandbox worker failed.", uncertain=doubt)
