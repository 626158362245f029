"""Composition root of the HTTP API: opens every part, wires the routes, and serves. `python -m api.app` runs it.

Starts whether or not Temporal answers; without a usable store or policy it does not start, and says why.
"""

import asyncio
import logging
import re
import signal
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from importlib.metadata import PackageNotFoundError, version
from types import FrameType
from typing import Any

import structlog
import uvicorn
from fastapi import APIRouter, FastAPI
from fastapi.openapi.utils import get_openapi
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from typing_extensions import override

from api import docs, errors
from api.console.app import PATH as CONSOLE
from api.console.app import create_console
from api.errors import Problem
from api.headers import SecurityHeaders
from api.limits import JSON_BODY_BYTES, POLICY_BODY_BYTES, RequestLimits
from api.links import API
from api.logs import RequestLog
from api.oidc import OidcUnreachable
from api.routes import (
    approvals,
    artifacts,
    audit,
    automations,
    codec,
    deliveries,
    events,
    files,
    health,
    keys,
    me,
    policy,
    policy_changes,
    retention,
    runs,
    slack,
    standing,
    switches,
    tools,
)  # fmt: skip
from api.services import Services, open_services
from policies.source import SourceError
from tools.errors import ToolError
from worker import telemetry, temporal
from worker.anchors import copies
from worker.process import run
from worker.settings import Settings
from worker.store.checkpoints import Publisher
from worker.store.database import StoreUnavailable
from worker.store.keeping import Keeper
from worker.store.keyfiles import KeyFileUnsafe

log = structlog.stdlib.get_logger(__name__)

PREFIX = API
SHUTDOWN_S = 10
"""How long open requests may take to finish once the process is told to stop."""
KEEP_ALIVE_S = 75
"""How long a connection nobody uses stays open: longer than clients and proxies keep theirs, so that none writes into
one that is being closed."""

ROUTERS: tuple[APIRouter, ...] = (
    runs.router, events.router, artifacts.router, files.router, approvals.router, standing.router,
    automations.router, tools.router, audit.router, policy.router, policy_changes.router, switches.router,
    deliveries.router, retention.router, keys.router, me.router, codec.router, slack.router, health.router,
)  # fmt: skip

TAGS = [
    {"name": "runs", "description": "Start automations, follow them, stop them, fetch what they left."},
    {"name": "files", "description": "Upload what a run works on."},
    {"name": "approvals", "description": "Questions to humans, and their answers."},
    {"name": "automations", "description": "What can be asked for."},
    {"name": "tools", "description": "What an automation may use."},
    {"name": "audit", "description": "The record of everything, and the proof that it is whole."},
    {"name": "policy", "description": "What the gate would say, why, and how its policy is changed."},
    {"name": "switches", "description": "Stop everything, or a part of it, and let it go on step by step."},
    {"name": "deliveries", "description": "Who was told what, and what did not get there."},
    {"name": "retention", "description": "How long contents are kept, and legal holds that keep them longer."},
    {"name": "keys", "description": "API keys of your tenant."},
    {"name": "codec", "description": "Readable payloads for the Temporal UI and command line, redacted."},
    {"name": "me", "description": "Who you are."},
    {"name": "health", "description": "Probes; no key needed."},
]

DESCRIPTION = (
    "Durable AI agents whose every tool call passes a gate, runs in a box and leaves a proof. "
    "Errors are RFC 9457 problems with a stable `kind`. Lists page by `next_cursor`."
)


def create_app(settings: Settings, services: Services | None = None) -> FastAPI:
    """The application. Its parts are opened when it starts (lifespan), unless `services` brings them opened already."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None, None]:
        if services is not None:
            app.state.services = services
            yield
            return
        async with open_services(settings) as opened:
            app.state.services = opened
            yield

    app = FastAPI(
        title="Gatehouse",
        version=_version(),
        description=DESCRIPTION,
        openapi_tags=TAGS,
        docs_url=None,  # the framework's page loads scripts from elsewhere; ours is drawn here
        redoc_url=None,
        openapi_url=None,
        lifespan=lifespan,
        redirect_slashes=False,
    )
    errors.install(app, lambda path: _methods(app, path))
    app.add_middleware(RequestLimits, limit=_body_limit(settings))
    app.add_middleware(SecurityHeaders)
    app.add_middleware(codec.UiOrigin, temporal_ui=settings.temporal_ui)
    app.add_middleware(RequestLog)  # added last, so outermost
    for router in ROUTERS:
        app.include_router(router, prefix=PREFIX)
    _serve_docs(app)
    _serve_console(app, settings)
    return app


def _body_limit(settings: Settings) -> Any:
    def limit(method: str, path: str) -> int:
        if (method, path) == ("POST", f"{PREFIX}/files"):
            return settings.upload_bytes
        return POLICY_BODY_BYTES if path.startswith((f"{PREFIX}/policy/", f"{PREFIX}/codec/")) else JSON_BODY_BYTES

    return limit


def _version() -> str:
    try:
        return version("gatehouse")
    except PackageNotFoundError:
        return "0"


def openapi(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document, with the problem schema that every error answer refers to."""
    if app.openapi_schema is None:
        spec = get_openapi(
            title=app.title, version=app.version, description=app.description, tags=app.openapi_tags, routes=app.routes
        )
        schemas = spec.setdefault("components", {}).setdefault("schemas", {})
        problem = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
        schemas |= problem.pop("$defs", {}) | {"Problem": problem}
        for unused in ("HTTPValidationError", "ValidationError"):
            schemas.pop(unused, None)
        app.openapi_schema = spec
    return app.openapi_schema


def _methods(app: FastAPI, path: str) -> list[str]:
    """Methods of every documented route that fits the path, and what a public page takes."""
    found: set[str] = set()
    for template, operations in openapi(app)["paths"].items():
        pattern = "[^/]+".join(map(re.escape, re.split(r"\{\w+\}", template)))
        if template.endswith("/artifacts/{name}"):  # the one parameter that may hold slashes
            pattern = pattern.removesuffix("[^/]+") + ".+"
        if re.fullmatch(pattern, path):
            found |= {method.upper() for method in operations}
    return sorted(found or {"GET"})


def _serve_docs(app: FastAPI) -> None:
    @app.get("/api/openapi.json", include_in_schema=False)
    async def openapi_json() -> Response:
        return JSONResponse(openapi(app))

    @app.get("/api/docs", include_in_schema=False)
    async def docs_page() -> Response:
        policy = "default-src 'none'; style-src 'unsafe-inline'"
        return HTMLResponse(docs.page(openapi(app)), headers={"Content-Security-Policy": policy})


def _serve_console(app: FastAPI, settings: Settings) -> None:
    @app.get(CONSOLE, include_in_schema=False)
    async def console_home() -> Response:
        return RedirectResponse(f"{CONSOLE}/", 307)

    app.mount(CONSOLE, create_console(settings, app.state))


class Server(uvicorn.Server):
    """Ends open event streams before uvicorn waits for connections to close, which it would do in vain."""

    def __init__(self, settings: Settings, app: FastAPI) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                host=settings.api_host,
                port=settings.api_port,
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=SHUTDOWN_S,
                timeout_keep_alive=KEEP_ALIVE_S,
                lifespan="on",
            )
        )
        self._api = app

    @override
    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        opened = getattr(self._api.state, "services", None)
        if isinstance(opened, Services):
            opened.tail.stop()
        await super().shutdown(sockets)


async def serve(settings: Settings) -> None:
    """Open every part, then listen until a signal comes. Raises what keeps a part from opening."""
    async with open_services(settings) as opened:
        log.info("api.open", address=f"{settings.api_host}:{settings.api_port}", rules=opened.engine.version[:12])
        keeper = Keeper(opened.audit, Publisher(opened.database, settings.keys, settings.anchor), copies(settings))
        keeping = asyncio.create_task(keeper.run())
        try:
            await Server(settings, create_app(settings, opened)).serve()
        finally:
            keeping.cancel()
            await asyncio.gather(keeping, return_exceptions=True)


def main() -> None:
    """Serve until SIGTERM or SIGINT, then 0. Status 1, after one line that says why, when it cannot start."""
    settings = Settings()
    telemetry.configure(settings.log_level.upper(), process="api", redacts=temporal.redactor(settings))
    logging.getLogger("alembic").setLevel(logging.WARNING)  # it reports on every readiness probe
    for number in (signal.SIGTERM, signal.SIGINT):
        # uvicorn drains on a signal and then raises it anew; drained is how this process is meant to end.
        signal.signal(number, _drained)
    run(serve(settings), log, fault="api.cannot_start", plain=_CANNOT_OPEN)


def _drained(number: int, _frame: FrameType | None) -> None:
    log.info("api.stopped", signal=signal.Signals(number).name)


_CANNOT_OPEN = (
    StoreUnavailable,
    OidcUnreachable,
    SourceError,
    ToolError,
    KeyFileUnsafe,
    OSError,
    ValueError,
    RuntimeError,
)


if __name__ == "__main__":
    main()
