"""Signing in with an API key, signing out, and the light or dark switch."""

from typing import Annotated

from fastapi import APIRouter, Form, Query, Request
from starlette.responses import RedirectResponse, Response

from api.auth import record_bad_key
from api.console.kept import MOST, read
from api.console.pages import THEME_COOKIE, THEMES, page
from api.console.session import SignedIn, drop_cookie, safe_next, secure, set_cookie
from api.services import ServicesDep

router = APIRouter()

Next = Annotated[str | None, Query(max_length=500)]
_YEAR_S = 365 * 86400


@router.get("/sign-in")
async def sign_in_page(request: Request, next: Next = None, ended: bool = False) -> Response:  # noqa: A002
    """The form."""
    return page(request, "sign_in.html", next=safe_next(next), ended=ended, lost=False, problem=None, kept=None)


@router.post("/sign-in")
async def sign_in(
    request: Request,
    services: ServicesDep,
    key: Annotated[str, Form(max_length=200)],
    next: Annotated[str | None, Form(max_length=500)] = None,  # noqa: A002
    kept: Annotated[str, Form(max_length=MOST)] = "",
) -> Response:
    """A valid key becomes a session; the key itself is not kept. What somebody had typed before is shown again."""
    typed = read(kept)
    found = await services.keys.verify(key.strip())
    if found is None:
        services.rates.count(address=request.client.host if request.client else "unknown")
        await record_bad_key(services, request)
        problem = "This key is unknown, expired or revoked."
        told = {"next": safe_next(next), "ended": False, "lost": False, "problem": problem, "kept": typed}
        return page(request, "sign_in.html", status=401, **told)
    token = await services.sessions.open(found.principal, "key", found.id)
    response: Response = RedirectResponse(safe_next(next), 303)
    if typed is not None:
        response = page(request, "resume.html", kept=typed, who=found.principal.id, next=safe_next(next))
    set_cookie(response, services.settings, request, token)
    return response


@router.post("/resume")
async def resume(
    request: Request, visitor: SignedIn, kept: Annotated[str, Form(max_length=MOST)] = "",
    next: Annotated[str | None, Form(max_length=500)] = None,  # noqa: A002
) -> Response:  # fmt: skip
    """The same for somebody who signed in elsewhere, such as by their identity provider in another tab."""
    typed = read(kept)
    if typed is None:
        return RedirectResponse(safe_next(next), 303)
    return page(request, "resume.html", kept=typed, who=visitor.principal.id, next=safe_next(next))


@router.post("/sign-out")
async def sign_out(request: Request, visitor: SignedIn) -> Response:
    """Here and now, on this browser."""
    await visitor.services.sessions.close(visitor.session)
    response = RedirectResponse("/console/sign-in", 303)
    drop_cookie(response, visitor.services.settings, request)
    return response


@router.post("/theme")
async def theme(
    request: Request,
    services: ServicesDep,
    theme: Annotated[str, Form(max_length=10)],
    next: Annotated[str | None, Form(max_length=500)] = None,  # noqa: A002
) -> Response:
    """Light, dark, or what the system says."""
    response = RedirectResponse(safe_next(next), 303)
    if theme in THEMES:
        response.set_cookie(THEME_COOKIE, theme, max_age=_YEAR_S, path="/console", samesite="lax", httponly=True,
                            secure=secure(services.settings, request))  # fmt: skip
    else:
        response.delete_cookie(THEME_COOKIE, path="/console")
    return response
