"""Composition root of the console: its own small application under `/console`, on the same services as the API.

Errors are pages here, not problem documents; what a page does goes through the functions the API's routes use.
"""

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.datastructures import State
from starlette.exceptions import HTTPException
from starlette.responses import RedirectResponse, Response

from api.console import assets, kept, links
from api.console.guard import HEADERS, SAFE_METHODS, Guard
from api.console.pages import address, page
from api.console.routes import (
    asides,
    audit,
    catalog,
    deliveries,
    entry,
    keys,
    live,
    oidc,
    policy,
    questions,
    queue,
    runs,
    standing,
    switches,
)
from api.console.session import HOME, SignInNeeded, drop_cookie, safe_next, sign_in_path
from api.errors import Refused, store_unavailable
from worker.settings import Settings
from worker.store.database import StoreUnavailable

PATH = "/console"
SIGN_OUT = f"{PATH}/sign-out"
ROUTERS = (
    assets.router, links.router, entry.router, oidc.router, live.router, queue.router, questions.router, asides.router,
    standing.router, runs.router, catalog.router, policy.router, audit.router, switches.router, deliveries.router,
    keys.router,
)  # fmt: skip


def create_console(settings: Settings, state: State) -> FastAPI:
    """The application to mount at PATH; `state` is the API's own, which holds the services."""
    console = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False)
    console.state = state
    _install_errors(console, settings)
    console.add_middleware(Guard, public_url=settings.public_url, refuse=_cross_site)
    for router in ROUTERS:
        console.include_router(router)

    @console.get("/")
    async def home() -> Response:
        return RedirectResponse(HOME, 303)

    return console


def _install_errors(console: FastAPI, settings: Settings) -> None:
    @console.exception_handler(SignInNeeded)
    async def _sign_in(request: Request, error: SignInNeeded) -> Response:
        if request.headers.get("hx-request") == "true":
            # A page refreshing itself must not lose what somebody is typing: it only says that the session is over.
            return Response(status_code=204, headers={"HX-Trigger": "session-ended"})
        here = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        if request.method in SAFE_METHODS or request.url.path == SIGN_OUT:
            response: Response = RedirectResponse(sign_in_path(here, ended=error.ended), 303)
        else:
            # Say that it was not done, and keep what was typed for after the log-in.
            context = {"next": safe_next(address(request)), "kept": await kept.sent(request)}
            response = page(request, "sign_in.html", status=401, ended=True, lost=True, problem=None, **context)
        if error.ended:
            drop_cookie(response, settings, request)
        return response

    @console.exception_handler(Refused)
    async def _refused(request: Request, error: Refused) -> Response:
        return _problem(request, error)

    @console.exception_handler(RequestValidationError)
    async def _invalid(request: Request, error: RequestValidationError) -> Response:
        where = ", ".join(".".join(str(part) for part in e["loc"][1:]) for e in error.errors()[:3])
        return _problem(request, Refused(422, "invalid_request", f"the page was asked for with a bad value ({where})"))

    @console.exception_handler(HTTPException)
    async def _http(request: Request, error: HTTPException) -> Response:
        text = "there is no such page" if error.status_code == 404 else str(error.detail)
        return _problem(request, Refused(error.status_code, "not_found", text))

    @console.exception_handler(StoreUnavailable)
    async def _store(request: Request, error: StoreUnavailable) -> Response:
        return _problem(request, store_unavailable(error))

    @console.exception_handler(Exception)
    async def _fault(request: Request, _: Exception) -> Response:
        fault = Refused(500, "fault", "the page could not be drawn because of a fault of ours",
                        remedy="see the API's log under the X-Request-Id of this answer")  # fmt: skip
        response = _problem(request, fault)
        response.headers.update(HEADERS)  # it does not pass the guard on its way out
        return response


def _problem(request: Request, refused: Refused) -> Response:
    response = page(request, "problem.html", status=refused.status, problem=refused)
    for name in ("Retry-After",):
        if name in refused.headers:
            response.headers[name] = refused.headers[name]
    return response


def _cross_site(request: Request) -> Response:
    refused = Refused(403, "cross_site", "this request did not come from a page of the console, so nothing was done",
                      remedy="open the console and do it there; behind a proxy, set GATEHOUSE_PUBLIC_URL")  # fmt: skip
    return _problem(request, refused)
