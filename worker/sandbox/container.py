"""One fresh container per call, started ahead or now: hand over the job, read its end, see the container gone.

Runs on the sandbox worker. The supervisor inside (`supervisor.py`) enforces the limits; the worker trusts none of it
and keeps its own deadline and its own byte count. Whatever happens, the container is removed.
"""

import asyncio
import hashlib
import os
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from tools.contract import JsonObject, Limits
from worker.sandbox import engine as names
from worker.sandbox.channel import REPORT, STDERR, STDOUT, ChannelClosed, Header
from worker.sandbox.ending import Ending, Ran, reported
from worker.sandbox.engine import Engine, EngineAway, NotFound, SandboxUnavailable
from worker.sandbox.facts import EngineFacts
from worker.sandbox.forecast import Forecast
from worker.sandbox.images import ImageRecord, command, recorded, verify
from worker.sandbox.lifetime import lives
from worker.sandbox.pool import Meter, Pool, PoolSettings, Unwatched
from worker.sandbox.profile import Box, Loosening, WorkspaceMount
from worker.sandbox.standing import Standing

_SUPERVISOR: Final = Path(__file__).with_name("supervisor.py").read_text()
# -I: nothing of the environment or the working directory; -S: no site packages, 4 ms less.
_INIT: Final = ("python3", "-I", "-S", "-c", _SUPERVISOR)
PROGRAM_COMMAND: Final = ("python3", "-I", "-B", "/work/run.py")

# How long a box waits for its job before it ends by itself, beyond its time in the pool.
_WAIT_FOR_JOB_S: Final = 60
_LONGEST_JOB_S: Final = 900
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
    variables: Mapping[str, str] = field(default_factory=dict[str, str])
    """Added to the box's environment."""
    secrets: Mapping[str, bytes] = field(default_factory=dict[str, bytes], repr=False)
    """Written to `/work/secrets/<name>`, in memory, before the program starts."""
    loosens: frozenset[Loosening] = frozenset()
    """Of `Profile.loosens`."""
    egress: str | None = None
    """The host's folder with this call's proxy socket (`egress.Way.folder`); never from a warm box."""


def key_hash(key: str) -> str:
    """Label value for a call's idempotency key: labels are public to everybody with the engine, keys need not be."""
    return hashlib.sha256(key.encode()).hexdigest()[:32]


class Sandbox:
    """Runs jobs in boxes. One per process; safe for many calls at once.

    `owner` is the installation's id: only containers that carry it are ever touched.
    """

    def __init__(
        self, engine: Engine, *, data: Path, owner: str, max_boxes: int = 16, pool: PoolSettings | None = None,
        runtime: str = "", meter: Meter | None = None,
    ) -> None:  # fmt: skip
        """Without `pool` every call starts its own box. `runtime`: one the engine offers, "" for its own choice."""
        self._meter = meter or Unwatched()
        self.runtime = runtime
        self.engine = engine
        self.owner = owner
        self._data = data
        self._facts: EngineFacts | None = None
        self._images: Mapping[str, ImageRecord] = {}
        self._verified: set[ImageRecord] = set()
        self._slots = asyncio.Semaphore(max_boxes)
        # More at once only delay each other, past the time a start may take.
        self._starts = asyncio.Semaphore(max(2, 2 * (os.cpu_count() or 2)))
        self._removals: set[asyncio.Future[object]] = set()
        self._forecast = Forecast()
        settings = pool or PoolSettings(total=0)
        self.pool = Pool(lambda kind: Standing(engine, self.labelled(kind)), settings, self._later, self._meter)

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
            record = self._images[name]
        except KeyError as error:
            raise UnknownImage(name) from error
        if record not in self._verified:
            # Once a process: an id names its content, but a record may be older than the engine's image.
            if not await self.engine.call(lambda api: verify(api, record)):
                self._images = {}
                problem = f"the engine does not hold the image {name} as it was recorded"
                raise SandboxUnavailable(problem, "run `gatehouse images build`")
            self._verified.add(record)
        return record

    async def run(self, job: Job, *, commit: Callable[[str], Awaitable[None]] | None = None) -> Ran:
        """Run one job in a box of its own and wait for its end.

        `commit` is awaited, with the container's name, when the verified box stands and waits for the job: the last
        moment at which nothing has happened yet; what it raises ends the call. Raises SandboxUnavailable (nothing ran),
        BoxLost (nobody knows), UnknownImage. When cancelled, kills the container before CancelledError goes on.
        """
        committed = False

        async def last_moment(box: str) -> None:
            nonlocal committed
            # Even where it raises: afterwards nothing may be tried again.
            committed = True
            if commit is not None:
                await commit(box)

        async def once() -> Ran:
            try:
                return await self._run(job, last_moment)
            except EngineAway as error:
                if committed:
                    raise SandboxUnavailable(error.problem, error.remedy) from error
                raise

        return await self.engine.patiently(once)

    async def _run(self, job: Job, commit: Callable[[str], Awaitable[None]]) -> Ran:
        kind = await self.kind(job)
        await self._slots.acquire()
        started = time.monotonic()
        # A box with a way out is made for one call, whose identity its proxy's socket is.
        standing = self.pool.take(kind) if kind.egress is None else None
        pooled = standing is not None
        # The deadline on the label counts from here, not from when the call began to wait for its turn.
        standing = standing or Standing(self.engine, replace(kind, labels=self._call_labels(job)))
        try:
            if not pooled:
                async with self._starts:
                    await standing.start()
            await commit(standing.name)
            watch = asyncio.create_task(standing.watch())
            try:
                ran = await self._converse(job, standing)
            finally:
                watch.cancel()
        except BaseException as error:
            # Goes on in the background when it takes longer, as it does when the engine is away.
            await asyncio.wait({self._let_go(standing)}, timeout=REMOVAL_WAIT_S)
            if isinstance(error, NotFound):
                self._images = {}  # perhaps another set-up replaced it
                problem = f"the engine does not know the image or volume: {error}"
                raise SandboxUnavailable(problem, f"run `{command(self._data)}`") from error
            raise
        # The program is dead and its box about to vanish: the result need not wait for that.
        self._let_go(standing)
        self._meter.count("gatehouse_box_runs", ending=ran.ending.value, pooled=str(pooled).lower())
        self._meter.took("gatehouse_box_seconds", time.monotonic() - started)
        if kind.egress is None and (following := self._forecast.used(job.run_id, kind)) is not None:
            self.pool.want(following)
        return replace(ran, pooled=pooled)

    async def kind(self, job: Job) -> Box:
        """The box that this job needs, without labels. Raises SandboxUnavailable, UnknownImage."""
        image = await self.image(job.image)
        facts = await self.facts()
        # What the supervisor is told with the job does not tell boxes apart.
        limits = job.limits.model_copy(update={"timeout_s": _LONGEST_JOB_S, "output_bytes": 1024})
        wait_s = self.pool.settings.max_age_s + _WAIT_FOR_JOB_S
        init = (*_INIT, str(wait_s), *(("python",) if job.command == PROGRAM_COMMAND else ()))
        return Box(image.id, facts.architecture, limits, init, {}, job.workspace, job.egress, job.loosens, self.runtime)

    async def expect(self, workspace: WorkspaceMount) -> None:
        """A run with this workspace begins: start a box ahead for what its first call will probably need."""
        if (first := self._forecast.first(workspace)) is not None:
            self.pool.want(first)

    def labelled(self, kind: Box) -> Box:
        """With the labels of a box that waits; whose call it will serve is recorded when it is handed out."""
        run = _run_of(kind)
        labels = {names.LABEL_RUN: run} if run else {}
        return replace(kind, labels={**self._labels(self.pool.settings.max_age_s + _LONGEST_JOB_S), **labels})

    def _call_labels(self, job: Job) -> dict[str, str]:
        return {
            **self._labels(job.limits.timeout_s),
            names.LABEL_RUN: job.run_id,
            names.LABEL_CALL: key_hash(job.key),
            names.LABEL_ATTEMPT: str(job.attempt),
        }

    def _labels(self, lives_s: float) -> dict[str, str]:
        return {
            names.LABEL_OWNER: self.owner,
            names.LABEL_KIND: "call",
            **lives(lives_s + REAP_AFTER_S),
        }

    def _let_go(self, standing: Standing) -> "asyncio.Future[object]":
        """See the container gone, in the background; then the slot is free."""

        async def work() -> None:
            try:
                await standing.end()
            finally:
                self._slots.release()

        return self._later(work())

    def _later(self, work: Awaitable[object]) -> "asyncio.Future[object]":
        task = asyncio.ensure_future(work)
        self._removals.add(task)
        task.add_done_callback(self._removals.discard)
        return task

    async def _converse(self, job: Job, standing: Standing) -> Ran:
        writable = job.workspace is not None and job.workspace.writable
        header = Header(
            job.limits.timeout_s, job.limits.output_bytes, WORKSPACE_BYTES if writable else 0,
            WORKSPACE_GROWTH_BYTES, WORKSPACE_ENTRIES, job.command, job.variables, job.secrets,
        )  # fmt: skip
        started, wall = time.monotonic(), time.time()
        out = {STDOUT: bytearray(), STDERR: bytearray()}
        total = 0

        def ended(ending: Ending) -> Ran:
            elapsed = int((time.monotonic() - started) * 1000)
            stdout, stderr = bytes(out[STDOUT]), bytes(out[STDERR])
            return Ran(ending, None, stdout, stderr, elapsed, stdout_bytes=len(stdout), stderr_bytes=len(stderr))

        try:
            async with asyncio.timeout(job.limits.timeout_s + GRACE_S):
                await standing.channel.send(header, job.program, job.stdin)
                async for kind, content in standing.frames:
                    if kind == REPORT:
                        if (report := header.vouched(content)) is None:
                            raise BoxLost("a report that is not from process 1")
                        return reported(report, bytes(out[STDOUT]), bytes(out[STDERR]))
                    total += len(content)
                    if total > job.limits.output_bytes + _OVERHEAD_BYTES:
                        return ended(Ending.OUTPUT_LIMIT)
                    if kind in out:
                        out[kind] += content
        except TimeoutError:
            return ended(Ending.TIMEOUT)
        except ChannelClosed as error:
            if await self._ran_out_of_memory(standing.name, wall):
                return ended(Ending.OOM)
            raise BoxLost(str(error)) from error
        # The box closed without a report: the kernel took the supervisor too, or somebody removed the container.
        if await self._ran_out_of_memory(standing.name, wall):
            return ended(Ending.OOM)
        raise BoxLost(f"the box ended without a report {standing.channel.complaint}".strip())

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

    async def fence(self, key: str, box: str | None = None) -> int:
        """Remove every container of this call, whoever started it; gives their number.

        `box` is the container that an earlier attempt committed to, if one is on record: one that was started ahead
        does not carry its call on its labels. Before a call is run again: afterwards no earlier attempt of it can
        still do anything. Raises SandboxUnavailable when that cannot be made sure.
        """
        removed = await self.engine.patiently(lambda: self._remove_all({names.LABEL_CALL: key_hash(key)}))
        if box and not await self.engine.dispose(box, patience_s=0):
            raise SandboxUnavailable("a container of an earlier attempt cannot be removed", "see `docker ps -a`")
        return removed

    async def clear_run(self, run_id: str) -> int:
        """Remove every container of this run, waiting ones too; gives their number. Raises SandboxUnavailable."""
        self._forecast.ended(run_id)
        await self.pool.drop(lambda kind: _run_of(kind) == run_id)
        return await self.engine.patiently(lambda: self._remove_all({names.LABEL_RUN: run_id}))

    async def _remove_all(self, labels: Mapping[str, str]) -> int:
        wanted = {names.LABEL_OWNER: self.owner, names.LABEL_KIND: "call", **labels}
        found = await self.engine.find_containers(wanted)
        gone = await asyncio.gather(*(self.engine.dispose(str(c["Id"]), patience_s=0) for c in found))
        if not all(gone):
            raise SandboxUnavailable("a container of an earlier attempt cannot be removed", "see `docker ps -a`")
        return len(found)

    async def settled(self) -> None:
        """Wait for removals under way."""
        await asyncio.gather(*self._removals, return_exceptions=True)

    async def close(self) -> None:
        """See the waiting boxes gone, and wait for removals under way."""
        await self.pool.close()
        await self.settled()


def _run_of(kind: Box) -> str | None:
    return kind.workspace.labels.get(names.LABEL_RUN) if kind.workspace else None
