"""One supervised child: how to start it, when it serves, and starting it again after it died."""

import asyncio
import os
import shutil
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from api.supervisor import bound
from api.supervisor.processes import Identity, identify

LOG_BYTES = 20 << 20
"""A log beyond this size is copied to `<name>.log.1` and emptied."""
STEADY_S = 60.0
"""Up this long, a child's earlier deaths are forgotten."""
LONGEST_PAUSE_S = 30.0


@dataclass
class Child:
    """A program of the system. `serves` answers whether it does its work yet (None: nothing to wait for)."""

    name: str
    argv: list[str]
    env: Mapping[str, str]
    log: Path
    serves: Callable[[], Awaitable[bool]] | None = None
    process: asyncio.subprocess.Process | None = None
    identity: Identity | None = None
    deaths: int = 0
    _log_start: int = 0
    _since: float = field(default_factory=time.monotonic)

    @property
    def running(self) -> bool:
        """Whether its process is alive."""
        return self.process is not None and self.process.returncode is None

    async def start(self) -> None:
        """Start the program in its own session (a Ctrl-C at our terminal is ours alone), output to its log."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self.trim_log()
        with self.log.open("ab") as sink:
            self._log_start = sink.tell()
            self.process = await asyncio.create_subprocess_exec(
                *[sys.executable, "-I", "-S", bound.__file__, str(os.getpid()), *self.argv],
                stdin=asyncio.subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
                env=dict(self.env),
                start_new_session=True,
            )
        self._since = time.monotonic()
        await self._settle()

    async def _settle(self) -> None:
        """Wait until the launcher has become the program, so that the recorded command line is the program's."""
        pid = self.process.pid if self.process else 0
        for _ in range(200):
            self.identity = identify(pid)
            if not self.running or (self.identity and bound.__file__ not in self.identity.command):
                return
            await asyncio.sleep(0.005)

    def logged(self, words: bytes) -> bool:
        """Whether the program has written these words since it was started last."""
        with self.log.open("rb") as source:
            source.seek(self._log_start)
            return words in source.read(1 << 20)

    def pause_before_restart(self) -> float:
        """Count a death; seconds to wait before the next start (0.5, 1, 2, ... 30)."""
        if time.monotonic() - self._since > STEADY_S:
            self.deaths = 0
        self.deaths += 1
        return min(0.5 * 2 ** (self.deaths - 1), LONGEST_PAUSE_S)

    def trim_log(self) -> None:
        """Keep the log bounded; the child goes on appending to the emptied file."""
        try:
            if self.log.stat().st_size > LOG_BYTES:
                shutil.copyfile(self.log, self.log.with_suffix(".log.1"))
                os.truncate(self.log, 0)
        except FileNotFoundError:
            pass

    def last_words(self, lines: int = 8) -> str:
        """End of its log, for a message."""
        try:
            with self.log.open("rb") as source:
                source.seek(max(0, self.log.stat().st_size - 16_384))
                text = source.read().decode(errors="replace")
        except OSError:
            return ""
        return "\n".join(f"    {line[:300]}" for line in text.splitlines()[-lines:])


async def listens(host: str, port: int) -> bool:
    """Whether somebody accepts connections there."""
    try:
        _, writer = await asyncio.wait_for(asyncio.open_connection(host, port), 1.0)
    except (OSError, TimeoutError):
        return False
    writer.close()
    return True


async def answers(host: str, port: int, path: str) -> tuple[int, bytes]:
    """Status and body of one plain HTTP GET on this machine; status 0 when nobody answers."""
    try:
        reader, writer = await asyncio.wait_for(asyncio.open_connection(host, port), 1.0)
        writer.write(f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n\r\n".encode())
        raw = await asyncio.wait_for(reader.read(65_536), 5.0)
        writer.close()
        head, _, body = raw.partition(b"\r\n\r\n")
        return int(head.split()[1]), body
    except (OSError, TimeoutError, IndexError, ValueError):
        return 0, b""
