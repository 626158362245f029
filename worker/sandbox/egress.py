"""The way out of a box: one proxy on one unix socket for one call, gone with the call.

The box has no network at all. The folder that holds the socket is mounted into it, read-only; `relay` gives ordinary
clients 127.0.0.1:3128 in front of it. Runs on the sandbox worker, whose resolver and network the proxy uses.
"""

import asyncio
import dataclasses
import os
import secrets
import shutil
import socket
import ssl
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from worker.sandbox.addresses import Resolve, public_targets
from worker.sandbox.container import Job
from worker.sandbox.engine import SandboxUnavailable
from worker.sandbox.grant import Grant, Traffic
from worker.sandbox.process import is_dead, this_process
from worker.sandbox.proxy import Proxy
from worker.sandbox.proxy_request import HEAD_BYTES

SOCKET: Final = "proxy"
"""Name of the socket in the folder."""
_RELAY: Final = Path(__file__).with_name("relay.py").read_text()
_RELAY_AT: Final = "http://127.0.0.1:3128"
_OWNER: Final = "owner"
# As many connections are accepted at a time, before the proxy can turn any away.
_BACKLOG: Final = 16


@dataclass(frozen=True)
class Way:
    """An open way out: what to mount (`Job.egress`), and the account of what went through."""

    folder: str
    traffic: Traffic


def through(job: Job, way: Way) -> Job:
    """The same job with this way out: the socket mounted, the relay before the program, the usual variables set."""
    variables = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), _RELAY_AT)
    return dataclasses.replace(
        job,
        command=("python3", "-I", "-S", "-c", _RELAY, *job.command),
        variables={**variables, **job.variables},
        egress=way.folder,
    )


class Egress:
    """Opens ways out under `folder`, which nobody else may enter.

    `resolve` and `tls` are the public internet and the machine's certificate authorities. No setting reaches them:
    whoever passes others (tests do) decides what the proxy connects to.
    """

    def __init__(self, folder: Path, *, resolve: Resolve | None = None, tls: ssl.SSLContext | None = None) -> None:
        self._folder = folder.resolve()
        self._resolve = resolve or public_targets()
        self._tls = tls or ssl.create_default_context()

    @asynccontextmanager
    async def open(self, grant: Grant) -> AsyncGenerator[Way]:
        """Listen for one call; everything is closed and removed at the end. Raises SandboxUnavailable."""
        place = self._folder / secrets.token_hex(8)
        proxy = Proxy(grant, resolve=self._resolve, tls=self._tls)
        try:
            listening = await asyncio.to_thread(self._listen, place)
        except OSError as error:
            shutil.rmtree(place, ignore_errors=True)
            raise SandboxUnavailable(f"no egress proxy: {error}", f"look at {self._folder}") from error
        server = await asyncio.start_unix_server(
            proxy.accept, sock=listening, limit=HEAD_BYTES, backlog=_BACKLOG, start_serving=False
        )
        proxy.attach(server)
        try:
            await server.start_serving()
            yield Way(str(place / "box"), proxy.traffic)
        finally:
            await proxy.close()
            await asyncio.to_thread(shutil.rmtree, place, ignore_errors=True)

    def _listen(self, place: Path) -> socket.socket:
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        place.mkdir(mode=0o700)
        (place / _OWNER).write_text(this_process())
        box = place / "box"
        box.mkdir()
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        handle = os.open(box, os.O_RDONLY | os.O_DIRECTORY)
        try:
            # Through the open folder: an address may have 107 bytes only, a data folder's path more.
            listening.bind(f"/proc/self/fd/{handle}/{SOCKET}")
        except OSError:
            listening.close()
            raise
        finally:
            os.close(handle)
        # Whoever is in the box may connect; on the host, nobody gets past the outer folders.
        (box / SOCKET).chmod(0o666)
        box.chmod(0o755)
        return listening

    def sweep(self) -> int:
        """Remove what workers that are dead left behind; gives the number of ways."""
        count = 0
        for place in self._folder.glob("*/"):
            try:
                owner = (place / _OWNER).read_text()
            except OSError:
                continue
            if is_dead(owner):
                shutil.rmtree(place, ignore_errors=True)
                count += 1
        return count
