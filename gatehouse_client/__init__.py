"""Gatehouse over HTTP, typed: `async with Gatehouse(url, key) as gatehouse: await gatehouse.start_run(...)`.

One method for each operation of the API, called as in its OpenAPI document. Needs httpx and pydantic, nothing else.
"""

from gatehouse_client.client import Gatehouse
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
