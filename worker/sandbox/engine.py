"""The Docker engine as the sandbox uses it: a narrow typed view, a bounded thread pool, one error for "not there".

Runs on the sandbox worker and in set-up. Nothing here decides how a box looks; see `profile`.
"""

import asyncio
import os
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Final, Self, TypeVar, cast
from urllib.parse import urlsplit

import docker
import docker.errors
import docker.utils
import requests.exceptions
from pydantic import JsonValue

from tools.contract import JsonObject
from worker.sandbox.docker_api import DockerApi
from worker.sandbox.facts import EngineFacts

T = TypeVar("T")

LABEL_OWNER: Final = "gatehouse.owner"
LABEL_KIND: Final = "gatehouse.kind"
LABEL_RUN: Final = "gatehouse.run"
LABEL_CALL: Final = "gatehouse.call"
LABEL_ATTEMPT: Final = "gatehouse.attempt"

# One request to the engine; generous, because a loaded engine answers `start` late. Not the deadline of a call.
REQUEST_TIMEOUT_S: Final = 60.0
_ASK_AGAIN_S: Final = 0.25
# How the engine says that its own containerd is away or coming back.
_RUNTIME_AWAY: Final = (
    "transport is closing",
    "connection error: desc",
    "code = Unavailable",
    "daemon is shutting down",
)


class SandboxUnavailable(Exception):  # noqa: N818 - the name is the condition, as in the port's error type
    """No box can be had: no engine answers, it refused our request, or it does not enforce what was asked.

    `remedy` says what a person can do about it.
    """

    def __init__(self, problem: str, remedy: str) -> None:
        super().__init__(f"{problem} ({remedy})")
        self.problem = problem
        self.remedy = remedy


class EngineAway(SandboxUnavailable):
    """No engine answers, or the connection to it broke: it may be restarting."""


class NotFound(Exception):  # noqa: N818
    """The engine does not know this container, volume or image."""


class Conflict(Exception):  # noqa: N818
    """The engine cannot do it in the object's present state (409)."""


def address_of(docker_host: str | None) -> str:
    """The engine's address: the one given, else what the SDK finds (DOCKER_HOST), else the local socket.

    Raises SandboxUnavailable for one we cannot hold an attach stream to.
    """
    found = cast(Mapping[str, object], docker.utils.kwargs_from_env())
    address = docker_host or str(found.get("base_url") or "") or "unix:///var/run/docker.sock"
    if urlsplit(address).scheme not in ("unix", "tcp", "http") or "tls" in found:
        raise SandboxUnavailable(
            f"a Docker engine at {address} with these settings is not supported",
            "use unix://, or tcp:// without TLS on a private network, for instance through an SSH tunnel",
        )
    return address


def connect(docker_host: str | None = None, *, timeout_s: float = REQUEST_TIMEOUT_S) -> DockerApi:
    """A client of the engine at `address_of(docker_host)`. Raises SandboxUnavailable when nothing answers there."""
    address = address_of(docker_host)
    try:
        api = docker.APIClient(base_url=address, version="auto", timeout=cast(int, timeout_s), max_pool_size=32)
    except (docker.errors.DockerException, requests.exceptions.RequestException, OSError) as error:
        raise _unreachable(error, address) from error
    return cast(DockerApi, api)


def _unreachable(error: BaseException, address: str = "its address") -> EngineAway:
    return EngineAway(
        f"no Docker engine answers at {address}: {error}",
        "start it (`dockerd` or `systemctl start docker`), join the group `docker`, or set GATEHOUSE_DOCKER_HOST",
    )


def translated(error: Exception) -> Exception:
    """Our error for one of the SDK's; every other exception comes back as it is."""
    if isinstance(error, docker.errors.NotFound):
        return NotFound(str(error))
    if isinstance(error, docker.errors.APIError):
        explanation = str(cast(object, error.explanation) or error)
        if error.status_code == 409:
            return Conflict(explanation)
        kind = EngineAway if any(words in explanation for words in _RUNTIME_AWAY) else SandboxUnavailable
        return kind(f"the Docker engine refused: {explanation}", "see `gatehouse doctor`")
    if isinstance(error, docker.errors.DockerException | requests.exceptions.RequestException | OSError):
        return _unreachable(error)
    return error


class Engine:
    """The engine for asyncio code: SDK calls run in a bounded pool of threads of its own.

    The SDK connects on first use, so an Engine may be made while the engine is down; calls then raise
    SandboxUnavailable, and work again once it is back.
    """

    def __init__(self, docker_host: str | None = None, *, threads: int = 16, patience_s: float = 0.0) -> None:
        """`patience_s`: how long `patiently` waits for an engine that went away."""
        self._host = docker_host
        self._api: DockerApi | None = None
        self._patience_s = patience_s
        self._missed_at: float | None = None
        self.undisposed: set[str] = set()
        """Containers that `dispose` gave up on; the reaper goes on with them."""
        self._pool = ThreadPoolExecutor(max_workers=threads, thread_name_prefix="docker")

    async def call(self, work: Callable[[DockerApi], T]) -> T:
        """Run `work` with the client in a pool thread. Raises NotFound, Conflict, SandboxUnavailable.

        Cancelling the caller does not stop a request already sent: who creates something must be able to remove it
        by a name chosen before.
        """
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._work, work)

    async def whole(self, work: Callable[[DockerApi], T]) -> T:
        """As `call`, but a caller who is cancelled first waits for the end of `work`.

        For archives. One that begins while its container is being removed makes the engine mount the container's
        volumes into the folder that it is deleting, and their files are gone: nothing may be left to begin later.
        """
        return await to_its_end(self.call(work))

    def _work(self, work: Callable[[DockerApi], T]) -> T:
        try:
            if self._api is None:
                self._api = connect(self._host)
            done = work(self._api)
        except Exception as error:
            ours = translated(error)
            if isinstance(ours, EngineAway):
                self._missed_at = self._missed_at or time.monotonic()
            if ours is error:
                raise
            raise ours from error
        self._missed_at = None
        return done

    async def patiently(self, work: Callable[[], Awaitable[T]]) -> T:
        """Do `work` again when it raised EngineAway and the engine comes back in time; for what may be done twice.

        The time counts from when the engine was first missed: one that stays away fails every further call at once.
        """
        deadline = None
        while True:
            try:
                return await work()
            except EngineAway:
                deadline = deadline or (self._missed_at or time.monotonic()) + self._patience_s
                while not await self._answers():
                    if time.monotonic() >= deadline:
                        raise
                    await asyncio.sleep(_ASK_AGAIN_S)
                # One that answers, and yet does nothing, is not waited for any longer than one that does not.
                if time.monotonic() >= deadline:
                    raise
                await asyncio.sleep(_ASK_AGAIN_S)

    async def _answers(self) -> bool:
        try:
            return await self.call(lambda api: api.ping())
        except SandboxUnavailable:
            return False

    async def facts(self) -> EngineFacts:
        """Ask the engine what it is. Raises SandboxUnavailable."""
        return EngineFacts.of(*await self.call(lambda api: (api.info(), api.version())))

    async def open_stream(self, path: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection of its own to the engine, upgraded by POST `path` to a raw byte stream.

        Not one of the SDK's pooled connections: it must be possible to close it at any moment without waiting, since an
        attach stream nobody reads blocks kill, inspect and remove of its container. Raises SandboxUnavailable.
        """
        version = await self.call(lambda api: api.api_version)
        reader, writer = await self._dial()
        request = (
            f"POST /v{version}{path} HTTP/1.1\r\nHost: docker\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n"
            "Content-Length: 0\r\n\r\n"
        )
        try:
            writer.write(request.encode())
            await writer.drain()
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), REQUEST_TIMEOUT_S)
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
            writer.close()
            raise _unreachable(error) from error
        except BaseException:
            writer.close()
            raise
        status = head.split(b"\r\n", 1)[0]
        if b" 101 " not in status and b" 200 " not in status:
            writer.close()
            raise SandboxUnavailable(f"the Docker engine refused to attach: {status.decode(errors='replace')}", "retry")
        return reader, writer

    async def _dial(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        address = address_of(self._host)
        parts = urlsplit(address)
        try:
            if parts.scheme == "unix":
                return await asyncio.open_unix_connection(parts.path)
            return await asyncio.open_connection(parts.hostname, parts.port or 2375)
        except OSError as error:
            raise _unreachable(error, address) from error

    async def dispose(self, container: str, *, patience_s: float = 0.5) -> bool:
        """See a container gone; True when it is, False when the engine would not let it go in about 15 s.

        A box removes itself when it ends (AutoRemove). A second remover at that very moment can leave an entry that
        the engine lists for ever and no longer knows, so we wait, then kill and wait, and only then remove.
        """
        self.undisposed.add(container)
        if gone := await self._disposed(container, patience_s):
            self.undisposed.discard(container)
        return gone

    async def _disposed(self, container: str, patience_s: float) -> bool:
        if await self._gone(container, patience_s):
            return True
        with suppress(NotFound, Conflict, SandboxUnavailable):
            await self.call(lambda api: api.kill(container))
        if await self._gone(container, 5.0):
            return True
        for attempt in range(7):
            # Transient refusals, such as 500 "directory not empty", pass.
            with suppress(Conflict, SandboxUnavailable):
                await self._remove(container)
            if await self._gone(container, 0.1 * 2**attempt):
                return True
        return False

    async def _gone(self, container: str, within_s: float) -> bool:
        """Wait until the engine does not know it any more; one that never ran is removed on the way."""
        deadline = time.monotonic() + within_s
        pause = 0.02
        while True:
            try:
                state = (await self.call(lambda api: api.inspect_container(container))).get("State")
                if isinstance(state, dict) and state.get("Status") == "created":
                    await self._remove(container)
                    return True
            except NotFound:
                return True
            except (Conflict, SandboxUnavailable):
                pause = max(pause, 0.1)
            if time.monotonic() >= deadline:
                return False
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, 0.25)

    async def _remove(self, container: str) -> None:
        with suppress(NotFound):
            await self.call(lambda api: api.remove_container(container, force=True, v=True))

    async def find_containers(self, labels: Mapping[str, str]) -> list[JsonObject]:
        """Summaries of all containers, stopped ones too, that carry every one of these labels."""
        wanted = [f"{name}={value}" for name, value in labels.items()]
        found = await self.call(lambda api: api.containers(all=True, filters={"label": wanted}))
        return [container for container in found if not await self._only_listed(container)]

    async def _only_listed(self, summary: JsonObject) -> bool:
        """Whether nothing is left of it but an entry in the engine's list, which stays there until the engine's next
        start (see decision 8)."""
        if summary.get("State") != "removing":
            return False
        try:
            await self.call(lambda api: api.inspect_container(str(summary["Id"])))
        except NotFound:
            return True
        return False

    async def find_volumes(self, labels: Mapping[str, str]) -> list[JsonObject]:
        """Volumes that carry every one of these labels."""
        wanted = [f"{name}={value}" for name, value in labels.items()]
        found = (await self.call(lambda api: api.volumes(filters={"label": wanted}))).get("Volumes")
        return [volume for volume in _list(found) if isinstance(volume, dict)]

    def close(self) -> None:
        """Let go of the threads and connections; requests under way are not waited for."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        if self._api is not None:
            self._api.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()


async def to_its_end(work: Awaitable[T]) -> T:
    """What `work` gives. It is never cancelled: a caller who is waits until it is over, however it ends."""
    task, cancelled = asyncio.ensure_future(work), False
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError:
            cancelled = True
    if cancelled:
        if not task.cancelled():
            task.exception()  # looked at, so that asyncio does not report it as lost
        raise asyncio.CancelledError
    return task.result()


def _list(value: JsonValue) -> list[JsonValue]:
    return value if isinstance(value, list) else []


def installation_id(data: Path) -> str:
    """The random id of this installation, made on first use and kept in `data`; labels everything we create.

    Two installations may share an engine: each removes only what carries its own id.
    """
    path = data / "installation-id"
    with suppress(FileNotFoundError):
        return path.read_text().strip()
    data.mkdir(parents=True, exist_ok=True)
    # Written aside and linked: of several processes starting together one wins, and all read the winner's.
    aside = data / f".installation-id.{secrets.token_hex(8)}"
    aside.write_text(f"gh-{secrets.token_hex(8)}\n")
    try:
        with suppress(FileExistsError):
            os.link(aside, path)
    finally:
        aside.unlink()
    return path.read_text().strip()
