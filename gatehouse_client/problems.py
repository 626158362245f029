"""What can go wrong, as exceptions: one for each thing a program would do differently, all of them `GatehouseError`.

The API answers with RFC 9457 problems. Their `kind` is durable: decide by it or by the class, never by the text.
"""

import json
from typing import Any, cast

import httpx
from pydantic import BaseModel, ConfigDict, ValidationError


class FieldProblem(BaseModel):
    """One thing wrong with one field of the request, such as `body.inputs.pattern`."""

    model_config = ConfigDict(frozen=True)

    field: str
    problem: str
    remedy: str


class GatehouseError(Exception):
    """Root of everything this package raises on purpose."""


class UnreachableError(GatehouseError):
    """Nobody answers at the address, or the connection broke. What was asked for may have happened all the same."""


class UnexpectedAnswerError(GatehouseError):
    """What answers is no Gatehouse API, or one of another version."""


class ProblemError(GatehouseError):
    """The API refused. `kind` says why, in a word that stays; `remedy` says what to do."""

    def __init__(
        self, status: int, kind: str, detail: str, *,
        remedy: str = "", errors: tuple[FieldProblem, ...] = (), retry_after_s: float | None = None,
        request_id: str = "",
    ) -> None:  # fmt: skip
        super().__init__(f"{detail} [{kind}]" if kind else detail)
        self.status = status
        self.kind = kind
        self.detail = detail
        self.remedy = remedy
        self.errors = errors
        """For `InvalidError`: every bad field."""
        self.retry_after_s = retry_after_s
        self.request_id = request_id
        """Names the request in the API's log."""

    @property
    def field(self) -> str:
        """The first bad field; empty when the problem is not about one."""
        return self.errors[0].field if self.errors else ""


class AuthenticationError(ProblemError):
    """401: no valid key was sent."""


class ForbiddenError(ProblemError):
    """403: the key may not do this; `detail` names the role that may."""


class NotFoundError(ProblemError):
    """404: nothing of that name in your tenant."""


class ConflictError(ProblemError):
    """409: not possible as things stand, for example `already_decided`, `args_changed`, `frozen`, `stopped`."""


class InvalidError(ProblemError):
    """400, 413, 415, 422: the request is wrong; `errors` names the fields."""


class TooManyRequestsError(ProblemError):
    """429: go on after `retry_after_s`."""


class UnavailableError(ProblemError):
    """503: a part the API needs does not answer. With `start_run`, repeating with the same key is safe."""


class ServerFaultError(ProblemError):
    """500: a fault of the server, recorded there under `request_id`."""


class RunWaitsError(GatehouseError):
    """`wait_for_run` had to give up: the run has not ended in the time given. It goes on."""


_BY_STATUS: dict[int, type[ProblemError]] = {
    400: InvalidError, 401: AuthenticationError, 403: ForbiddenError, 404: NotFoundError, 409: ConflictError,
    413: InvalidError, 415: InvalidError, 422: InvalidError, 429: TooManyRequestsError, 503: UnavailableError,
}  # fmt: skip


def problem_of(response: httpx.Response) -> ProblemError:
    """The exception for an answer of 400 or more whose body has been read, whatever that body is."""
    found = _document(response)
    status = response.status_code
    default = ServerFaultError if status >= 500 else ProblemError
    return _BY_STATUS.get(status, default)(
        status,
        str(found.get("kind") or ""),
        str(found.get("detail") or found.get("title") or f"HTTP {status}"),
        remedy=str(found.get("remedy") or ""),
        errors=_errors(found.get("errors")),
        retry_after_s=_seconds(response.headers.get("Retry-After")),
        request_id=response.headers.get("X-Request-Id", ""),
    )


def _document(response: httpx.Response) -> dict[str, Any]:
    try:
        found: object = json.loads(response.content)
    except ValueError:
        return {}
    return cast("dict[str, Any]", found) if isinstance(found, dict) else {}


def _errors(found: object) -> tuple[FieldProblem, ...]:
    if not isinstance(found, list):
        return ()
    try:
        return tuple(FieldProblem.model_validate(each) for each in cast("list[object]", found))
    except ValidationError:
        return ()


def _seconds(header: str | None) -> float | None:
    return float(header) if header and header.isascii() and header.isdigit() else None
