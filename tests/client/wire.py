"""A wire between client and API that breaks as it is told: it loses answers, cuts streams, or answers itself."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

LOST = b""
"""The request arrives, the answer does not."""
Fault = bytes | int
"""Bytes: what is answered instead (nothing at all for LOST, which reaches the API). A number: the answer is cut behind
so many bytes."""


def problem(status: int, kind: str, **headers: str) -> bytes:
    """An answer of the API's shape."""
    body = f'{{"title": "x", "status": {status}, "detail": "not now", "kind": "{kind}"}}'.encode()
    lines = [f"HTTP/1.1 {status} x", "Content-Type: application/problem+json", f"Content-Length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "Connection: close", "", ""]).encode() + body


@dataclass
class Wire:
    """One request a connection. `faults` are used up one by one; then everything passes."""

    url: str
    faults: list[Fault]
    requests: list[str] = field(default_factory=list[str])
    """Request lines and headers, as they came."""


@asynccontextmanager
async def wire(to: str, *faults: Fault) -> AsyncGenerator[Wire]:
    """Listen, and hand on to the API at the address `to`."""
    host, _, port = to.removeprefix("http://").partition(":")
    found = Wire("", list(faults))

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            await _carry(found, reader, writer, host, int(port))
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    found.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield found
    finally:
        server.close()


async def _carry(found: Wire, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: str, port: int) -> None:
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    found.requests.append(head)
    length = next((int(h[15:]) for h in head.lower().split("\r\n") if h.startswith("content-length:")), 0)
    body = await reader.readexactly(length)
    fault = found.faults.pop(0) if found.faults else None
    if isinstance(fault, bytes) and fault != LOST:
        writer.write(fault)
        await writer.drain()
        return
    answer, upstream = await asyncio.open_connection(host, port)
    upstream.write(head.replace("Connection: keep-alive", "Connection: close").encode() + body)
    left = fault if isinstance(fault, int) else None
    while (left is None or left > 0) and (chunk := await answer.read(left or 1 << 16)):
        if fault != LOST:
            writer.write(chunk)
            await writer.drain()
        left = None if left is None else left - len(chunk)
    upstream.close()
