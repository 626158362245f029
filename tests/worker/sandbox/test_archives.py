"""Files on their way in or out of a workspace, and somebody who does not wait for them.

An archive request that begins while its container is being removed makes the engine delete what is in the container's
volumes. So of a transfer that is cancelled nothing may be left that could still begin.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from worker.sandbox.container import Job, Sandbox
from worker.sandbox.engine import Engine, address_of
from worker.sandbox.workspace import Workspaces
from worker.store.blobs import Blobs

RUN = "run_archives"
ENGINE = address_of(None).removeprefix("unix://")


class Slow:
    """A socket that leads to the real engine, where archive requests stay until they are let through; or, `late`, the
    rest of a long answer does."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.late = False
        self.held, self.through = asyncio.Event(), asyncio.Event()
        self.removals = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        engine_reader, engine_writer = await asyncio.open_unix_connection(ENGINE)
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(self._copy(reader, engine_writer, asked=True))
                both.create_task(self._copy(engine_reader, writer, asked=False))
        except* OSError:
            pass  # one side is gone, and the other shall hear of it
        finally:
            for end in (writer, engine_writer):
                end.close()

    async def _copy(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, asked: bool) -> None:
        passed = 0
        while data := await source.read(1 << 16):
            passed += len(data)
            if passed > 6 << 20 if self.late else asked and b"/archive?" in data.split(b"\r\n", 1)[0]:
                self.held.set()
                await self.through.wait()
            self.removals += asked and data.startswith(b"DELETE ")
            sink.write(data)
            await sink.drain()
        if sink.can_write_eof():
            sink.write_eof()


@pytest.fixture
async def slow(tmp_path: Path) -> AsyncIterator[Slow]:
    slow = Slow(tmp_path / "engine.sock")
    async with await asyncio.start_unix_server(slow.serve, str(slow.path)):
        yield slow


def into(there: Workspaces) -> Awaitable[object]:
    return there.open(RUN, ())


def out_of(there: Workspaces) -> Awaitable[object]:
    return there.collect(RUN)


@pytest.mark.parametrize(("transfer", "late"), [(into, False), (out_of, False), (out_of, True)])
async def test_a_cancelled_transfer_is_over_before_its_container_goes(
    sandbox: Sandbox, sandbox_data: Path, workspaces: Workspaces, blobs: Blobs, slow: Slow,
    transfer: Callable[[Workspaces], Awaitable[object]], late: bool,
) -> None:  # fmt: skip
    slow.late = late
    await workspaces.open(RUN, ())
    try:
        program = b"open('out/precious.txt', 'w').write('all there is' * 1_000_000)"
        mount = await workspaces.mount(RUN, writable=True)
        await sandbox.run(Job(run_id=RUN, key="k", program=program, stdin=b"", workspace=mount))
        async with Engine(f"unix://{slow.path}") as engine:
            there = Workspaces(Sandbox(engine, data=sandbox_data, owner=sandbox.owner), blobs)
            moving = asyncio.ensure_future(transfer(there))
            await slow.held.wait()
            moving.cancel()
            done, _ = await asyncio.wait({moving}, timeout=1)
            assert not done, "it waits for the engine"
            assert slow.removals == 0, "a container is removed that an archive request may still reach"
            slow.through.set()
            with pytest.raises(asyncio.CancelledError):
                await moving
            assert slow.removals == 1
        [kept] = (await workspaces.collect(RUN)).artifacts
        assert (kept.name, kept.size) == ("precious.txt", 12_000_000)
    finally:
        slow.through.set()
        await sandbox.clear_run(RUN)
        await workspaces.remove(RUN)
