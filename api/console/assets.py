"""Files the pages load: our own CSS and scripts from the package, component CSS and htmx from where set-up put them.

Their addresses carry a digest of the content, so browsers keep them for good and never mix two versions.
"""

import hashlib
import sys
from functools import cache
from pathlib import Path

from fastapi import APIRouter, Request
from starlette.exceptions import HTTPException
from starlette.responses import Response

OWN = Path(__file__).with_name("static")
FETCHED = Path(sys.prefix) / "share" / "gatehouse" / "console"
"""Filled by `deploy/assets.py`."""
NEEDED = ("pico.min.css", "htmx.min.js", "hx-sse.min.js")
_TYPES = {".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml"}

router = APIRouter()


def missing() -> list[str]:
    """Fetched files that are not there: the pages work without them, and say so."""
    return [name for name in NEEDED if not (FETCHED / name).is_file()]


def address(name: str) -> str:
    """Where the page finds a file."""
    return f"/console/static/{_read(name)[1][:16]}/{name}"


@cache
def _read(name: str) -> tuple[bytes, str]:
    content = ((FETCHED if name in NEEDED else OWN) / name).read_bytes()
    return content, hashlib.sha256(content).hexdigest()


def _names() -> list[str]:
    return [*(p.name for p in OWN.iterdir() if p.suffix in _TYPES), *NEEDED]


@router.get("/static/{digest}/{name}")
async def static_file(digest: str, name: str, request: Request) -> Response:
    """One file. Needs no session: nothing here is secret, and the sign-in page loads them."""
    try:
        if name not in _names():
            raise FileNotFoundError(name)
        content, found = _read(name)
    except OSError:
        raise HTTPException(404) from None
    etag = f'"{found}"'
    headers = {"ETag": etag, "Cache-Control": "public, max-age=31536000, immutable"}
    if not found.startswith(digest):  # an old page asks for what is no longer there: give the new one, unkept
        headers["Cache-Control"] = "no-cache"
    if request.headers.get("if-none-match") == etag:
        return Response(status_code=304, headers=headers)
    return Response(content, media_type=_TYPES[Path(name).suffix], headers=headers)
