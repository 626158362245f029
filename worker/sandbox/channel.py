"""The worker's end of a box: one attach connection, the job going in, the supervisor's frames coming out.

The other end is hostile in principle: a length is bounded before it is believed, and nothing is read without a limit.
"""

import asyncio
import secrets as secrets_
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from worker.sandbox.engine import Engine

READY: Final = b"R"
STDOUT: Final = b"O"
STDERR: Final = b"E"
REPORT: Final = b"X"

_DOCKER_HEADER: Final = 8
_FRAME_HEADER: Final = 5
# The supervisor writes at most 64 KiB a frame.
_MAX_FRAME: Final = 1 << 16
_READ: Final = 1 << 16
_COMPLAINT_BYTES: Final = 4096


class ChannelClosed(Exception):  # noqa: N818
    """The box ended, or broke the protocol, before its report. `complaint` is the tail of what process 1 wrote."""

    def __init__(self, reason: str, complaint: str = "") -> None:
        super().__init__(f"{reason}: {complaint}" if complaint else reason)
        self.complaint = complaint


@dataclass(frozen=True)
class Header:
    """First parts of a job: its limits, variables, command line and secrets. No string may contain a NUL."""

    timeout_s: float
    output_bytes: int
    workspace_bytes: int
    workspace_growth_bytes: int
    workspace_entries: int
    command: Sequence[str]
    variables: Mapping[str, str] = field(default_factory=dict[str, str])
    secrets: Mapping[str, bytes] = field(default_factory=dict[str, bytes], repr=False)
    token: int = field(default_factory=lambda: secrets_.randbits(128), repr=False)
    """What only process 1 learns: its report begins with it."""

    def vouched(self, report: bytes) -> bytes | None:
        """The report without its token; None when it is not from process 1."""
        token, _, rest = report.partition(b" ")
        return rest if secrets_.compare_digest(token, str(self.token).encode()) else None

    def encode(self) -> bytes:
        """As the supervisor reads it."""
        numbers = (
            int(self.timeout_s * 1000), self.output_bytes, self.workspace_bytes, self.workspace_growth_bytes,
            self.workspace_entries, self.token, len(self.secrets), len(self.variables),
        )  # fmt: skip
        variables = (f"{name}={value}" for name, value in self.variables.items())
        return "\0".join([*map(str, numbers), *self.secrets, *variables, *self.command]).encode()


class Channel:
    """An open attach connection. Close it before anything else is asked of the container: an attach stream that nobody
    reads blocks kill, inspect and remove until the engine's own time-out."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._raw = bytearray()
        self._stream, self._left = 1, 0
        self._complaint = b""

    @classmethod
    async def open(cls, engine: Engine, container: str) -> "Channel":
        """Attach to a created container before it starts, so that no output is missed."""
        path = f"/containers/{container}/attach?stream=1&stdin=1&stdout=1&stderr=1"
        return cls(*await engine.open_stream(path))

    async def send(self, header: Header, program: bytes, stdin: bytes) -> None:
        """Hand the job over. Raises ChannelClosed."""
        try:
            for part in (header.encode(), *header.secrets.values(), program, stdin):
                self._writer.write(len(part).to_bytes(4, "big"))
                self._writer.write(part)
            await self._writer.drain()
        except OSError as error:
            raise ChannelClosed("the box went away before its job", self._tail()) from error

    async def frames(self) -> AsyncIterator[tuple[bytes, bytes]]:
        """(kind, content) until the box closes its output. Raises ChannelClosed on a broken frame or connection."""
        frames = bytearray()
        while True:
            while len(frames) >= _FRAME_HEADER:
                length = int.from_bytes(frames[1:5], "big")
                if length > _MAX_FRAME:
                    raise ChannelClosed(f"a frame of {length} bytes", self._tail())
                if len(frames) < _FRAME_HEADER + length:
                    break
                frame = bytes(frames[:1]), bytes(frames[_FRAME_HEADER : _FRAME_HEADER + length])
                del frames[: _FRAME_HEADER + length]
                yield frame
            try:
                data = await self._reader.read(_READ)
            except OSError as error:
                raise ChannelClosed("the connection to the engine broke", self._tail()) from error
            if not data:
                return
            self._raw += data
            frames += self._demultiplex()

    def _demultiplex(self) -> bytes:
        """Standard output out of the engine's stream; the tail of standard error is kept aside."""
        out = bytearray()
        position = 0
        while position < len(self._raw):
            if self._left == 0:
                if len(self._raw) - position < _DOCKER_HEADER:
                    break
                self._stream = self._raw[position]
                self._left = int.from_bytes(self._raw[position + 4 : position + 8], "big")
                position += _DOCKER_HEADER
                continue
            count = min(self._left, len(self._raw) - position)
            piece = self._raw[position : position + count]
            if self._stream == 1:
                out += piece
            else:
                self._complaint = (self._complaint + piece)[-_COMPLAINT_BYTES:]
            position += count
            self._left -= count
        del self._raw[:position]
        return bytes(out)

    def _tail(self) -> str:
        return self._complaint.decode(errors="replace").strip()

    @property
    def ended(self) -> bool:
        """Whether the engine closed the connection and everything that came before was read."""
        return self._reader.at_eof() or self._writer.is_closing()

    @property
    def complaint(self) -> str:
        """Tail of what process 1 itself wrote to standard error; empty when all is well."""
        return self._tail()

    def close(self) -> None:
        """Drop the connection at once, unread data included."""
        self._writer.transport.abort()
