"""Parts of a download (RFC 9110, one range of bytes): what a client asks for that goes on where it was cut off."""

import re
from collections.abc import AsyncGenerator, AsyncIterator

from api.errors import Refused

_ONE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")


def asked(header: str | None, size: int) -> tuple[int, int] | None:
    """First byte and the one after the last; None to serve everything: none is asked for, or none that we serve.

    Raises Refused (416) for one that begins behind the end.
    """
    found = _ONE.fullmatch((header or "").strip())
    if found is None or found.group(0) == "bytes=-":
        return None
    first, last = found.groups()
    if not first:
        start, end = max(0, size - int(last)), size
    else:
        start, end = int(first), min(size, int(last) + 1) if last else size
        if last and int(last) < start:
            return None
    if start >= size or start >= end:
        raise Refused(
            416, "range", f"there are {size} bytes, none of them in {found.group(0)}", remedy="ask for none or another",
            headers={"Content-Range": f"bytes */{size}"},
        )  # fmt: skip
    return start, end


async def part(content: AsyncIterator[bytes], start: int, end: int) -> AsyncIterator[bytes]:
    """The bytes from `start` up to `end`. What lies before is read and dropped: no backend has to seek."""
    at = 0
    try:
        async for chunk in content:
            if at + len(chunk) > start:
                yield chunk[max(0, start - at) : end - at]
            at += len(chunk)
            if at >= end:
                return
    finally:
        if isinstance(content, AsyncGenerator):
            await content.aclose()
