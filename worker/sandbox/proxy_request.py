"""One request head as a program in a box sends it to the egress proxy. Parsed strictly: what is odd is refused, because
two parsers that disagree about a request are a way around the one that checks."""

import asyncio
import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from tools.egress import HTTP, HTTPS, normal_host

HEAD_BYTES: Final = 16 << 10
"""Most bytes of request line and headers; also the stream limit of the proxy's readers."""

_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_HEADER = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([\x21-\xff](?:[\t\x20-\xff]*[\x21-\xff])?)?[ \t]*")
_TARGET = re.compile(r"[\x21-\x7e]+")
_AUTHORITY = re.compile(r"(\[[^\[\]@/?#]+\]|[^:@/?#\[\]]+)(?::([0-9]{1,5}))?")
# Of one hop, or written by the proxy itself.
_DROPPED: Final = frozenset(
    {"connection", "keep-alive", "te", "trailer", "upgrade", "host", "expect", "content-length", "accept-encoding",
     "http2-settings", "forwarded", "via"}
)  # fmt: skip


class Refused(Exception):  # noqa: N818
    """The proxy does not do this. `reason` is told to the program; `detail` only to the audit."""

    def __init__(
        self, kind: str, reason: str, *, status: int = 403, host: str = "", port: int = 0, detail: str = ""
    ) -> None:
        super().__init__(reason)
        self.kind = kind
        self.reason = reason
        self.status = status
        self.host = host
        self.port = port
        self.detail = detail


@dataclass(frozen=True)
class Request:
    """What the program asks for."""

    method: str
    """CONNECT, or an HTTP method with an absolute URL."""
    host: str
    """A normal DNS name; it may or may not be allowed."""
    port: int
    target: str = ""
    """Path and query for the server; empty for CONNECT."""
    headers: tuple[tuple[bytes, bytes], ...] = ()
    """As sent, without those of one hop."""
    body_bytes: int = 0
    waits: bool = False
    """The client wants to be told before it sends the body (Expect: 100-continue)."""


async def read(reader: asyncio.StreamReader, *, within_s: float) -> Request | None:
    """The next request; None when the program closed without one. Raises Refused."""
    try:
        async with asyncio.timeout(within_s):
            head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as error:
        if not error.partial:
            return None
        raise _bad("the request head is cut off") from error
    except asyncio.LimitOverrunError as error:
        raise Refused("header_size", f"request line and headers above {HEAD_BYTES} bytes", status=431) from error
    except TimeoutError as error:
        raise Refused("timeout", f"no request head within {within_s:g} s", status=408) from error
    line, *lines = head[:-4].split(b"\r\n")
    words = line.decode("latin-1").split(" ")
    if len(words) != 3 or words[2] not in ("HTTP/1.1", "HTTP/1.0") or not _TARGET.fullmatch(words[1]):
        raise _bad("the request line is not METHOD target HTTP/1.1")
    headers = [_header(text) for text in lines]
    if words[0] == "CONNECT":
        return _connect(words[1])
    if words[0] in _METHODS:
        return _absolute(words[0], words[1], headers)
    raise Refused("method", f"the method {words[0][:20]} is not supported", status=405)


def _bad(why: str) -> Refused:
    return Refused("bad_request", why, status=400)


def _header(line: bytes) -> tuple[bytes, bytes]:
    match = _HEADER.fullmatch(line)
    if match is None:
        raise _bad("a header line is malformed")
    return match[1], match[2] or b""


def _host_port(authority: str, default: int | None) -> tuple[str, int]:
    match = _AUTHORITY.fullmatch(authority)
    if match is None or (match[2] is None and default is None):
        raise _bad("the host is not written host:port")
    port = int(match[2]) if match[2] else default or 0
    host = normal_host(match[1])
    if host is None:
        name = match[1][:100]
        raise Refused("host", "only DNS names are allowed, no IP addresses or bare words", host=name, port=port)
    if port not in (HTTP, HTTPS):
        raise Refused("port", f"port {port} is closed; only 443 and 80 can be opened", host=host, port=port)
    return host, port


def _connect(target: str) -> Request:
    host, port = _host_port(target, None)
    if port != HTTPS:
        raise Refused("port", "a tunnel leads to port 443 only", host=host, port=port)
    return Request("CONNECT", host, port)


def _absolute(method: str, url: str, headers: list[tuple[bytes, bytes]]) -> Request:
    if not url.lower().startswith("http://"):
        raise _bad("the target is not an absolute http:// URL")
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise _bad("the target is not a URL") from error
    host, port = _host_port(parts.netloc, HTTP)
    low = [(name.lower().decode(), value) for name, value in headers]
    if any(name == "transfer-encoding" for name, _ in low):
        raise Refused("length", "send a body with Content-Length", status=411, host=host, port=port)
    lengths = {value for name, value in low if name == "content-length"}
    if len(lengths) > 1 or any(not re.fullmatch(rb"[0-9]{1,12}", value) for value in lengths):
        raise _bad("Content-Length is not one number")
    hop = {
        word.strip().lower().decode("latin-1")
        for name, value in low
        if name == "connection"
        for word in value.split(b",")
    }
    kept = tuple(
        (name, value)
        for name, value in headers
        if (plain := name.lower().decode()) not in _DROPPED and plain not in hop and not plain.startswith("proxy-")
    )
    return Request(
        method, host, port,
        target=(parts.path or "/") + (f"?{parts.query}" if parts.query else ""),
        headers=kept,
        body_bytes=int(lengths.pop()) if lengths else 0,
        waits=any(name == "expect" for name, _ in low),
    )  # fmt: skip
