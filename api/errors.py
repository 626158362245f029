"""Every failure a client may see, as RFC 9457 `application/problem+json`: one shape, a stable `kind`, what to do next.

A route raises `Refused`; everything else (framework errors, faults of the store or of Temporal) is turned into the same
shape by the handlers installed here, so no answer of this service ever leaves in another form.
"""

import http
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.responses import Response

from worker.store.database import StoreFull, StoreUnavailable

PROBLEM_MEDIA_TYPE = "application/problem+json"

log = structlog.get_logger(__name__)


class FieldProblem(BaseModel):
    """One thing wrong with one field of the request."""

    field: str = Field(description="Where: `body.inputs.pattern`, `query.limit`, `header.Idempotency-Key`.")
    problem: str
    remedy: str


class Problem(BaseModel):
    """An RFC 9457 problem. `kind` is the part programs may rely on."""

    type: str = Field(description="`urn:gatehouse:problem:<kind>`.")
    title: str
    status: int
    detail: str
    kind: str
    remedy: str | None = None
    instance: str | None = Field(default=None, description="Path of the request.")
    errors: list[FieldProblem] | None = Field(default=None, description="Given for status 422: every bad field.")


class Refused(Exception):  # noqa: N818  (named for what happened to the request)
    """Ends a request with a problem. `kind` is durable; `detail` says what happened, `remedy` what to do."""

    def __init__(
        self,
        status: int,
        kind: str,
        detail: str,
        *,
        remedy: str | None = None,
        errors: Sequence[FieldProblem] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.kind = kind
        self.detail = detail
        self.remedy = remedy
        self.errors = list(errors)
        self.headers = dict(headers or {})


def not_found(what: str, name: str) -> Refused:
    """404 for something that does not exist, or belongs to another tenant: the two look the same."""
    return Refused(
        404, "not_found", f"there is no {what} `{name}`", remedy=f"list the {what}s you may see and take its id"
    )


def invalid(field: str, problem: str, remedy: str, *, kind: str = "invalid_request") -> Refused:
    """422 for one bad field."""
    return invalid_fields([FieldProblem(field=field, problem=problem, remedy=remedy)], kind=kind)


def invalid_fields(errors: Sequence[FieldProblem], *, kind: str = "invalid_request") -> Refused:
    """422 for one or more bad fields."""
    detail = "; ".join(f"{e.field}: {e.problem}" for e in errors[:5])
    return Refused(422, kind, detail, remedy=errors[0].remedy if errors else None, errors=errors)


def problem_response(request: Request, refused: Refused) -> Response:
    """The HTTP form of a refusal."""
    problem = Problem(
        type=f"urn:gatehouse:problem:{refused.kind}",
        title=_title(refused.status),
        status=refused.status,
        detail=refused.detail,
        kind=refused.kind,
        remedy=refused.remedy,
        instance=request.url.path,
        errors=refused.errors or None,
    )
    # ASCII escapes: a lone surrogate quoted back from the request has no UTF-8 form.
    body = json.dumps(problem.model_dump(exclude_none=True))
    return Response(body, refused.status, headers=refused.headers, media_type=PROBLEM_MEDIA_TYPE)


_ALWAYS = {
    400: "The request could not be read.",
    401: "No valid API key; `WWW-Authenticate` says how to send one.",
    403: "The key's roles do not allow this; `detail` names the role that does.",
    413: "The body is larger than this route takes.",
    422: "A field is wrong; `errors` names each and the remedy.",
    429: "This key, tenant or address sent too many requests; `Retry-After` says when to go on.",
    500: "A fault of ours, recorded in the log under the answer's `X-Request-Id`.",
    503: "A part this needs (store or Temporal) does not answer; `detail` says which.",
}
_SOMETIMES = {
    404: "Nothing of that name in your tenant.",
    409: "Not possible in the present state; `kind` says why.",
    412: "A precondition does not hold.",
    416: "The range cannot be served.",
}


def problems(*statuses: int, public: bool = False) -> dict[int | str, dict[str, Any]]:
    """OpenAPI `responses` of a route: what every route may answer, plus `statuses`. `public`: not 401, 403 and 429."""
    texts = {s: t for s, t in _ALWAYS.items() if not (public and s in (401, 403, 429))}
    texts |= {s: _SOMETIMES[s] for s in statuses}
    return {
        status: {
            "description": text,
            "content": {PROBLEM_MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
        }
        for status, text in sorted(texts.items())
    }


def install(app: FastAPI, methods: Callable[[str], list[str]]) -> None:
    """Register the handlers: after this every error answer of `app` is a problem.

    `methods`: what a path takes, for the Allow header; the router names only those of the first route that fits.
    """

    @app.exception_handler(Refused)
    async def _refused(request: Request, error: Refused) -> Response:
        return problem_response(request, error)

    @app.exception_handler(RequestValidationError)
    async def _invalid(request: Request, error: RequestValidationError) -> Response:
        found = cast("Sequence[dict[str, Any]]", error.errors())
        return problem_response(request, invalid_fields([_field_problem(e) for e in found]))

    @app.exception_handler(HTTPException)
    async def _http(request: Request, error: HTTPException) -> Response:
        if error.status_code == 405:
            error.headers = {"Allow": ", ".join(methods(request.url.path))}
        return problem_response(request, _from_http(request, error))

    @app.exception_handler(StoreUnavailable)
    async def _store(request: Request, error: StoreUnavailable) -> Response:
        log.error("store.unavailable", path=request.url.path, reason=str(error))
        return problem_response(request, store_unavailable(error))

    @app.exception_handler(Exception)
    async def _fault(request: Request, error: Exception) -> Response:
        # Starlette re-raises after answering, so the server's log has the traceback; the client gets no internals.
        log.error("request.fault", path=request.url.path, method=request.method, error=type(error).__name__)
        fault = Refused(
            500,
            "fault",
            "the request failed because of a fault of ours",
            remedy="see the API's log under the X-Request-Id of this answer",
        )
        return problem_response(request, fault)


def store_unavailable(error: Exception) -> Refused:
    """503: the database does not answer, or has no room left."""
    if isinstance(error, StoreFull):
        return Refused(
            503, "store_unavailable", f"there is no room left for the store: {error}",
            remedy="free some space where the database and GATEHOUSE_DATA lie, then ask again: nothing was kept",
            headers={"Retry-After": "10"},
        )  # fmt: skip
    return Refused(
        503,
        "store_unavailable",
        f"the database does not answer: {error}",
        remedy="check GATEHOUSE_DATABASE_URL and that the database runs; `gatehouse doctor` shows the reason",
        headers={"Retry-After": "2"},
    )


def _title(status: int) -> str:
    try:
        return http.HTTPStatus(status).phrase
    except ValueError:
        return "Error"


def _from_http(request: Request, error: HTTPException) -> Refused:
    kinds = {400: "bad_request", 404: "not_found", 405: "method_not_allowed", 413: "too_large"}
    details = {
        404: (f"there is nothing at {request.url.path}", "see /api/docs for the addresses"),
        405: (f"{request.method} is not possible at {request.url.path}", "see the Allow header"),
    }
    detail, remedy = details.get(error.status_code, (str(error.detail), None))
    kind = kinds.get(error.status_code, _title(error.status_code).lower().replace(" ", "_"))
    return Refused(error.status_code, kind, detail, remedy=remedy, headers=error.headers)


_REMEDIES = {
    "missing": "give this field",
    "extra_forbidden": "remove this field; see /api/docs for the ones that exist",
    "json_invalid": "send valid JSON",
    "model_attributes_type": "send a JSON object with Content-Type: application/json",
    "dict_type": "give a JSON object",
    "list_type": "give a JSON array",
    "string_type": "give a string",
    "enum": "give one of the values named",
    "literal_error": "give one of the values named",
}


def _field_problem(error: Mapping[str, Any]) -> FieldProblem:
    location = [str(part) for part in cast("Sequence[object]", error.get("loc", ()))]
    kind = str(error.get("type", ""))
    return FieldProblem(
        field=".".join(location)[:300] or "body",
        problem=str(error.get("msg", "invalid")),
        remedy=_REMEDIES.get(kind, "correct the value; see /api/docs for what is accepted"),
    )
