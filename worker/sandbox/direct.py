"""One program in the box that a tool would get, for somebody at a command line: `gatehouse sandbox run`.

Needs the engine and a recorded image, nothing else: no Temporal, no API, no database.
"""

import asyncio
import base64
import dataclasses
import secrets
import tarfile
import tempfile
from collections.abc import Callable, Collection, Generator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import IO, Final, Literal, cast

from tools.contract import Limits, Wire
from tools.egress import rules
from worker.sandbox import engine as names
from worker.sandbox.container import REAP_AFTER_S, BoxLost, Ending, Job, Ran, Sandbox, UnknownImage
from worker.sandbox.egress import Egress, through
from worker.sandbox.engine import Conflict, Engine, NotFound, SandboxUnavailable, installation_id, to_its_end
from worker.sandbox.facts import Runtime
from worker.sandbox.grant import Grant, Traffic
from worker.sandbox.images import ImageStore, recorded
from worker.sandbox.lifetime import lives
from worker.sandbox.profile import WORKSPACE, Profile, WorkspaceMount
from worker.sandbox.proven import choose
from worker.sandbox.reaper import Reaper
from worker.sandbox.transfer import Refused, pack, unpack
from worker.sandbox.workspace import Carrier, ChunkStream

Outcome = Literal["ok", "error", "timeout", "oom", "output_limit", "killed", "refused", "fault"]
OUTCOMES: Final[dict[Ending, Outcome]] = {
    Ending.SUCCEEDED: "ok", Ending.EXIT_CODE: "error", Ending.TIMEOUT: "timeout", Ending.OOM: "oom",
    Ending.OUTPUT_LIMIT: "output_limit", Ending.WORKSPACE_LIMIT: "output_limit", Ending.KILLED: "killed",
}  # fmt: skip
_BLOCK: Final = 1 << 20
_REMOVE_TRIES: Final = 8


class NotAllowed(Exception):  # noqa: N818
    """What was asked is not given, whoever asks; nothing ran."""


class Direct(Wire):
    """What came of it. `outcome` refused and fault say that no program ran, or that nobody knows how it ended."""

    outcome: Outcome
    exit_code: int | None = None
    """As a shell says it; None when the program did not end by itself and its supervisor could not tell."""
    stdout_b64: str = ""
    stderr_b64: str = ""
    truncated: bool = False
    """Whether the program wrote more than is given here."""
    stdout_bytes: int = 0
    """What it wrote, as far as it was read."""
    stderr_bytes: int = 0
    cpu_seconds: float = 0.0
    """Of everything that ran in the box."""
    peak_memory_bytes: int = 0
    """Of the whole box, tmpfs pages included."""
    duration_seconds: float = 0.0
    pool_hit: bool = False
    refused: tuple[Refused, ...] = ()
    """Files that did not travel, and connections that were not made (`way` is `egress`)."""
    problem: str = ""
    remedy: str = ""


@dataclasses.dataclass(frozen=True)
class Request:
    """One program and what it is given."""

    argv: tuple[str, ...]
    limits: Limits
    profile: Profile = Profile()  # noqa: RUF009 - frozen
    image: str = "base"
    stdin: bytes = b""
    variables: dict[str, str] = dataclasses.field(default_factory=dict[str, str])
    workspace: Path | None = None
    collect: Path | None = None
    egress: tuple[str, ...] = ()


class DirectUse:
    """Runs requests with the engine at `docker_host` for the installation under `data`; `say` gets progress lines."""

    def __init__(
        self, data: Path, *, docker_host: str | None, say: Callable[[str], None], runtime: Runtime = "auto"
    ) -> None:
        self._data = data.resolve()
        self._host = docker_host
        self._runtime: Runtime = runtime
        self._say = say
        self._run_id = f"direct_{secrets.token_hex(12)}"

    async def run(self, request: Request) -> Direct:
        """Run it; every failure is an outcome."""
        try:
            return await self._run(request)
        except (NotAllowed, UnknownImage, ValueError) as error:
            text = f"no sandbox image is called {request.image!r}" if isinstance(error, UnknownImage) else str(error)
            return Direct(outcome="refused", problem=text)
        except SandboxUnavailable as error:
            return Direct(outcome="fault", problem=error.problem, remedy=error.remedy)
        except (BoxLost, OSError, NotFound, Conflict) as error:
            return Direct(outcome="fault", problem=str(error))

    async def _run(self, request: Request) -> Direct:
        if any("\0" in text for text in (*request.argv, *request.variables, *request.variables.values())):
            raise NotAllowed("a NUL byte in the command line or a variable")
        if request.egress and request.profile.name == "strict":
            raise NotAllowed("the profile strict has no egress; use --profile network")
        allowed = rules(request.egress)
        if not await asyncio.to_thread(recorded, self._data):
            store = await asyncio.to_thread(ImageStore, self._data, self._say, docker_host=self._host)
            await asyncio.to_thread(store.ensure, pull=False)
        async with Engine(self._host) as engine, AsyncExitStack() as stack:
            sandbox = Sandbox(engine, data=self._data, owner=installation_id(self._data))
            stack.push_async_callback(sandbox.close)
            await choose(sandbox, self._runtime, prove=False)
            await Reaper(engine, sandbox.owner, _none).sweep()
            job = Job(
                run_id=self._run_id, key=self._run_id, program=b"", stdin=request.stdin, limits=request.limits,
                image=request.image, command=request.argv, variables=request.variables,
                loosens=request.profile.loosens,
            )  # fmt: skip
            traffic: Traffic | None = None
            refused: list[Refused] = []
            if request.workspace or request.collect:
                mount = await self._open(sandbox, stack, request)
                refused += await self._fill(sandbox, mount, request.workspace)
                job = dataclasses.replace(job, workspace=mount)
            if allowed:
                egress = Egress(self._data / "egress")
                await asyncio.to_thread(egress.sweep)
                way = await stack.enter_async_context(egress.open(Grant(allowed)))
                job, traffic = through(job, way), way.traffic
            ran = await sandbox.run(job)
            if request.collect and job.workspace:
                await sandbox.settled()
                refused += await self._collect(sandbox, job.workspace, request.collect)
            if traffic is not None:
                refused += [Refused(way="egress", name=f"{r.host}:{r.port}", reason=r.reason) for r in traffic.refused]
            return _told(ran, refused)

    async def _open(self, sandbox: Sandbox, stack: AsyncExitStack, request: Request) -> WorkspaceMount:
        labels = {
            names.LABEL_OWNER: sandbox.owner, names.LABEL_KIND: "direct", names.LABEL_RUN: self._run_id,
            **lives(request.limits.timeout_s + REAP_AFTER_S + 900),
        }  # fmt: skip
        volume = f"gatehouse-{self._run_id.replace('_', '-')}"

        async def remove() -> None:
            await sandbox.settled()
            for attempt in range(_REMOVE_TRIES):
                try:
                    await sandbox.engine.call(lambda api: api.remove_volume(volume, force=True))
                except Conflict:
                    await asyncio.sleep(0.05 * 2**attempt)
                except NotFound:
                    return
                else:
                    return

        stack.push_async_callback(remove)
        await sandbox.engine.call(lambda api: api.create_volume(volume, labels=labels))
        return WorkspaceMount(volume, writable=True, labels=labels)

    def _carrier(self, sandbox: Sandbox, mount: WorkspaceMount) -> Carrier:
        return Carrier(sandbox, self._run_id, mount.volume, {**mount.labels, names.LABEL_KIND: "carrier"})

    async def _fill(self, sandbox: Sandbox, mount: WorkspaceMount, folder: Path | None) -> list[Refused]:
        with tempfile.TemporaryFile() as archive:
            refused = await asyncio.to_thread(pack, folder, cast(IO[bytes], archive))
            archive.seek(0)
            async with self._carrier(sandbox, mount) as carrier:
                await sandbox.engine.whole(lambda api: api.put_archive(carrier, "/", cast(IO[bytes], archive)))
        return refused

    async def _collect(self, sandbox: Sandbox, mount: WorkspaceMount, folder: Path) -> list[Refused]:
        async with self._carrier(sandbox, mount) as carrier:
            source = ChunkStream()
            try:
                await sandbox.engine.whole(lambda api: source.begin(api, carrier, WORKSPACE))
                return await to_its_end(asyncio.to_thread(unpack, lambda: _members(source), folder))
            finally:
                source.close()


async def _none(_: Collection[str]) -> set[str]:
    return set()


def _members(source: ChunkStream) -> Iterator[tuple[tarfile.TarInfo, Callable[[int], bytes]]]:
    archive = tarfile.open(fileobj=cast(IO[bytes], source), mode="r|", bufsize=_BLOCK)  # noqa: SIM115
    yield from _each(archive)


def _each(archive: tarfile.TarFile) -> Generator[tuple[tarfile.TarInfo, Callable[[int], bytes]]]:
    while (member := archive.next()) is not None:
        # The stream's bookkeeping of past members would grow with their number.
        archive.members = []  # pyright: ignore[reportAttributeAccessIssue]
        content = archive.extractfile(member) if member.isreg() else None
        yield member, content.read if content else lambda _: b""


def _told(ran: Ran, refused: list[Refused]) -> Direct:
    wrote = ran.stdout_bytes + ran.stderr_bytes
    return Direct(
        outcome=OUTCOMES[ran.ending], exit_code=ran.exit_code,
        stdout_b64=base64.b64encode(ran.stdout).decode(), stderr_b64=base64.b64encode(ran.stderr).decode(),
        truncated=ran.ending is Ending.OUTPUT_LIMIT or wrote > len(ran.stdout) + len(ran.stderr),
        stdout_bytes=ran.stdout_bytes, stderr_bytes=ran.stderr_bytes, cpu_seconds=round(ran.cpu_ms / 1000, 6),
        peak_memory_bytes=ran.peak_memory_bytes, duration_seconds=round(ran.duration_ms / 1000, 3),
        pool_hit=ran.pooled, refused=tuple(refused),
    )  # fmt: skip
