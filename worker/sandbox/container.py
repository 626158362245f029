"""One fresh container per call: create, attach, start, verify, hand over the job, read its end, remove.

Runs on the sandbox worker. The supervisor inside (`supervisor.py`) enforces the limits; the worker trusts none of it
and keeps its own deadline and its own byte count. Whatever happens, the container is removed.
"""

import asyncio
import hashlib
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Final

from tools.contract import JsonObject, Limits
from worker.sandbox import engine as names
from worker.sandbox.channel import READY, REPORT, STDERR, STDOUT, Channel, ChannelClosed, Header
from worker.sandbox.docker_api import DockerApi
from worker.sandbox.engine import Engine, EngineFacts, NotFound, SandboxUnavailable
from worker.sandbox.images import ImageRecord, command, recorded
from worker.sandbox.process import this_process
from worker.sandbox.profile import Box, WorkspaceMount

_SUPERVISOR: Final = Path(__file__).with_name("supervisor.py").read_text()
# -I: nothing of the environment or the working directory; -S: no site packages, 4 ms less.
_INIT: Final = ("python3", "-I", "-S", "-c", _SUPERVISOR)
PROGRAM_COMMAND: Final = ("python3", "-I", "-B", "/work/run.py")

START_TIMEOUT_S: Final = 30.0
# How much longer than the supervisor the worker waits before it decides by itself.
GRACE_S: Final = 2.0
# How long a call that went wrong waits for its container to be gone before it says so.
REMOVAL_WAIT_S: Final = 5.0
# How long after its time-out a container may still exist before the reaper takes it: start-up, end, removal.
REAP_AFTER_S: Final = 90.0
# Frames, reports and a supervisor's last words beside the program's own output.
_OVERHEAD_BYTES: Final = 64 << 10
# What a run's workspace may hold, and how much one call may add when its input files alone are more than that.
WORKSPACE_BYTES: Final = 512 << 20
WORKSPACE_GROWTH_BYTES: Final = 64 << 20
WORKSPACE_ENTRIES: Final = 10_000


class Ending(StrEnum):
    """How a program ended. Values of `ToolResult.error`, except `succeeded`."""

    SUCCEEDED = "succeeded"
    EXIT_CODE = "exit_code"
    """It returned another status than 0."""
    TIMEOUT = "timeout"
    OOM = "oom"
    """It failed and the kernel had to kill for memory in its box."""
    OUTPUT_LIMIT = "output_limit"
    """It wrote more to stdout and stderr than it may."""
    WORKSPACE_LIMIT = "workspace_limit"
    """It filled the workspace beyond `WORKSPACE_BYTES` or `WORKSPACE_ENTRIES`."""
    KILLED = "killed"
    """It died by a signal that was not ours."""


# Order of the numbers in the supervisor's report.
_WHY: Final = (None, Ending.TIMEOUT, Ending.OUTPUT_LIMIT, Ending.WORKSPACE_LIMIT, None)


class UnknownImage(LookupError):  # noqa: N818
    """No sandbox image of that name is set up."""


class BoxLost(Exception):  # noqa: N818
    """The box vanished after it got its job and before it reported: what the program did is unknown."""


@dataclass(frozen=True)
class Job:
    """What to run, and for whom."""

    run_id: str
    key: str
    """Idempotency key of the call; its hash labels the container."""
    program: bytes
    stdin: bytes
    limits: Limits = field(default_factory=Limits)
    image: str = "base"
    attempt: int = 1
    workspace: WorkspaceMount | None = None
    command: tuple[str, ...] = PROGRAM_COMMAND
    egress: str | None = None
    """The host's folder with this call's proxy socket (`egress.Way.folder`); never from a warm box."""


@dataclass(frozen=True)
class Ran:
    """How a job ended, with true numbers."""

    ending: Ending
    exit_code: int | None
    """As a shell says it: 128 + signal for a death by signal. None when the worker ended it unreported."""
    stdout: bytes
    stderr: bytes
    duration_ms: int
    cpu_ms: int = 0
    peak_memory_bytes: int = 0


def key_hash(key: str) -> str:
    """Label value for a call's idempotency key: labels are public to everybody with the engine, keys need not be."""
    return hashlib.sha256(key.encode()).hexdigest()[:32]


class Sandbox:
    """Runs jobs in boxes. One per process; safe for many calls at once.

    `owner` is the installation's id: only containers that carry it are ever touched.
    """

    def __init__(self, engine: Engine, *, data: Path, owner: str, max_boxes: int = 16) -> None:
        self.engine = engine
        self.owner = owner
        self._data = data
        self._facts: EngineFacts | None = None
        self._images: Mapping[str, ImageRecord] = {}
        self._slots = asyncio.Semaphore(max_boxes)
        self._removals: set[asyncio.Task[None]] = set()

    async def facts(self) -> EngineFacts:
        """The engine's, asked once. Raises SandboxUnavailable when it cannot hold a box at all."""
        if self._facts is None:
            facts = await self.engine.facts()
            if missing := facts.missing():
                raise SandboxUnavailable("; ".join(missing), "use another machine for the sandbox worker")
            self._facts = facts
        return self._facts

    async def image(self, name: str) -> ImageRecord:
        """The recorded image. Raises UnknownImage for a name nobody set up, SandboxUnavailable when there is none."""
        if name not in self._images:
            self._images = await asyncio.to_thread(recorded, self._data)
        if not self._images:
            raise SandboxUnavailable("no sandbox image is set up", f"run `{command(self._data)}`")
        try:
            return self._images[name]
        except KeyError as error:
            raise UnknownImage(name) from error

    async def run(self, job: Job, *, commit: Callable[[], Awaitable[None]] | None = None) -> Ran:
        """Run one job in a fresh container and wait for its end.

        `commit` is awaited when the verified box stands and waits for the job: the last moment at which nothing has
        happened yet; what it raises ends the call. Raises SandboxUnavailable (nothing ran), BoxLost (nobody knows),
        UnknownImage. When cancelled, kills the container before CancelledError goes on.
        """
        image = await self.image(job.image)
        facts = await self.facts()
        await self._slots.acquire()
        # The deadline on the label counts from here, not from when the call began to wait for its turn.
        box = Box(image.id, facts.architecture, job.limits, _INIT, self._labels(job), job.workspace, job.egress)
        return await self._run_in(box, job, commit)

    def _labels(self, job: Job) -> dict[str, str]:
        return {
            names.LABEL_OWNER: self.owner,
            names.LABEL_KIND: "call",
            names.LABEL_RUN: job.run_id,
            names.LABEL_CALL: key_hash(job.key),
            names.LABEL_ATTEMPT: str(job.attempt),
            names.LABEL_DEADLINE: str(int(time.time() + job.limits.timeout_s + REAP_AFTER_S)),
            names.LABEL_PROCESS: this_process(),
        }

    async def _run_in(self, box: Box, job: Job, commit: Callable[[], Awaitable[None]] | None) -> Ran:
        # The name is ours, so that a container can be removed whose create request was cancelled or never answered.
        name = f"gatehouse-call-{secrets.token_hex(12)}"
        body = box.body()
        requests: list[asyncio.Future[object]] = []
        channel: Channel | None = None

        async def ask(work: Callable[[DockerApi], object]) -> None:
            # A request that was sent goes on when its caller is cancelled: the removal has to wait for its end.
            requests.append(asyncio.ensure_future(self.engine.call(work)))
            await asyncio.shield(requests[-1])

        try:
            await ask(lambda api: api.create_container_from_config(body, name))
            channel = await Channel.open(self.engine, name)
            frames = channel.frames()
            async with asyncio.timeout(START_TIMEOUT_S):
                await ask(lambda api: api.start(name))
                await self._verify(box, name)
                kind, _ = await anext(frames, (b"", b""))
            if kind != READY:
                raise SandboxUnavailable("the box did not come up", channel.complaint or "see the engine's log")  # noqa: TRY301
            if commit is not None:
                await commit()
            ran = await self._converse(job, channel, frames, name)
        except BaseException as error:
            # Goes on in the background when it takes longer, as it does when the engine is away.
            await asyncio.wait({self._let_go(name, channel, requests)}, timeout=REMOVAL_WAIT_S)
            if isinstance(error, NotFound):
                self._images = {}  # perhaps another set-up replaced it
                problem = f"the engine does not know the image or volume: {error}"
                raise SandboxUnavailable(problem, f"run `{command(self._data)}`") from error
            if isinstance(error, TimeoutError):
                raise SandboxUnavailable(
                    f"no box within {START_TIMEOUT_S:.0f} s", "the engine is overloaded"
                ) from error
            raise
        # The program is dead and its box about to vanish: the result need not wait for that.
        self._let_go(name, channel, requests)
        return ran

    def _let_go(
        self, name: str, channel: Channel | None, requests: list[asyncio.Future[object]]
    ) -> "asyncio.Task[None]":
        """Drop the connection and see the container gone, in the background; then the slot is free."""
        if channel is not None:
            channel.close()

        async def work() -> None:
            try:
                await asyncio.gather(*requests, return_exceptions=True)
                await self.engine.dispose(name)
            finally:
                self._slots.release()

        task = asyncio.create_task(work())
        self._removals.add(task)
        task.add_done_callback(self._removals.discard)
        return task

    async def _verify(self, box: Box, name: str) -> None:
        inspected = await self.engine.call(lambda api: api.inspect_container(name))
        if wrong := box.mismatches(inspected):
            raise SandboxUnavailable(
                f"the engine did not give the box that was asked: {'; '.join(wrong)}", "report this"
            )

    async def _converse(self, job: Job, channel: Channel, frames: AsyncIterator[tuple[bytes, bytes]], name: str) -> Ran:
        writable = job.workspace is not None and job.workspace.writable
        header = Header(
            job.limits.timeout_s, job.limits.output_bytes, WORKSPACE_BYTES if writable else 0,
            WORKSPACE_GROWTH_BYTES, WORKSPACE_ENTRIES, job.command,
        )  # fmt: skip
        started, wall = time.monotonic(), time.time()
        out = {STDOUT: bytearray(), STDERR: bytearray()}
        total = 0

        def ended(ending: Ending) -> Ran:
            elapsed = int((time.monotonic() - started) * 1000)
            return Ran(ending, None, bytes(out[STDOUT]), bytes(out[STDERR]), elapsed)

        try:
            async with asyncio.timeout(job.limits.timeout_s + GRACE_S):
                await channel.send(header, job.program, job.stdin)
                async for kind, content in frames:
                    if kind == REPORT:
                        return _ran(_numbers(content), bytes(out[STDOUT]), bytes(out[STDERR]))
                    total += len(content)
                    if total > job.limits.output_bytes + _OVERHEAD_BYTES:
                        return ended(Ending.OUTPUT_LIMIT)
                    if kind in out:
                        out[kind] += content
        except TimeoutError:
            return ended(Ending.TIMEOUT)
        except ChannelClosed as error:
            if await self._ran_out_of_memory(name, wall):
                return ended(Ending.OOM)
            raise BoxLost(str(error)) from error
        # The box closed without a report: the kernel took the supervisor too, or somebody removed the container.
        if await self._ran_out_of_memory(name, wall):
            return ended(Ending.OOM)
        raise BoxLost(f"the box ended without a report {channel.complaint}".strip())

    async def _ran_out_of_memory(self, name: str, since: float) -> bool:
        """Ask the engine's event log: the container may be gone already, its events stay."""
        filters: JsonObject = {"container": [name], "event": ["oom"]}
        with suppress(SandboxUnavailable, NotFound):
            return await self.engine.call(
                lambda api: any(
                    True
                    for _ in api.events(since=int(since) - 1, until=int(time.time()) + 1, filters=filters, decode=True)
                )
            )
        return False

    async def fence(self, key: str) -> int:
        """Remove every container of this call, whoever started it; gives their number.

        Before a call is run again: afterwards no earlier attempt of it can still do anything. Raises
        SandboxUnavailable when that cannot be made sure.
        """
        return await self._remove_all({names.LABEL_CALL: key_hash(key)})

    async def clear_run(self, run_id: str) -> int:
        """Remove every call container of this run; gives their number. Raises SandboxUnavailable."""
        return await self._remove_all({names.LABEL_RUN: run_id})

    async def _remove_all(self, labels: Mapping[str, str]) -> int:
        wanted = {names.LABEL_OWNER: self.owner, names.LABEL_KIND: "call", **labels}
        found = await self.engine.find_containers(wanted)
        gone = await asyncio.gather(*(self.engine.dispose(str(c["Id"]), patience_s=0) for c in found))
        if not all(gone):
            raise SandboxUnavailable("a container of an earlier attempt cannot be removed", "see `docker ps -a`")
        return len(found)

    async def close(self) -> None:
        """Wait for removals under way."""
        await asyncio.gather(*self._removals, return_exceptions=True)


def _numbers(content: bytes) -> dict[str, int]:
    """`why=0 code=0 oom=0 ...`; what is no number counts as missing."""
    pairs = (word.partition("=") for word in content.decode(errors="replace").split())
    numbers: dict[str, int] = {}
    for name, _, value in pairs:
        with suppress(ValueError):
            numbers[name] = int(value)
    return numbers


def _ran(report: Mapping[str, int], stdout: bytes, stderr: bytes) -> Ran:
    """Classify: a limit that was reached, else out of memory if it failed and the kernel killed in its box, else how it
    ended. A program that survives the death of a child by memory and returns 0 has succeeded."""
    code = report.get("code", 1)
    why = report.get("why", 0)
    ending = _WHY[why] if 0 <= why < len(_WHY) else None
    if ending is None:
        if code == 0:
            ending = Ending.SUCCEEDED
        elif report.get("oom", 0) > 0:
            ending = Ending.OOM
        else:
            ending = Ending.KILLED if code < 0 else Ending.EXIT_CODE
    return Ran(
        ending,
        128 - code if code < 0 else code,
        stdout,
        stderr,
        duration_ms=report.get("ms", 0),
        cpu_ms=report.get("cpu_ms", 0),
        peak_memory_bytes=report.get("peak", 0),
    )
