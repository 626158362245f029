"""Signing in through the organisation's identity provider: there, and back with a code."""

import json
import secrets
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Annotated

import structlog
from fastapi import APIRouter, Query, Request
from starlette.responses import RedirectResponse, Response

from api.console.pages import page
from api.console.session import safe_next, secure, set_cookie
from api.errors import Refused
from api.oidc import Attempt, OidcRefused, OidcUnreachable, Provider
from api.services import Services, ServicesDep

router = APIRouter(prefix="/sign-in")

COOKIE = "gatehouse-sign-in"
PATH = "/console/sign-in"
MINUTES = 10
CALLBACK = "/console/sign-in/callback"

Text = Annotated[str, Query(max_length=4000)]

log = structlog.stdlib.get_logger(__name__)


@router.get("/oidc")
async def begin(
    request: Request,
    services: ServicesDep,
    next: Annotated[str | None, Query(max_length=500)] = None,  # noqa: A002
) -> Response:
    """To the provider. What must come back is kept by this browser alone, for some minutes."""
    attempt = Attempt.new()
    try:
        there = await _provider(services).authorization_url(attempt, _callback(services, request))
    except OidcUnreachable as error:
        return _failed(request, 503, error, "The identity provider does not answer. Try again in a moment.")
    response = RedirectResponse(there, 303)
    kept = json.dumps([attempt.state, attempt.nonce, attempt.verifier, safe_next(next)]).encode()
    response.set_cookie(
        COOKIE, urlsafe_b64encode(kept).decode(), max_age=MINUTES * 60, path=PATH, httponly=True, samesite="lax",
        secure=secure(services.settings, request),
    )  # fmt: skip
    return response


@router.get("/callback")
async def callback(
    request: Request, services: ServicesDep, state: Text = "", code: Text = "", error: Text = ""
) -> Response:
    """Back from the provider: who it is, and a session. A state that this browser did not begin with is refused."""
    kept = _kept(request)
    if kept is None or not secrets.compare_digest(kept[0].state.encode(), state.encode()):
        return _failed(request, 403, "state", "This sign-in was begun elsewhere, or too long ago. Begin again.")
    if error or not code:
        return _failed(request, 403, error[:100], "The identity provider did not sign you in.")
    try:
        principal = await _provider(services).log_in(kept[0], code, _callback(services, request))
    except OidcRefused as refused:
        return _failed(request, 403, refused, "Your account does not open this console. An administrator can see why.")
    except OidcUnreachable as away:
        return _failed(request, 503, away, "The identity provider does not answer. Try again in a moment.")
    response = RedirectResponse(safe_next(kept[1]), 303)
    response.delete_cookie(COOKIE, path=PATH)
    set_cookie(response, services.settings, request, await services.sessions.open(principal, "oidc"))
    return response


def _provider(services: Services) -> Provider:
    if services.oidc is None:
        raise Refused(404, "not_found", "no identity provider is set", remedy="sign in with an API key")
    return services.oidc


def _callback(services: Services, request: Request) -> str:
    return (services.settings.public_url or str(request.base_url).removesuffix("console/")).rstrip("/") + CALLBACK


def _kept(request: Request) -> tuple[Attempt, str] | None:
    try:
        found: object = json.loads(urlsafe_b64decode(request.cookies.get(COOKIE, "")))
    except (ValueError, RecursionError):
        return None
    match found:
        case [str(state), str(nonce), str(verifier), str(path)] if state and nonce and verifier:
            return Attempt(state, nonce, verifier), path
        case _:
            return None


def _failed(request: Request, status: int, why: object, text: str) -> Response:
    log.warning("oidc.refused", reason=str(why)[:500])
    told = {"next": safe_next(None), "ended": False, "lost": False, "problem": text, "kept": None}
    response = page(request, "sign_in.html", status=status, **told)
    response.delete_cookie(COOKIE, path=PATH)
    return response
