"""What a request may bring: body size per route, safe file names, safe download headers, a cap on repeated records."""

import re
import time
import unicodedata
from collections.abc import Callable
from urllib.parse import quote

from fastapi import Request
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.errors import Refused, invalid, problem_response
from worker.store.files import BadFileName, check_name

JSON_BODY_BYTES = 1 << 20
"""Cap on every request body that is not an upload or a policy."""
POLICY_BODY_BYTES = 8 << 20
"""Enough for the files of some 10,000 rules."""


class BodyTooLarge(HTTPException):
    """The body went over the limit while it was read; the handlers answer 413."""

    def __init__(self, limit: int) -> None:
        super().__init__(413, f"the body is larger than {limit:,} bytes")


class RequestLimits:
    """ASGI middleware: refuses a body over `limit(method, path)` bytes, by its declared length before anything is read
    and by its real length while it is read; refuses NUL in an address, which no database text can hold.

    The framework's own limiter answers in plain text; this one answers with a problem."""

    def __init__(self, app: ASGIApp, limit: Callable[[str, str], int]) -> None:
        self._app = app
        self._limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: D102  (ASGI)
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if "\x00" in scope["path"] or b"%00" in scope["query_string"]:
            refused = Refused(400, "bad_request", "the address holds a NUL character", remedy="leave it out")
            await problem_response(Request(scope), refused)(scope, receive, send)
            return
        limit = self._limit(scope["method"], scope["path"])
        declared = _content_length(scope)
        if declared is not None and declared > limit:
            refused = Refused(413, "too_large", BodyTooLarge(limit).detail, remedy="send less, or split it")
            # The unread body makes the connection useless for another request.
            refused.headers["Connection"] = "close"
            await problem_response(Request(scope), refused)(scope, receive, send)
            return
        seen = 0

        async def counted() -> Message:
            nonlocal seen
            message = await receive()
            if message["type"] == "http.request":
                seen += len(message.get("body", b""))
                if seen > limit:
                    raise BodyTooLarge(limit)
            return message

        await self._app(scope, counted, send)


class Throttle:
    """Lets so many through a minute and counts the rest."""

    def __init__(self, per_minute: int) -> None:
        self._per_minute = per_minute
        self._window = -60.0
        self._used = 0
        self._suppressed = 0

    def take(self) -> int | None:
        """How many were held back since the last that came through, or None when this one is held back too."""
        now = time.monotonic()
        if now - self._window >= 60:
            self._window, self._used = now, 0
        if self._used >= self._per_minute:
            self._suppressed += 1
            return None
        self._used += 1
        suppressed, self._suppressed = self._suppressed, 0
        return suppressed


def _content_length(scope: Scope) -> int | None:
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit():
            return int(value)
    return None


def safe_name(name: str, field: str) -> str:
    """The file name as it will appear under `in/` of the workspace, in normal form C. Refuses, never rewrites: a name
    that silently changes would not be found again. Raises Refused 422 naming `field`."""
    name = unicodedata.normalize("NFC", name)
    try:
        check_name(name)
    except (BadFileName, ValueError) as error:
        raise invalid(field, str(error), "give a plain file name such as `app.log`, without folders") from error
    return name


def attachment(name: str) -> str:
    """Content-Disposition that makes a browser save the file, whatever its name holds (RFC 6266)."""
    plain = re.sub(r"[^A-Za-z0-9._ -]", "_", name.rsplit("/", 1)[-1])[:200] or "file"
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name.rsplit('/', 1)[-1], safe='')}"
