"""Gatehouse over HTTP, typed: `async with Gatehouse(url, key) as gatehouse: await gatehouse.start_run(...)`.

One method for each operation of the API, called as in its OpenAPI document. Needs httpx and pydantic, nothing else.
"""

from typing import TYPE_CHECKING

from gatehouse_client.problems import (
    AuthenticationError,
    ConflictError,
    FieldProblem,
    ForbiddenError,
    GatehouseError,
    InvalidError,
    NotFoundError,
    ProblemError,
    RunWaitsError,
    ServerFaultError,
    TooManyRequestsError,
    UnavailableError,
    UnexpectedAnswerError,
    UnreachableError,
)

if TYPE_CHECKING:
    from gatehouse_client.client import Gatehouse

__all__ = [
    "AuthenticationError",
    "ConflictError",
    "FieldProblem",
    "ForbiddenError",
    "Gatehouse",
    "GatehouseError",
    "InvalidError",
    "NotFoundError",
    "ProblemError",
    "RunWaitsError",
    "ServerFaultError",
    "TooManyRequestsError",
    "UnavailableError",
    "UnexpectedAnswerError",
    "UnreachableError",
]


def __getattr__(name: str) -> object:
    # Loaded when first asked for: its models take a while, and who only wants the errors need not wait.
    if name == "Gatehouse":
        from gatehouse_client.client import Gatehouse  # noqa: PLC0415

        return Gatehouse
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
