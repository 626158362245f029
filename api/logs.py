"""One log line a request: what was asked, by whom, what came of it, how long it took. No body, no query, no key."""

import time

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from worker.store.ids import new_id

REQUEST_ID = "X-Request-Id"

log = structlog.stdlib.get_logger(__name__)


class RequestLog:
    """ASGI middleware: gives each request an id, which the answer carries as `X-Request-Id` and every log line of the
    request as `request`. Probes are logged at debug level."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: D102  (ASGI)
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begin, request_id = time.perf_counter(), new_id("req")
        status = 500
        scope.setdefault("state", {})

        async def marked(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", []), (REQUEST_ID.lower().encode(), request_id.encode())]
            await send(message)

        with structlog.contextvars.bound_contextvars(request=request_id):
            try:
                await self._app(scope, receive, marked)
            finally:
                write = log.debug if scope["path"].endswith(("/health", "/ready")) else log.info
                write(
                    "request",
                    method=scope["method"],
                    path=scope["path"],
                    status=status,
                    principal=scope["state"].get("principal"),
                    ms=round((time.perf_counter() - begin) * 1000, 1),
                )
