"""Reads the server name out of the first TLS message, as far as an observer can: no decryption, no trust.

The proxy lets a connection to port 443 pass only when this names the host that was asked for.
"""

import asyncio
from typing import Final, NamedTuple

MAX_BYTES: Final = 16 << 10
"""Of the whole ClientHello with its record headers; the largest in use are below 3 KiB."""

_RECORD_HEADER: Final = 5
_HANDSHAKE: Final = 22
_CLIENT_HELLO: Final = 1
_SERVER_NAME: Final = 0
_ENCRYPTED_HELLO: Final = 0xFE0D
_MAX_RECORD: Final = 1 << 14


class NotTls(Exception):  # noqa: N818
    """What came is not the start of a TLS connection."""


class Hello(NamedTuple):
    """A ClientHello: the bytes as they came, and what they say."""

    raw: bytes
    server_name: str | None
    """None when it names none, or more than one."""
    encrypted: bool
    """It carries another, encrypted hello (ECH), whose server name nobody between can see."""


async def read(reader: asyncio.StreamReader) -> Hello:
    """Read exactly the records that hold the ClientHello. Raises NotTls, also when the connection ends first."""
    raw, message = bytearray(), bytearray()
    try:
        while len(message) < 4 or len(message) < 4 + int.from_bytes(message[1:4], "big"):
            header = await reader.readexactly(_RECORD_HEADER)
            length = int.from_bytes(header[3:5], "big")
            if header[0] != _HANDSHAKE or header[1] != 3 or not 0 < length <= _MAX_RECORD:
                raise NotTls("the first bytes are not a TLS handshake")
            raw += header
            if len(raw) + length > MAX_BYTES:
                raise NotTls(f"a ClientHello of more than {MAX_BYTES} bytes")
            content = await reader.readexactly(length)
            raw += content
            message += content
            if message[0] != _CLIENT_HELLO:
                raise NotTls("the first TLS message is not a ClientHello")
    except asyncio.IncompleteReadError as error:
        raise NotTls("the connection ended before a ClientHello") from error
    if len(message) != 4 + int.from_bytes(message[1:4], "big"):
        raise NotTls("there is more than a ClientHello before the server answered")
    try:
        name, encrypted = _extensions(_Fields(bytes(message[4:])))
    except (IndexError, UnicodeDecodeError) as error:
        raise NotTls("the ClientHello is malformed") from error
    return Hello(bytes(raw), name, encrypted)


class _Fields:
    """Walks length-prefixed fields; raises IndexError at their end."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def __bool__(self) -> bool:
        return self._at < len(self._data)

    def take(self, count: int) -> bytes:
        piece = self._data[self._at : self._at + count]
        if len(piece) != count:
            raise IndexError
        self._at += count
        return piece

    def number(self, width: int) -> int:
        return int.from_bytes(self.take(width), "big")

    def vector(self, width: int) -> "_Fields":
        return _Fields(self.take(self.number(width)))

    def rest(self) -> bytes:
        return self.take(len(self._data) - self._at)


def _extensions(hello: _Fields) -> tuple[str | None, bool]:
    hello.take(2 + 32)  # version, random
    hello.vector(1)  # session id
    hello.vector(2)  # cipher suites
    hello.vector(1)  # compression methods
    names: list[str] = []
    encrypted = False
    extensions = hello.vector(2) if hello else _Fields(b"")
    if hello:
        raise IndexError
    while extensions:
        kind, content = extensions.number(2), extensions.vector(2)
        encrypted = encrypted or kind == _ENCRYPTED_HELLO
        if kind != _SERVER_NAME:
            continue
        entries = content.vector(2)
        while entries:
            entries.take(1)  # only host names exist
            names.append(entries.vector(2).rest().decode("ascii"))
    return (names[0].lower() if len(names) == 1 else None), encrypted
