"""The Docker engine goes away in the middle of a run: calls fail cleanly, the run degrades, a human finishes it.

The sandbox worker reaches the real engine through a socket of the test's, which can be cut and mended.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.e2e import promise
from tests.e2e.system import System
from tests.e2e.test_faults import approve_when_asked, triage

Json = dict[str, Any]
ENGINE = "/var/run/docker.sock"


class Wire:
    """A socket that leads to the real engine until it is cut."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    async def mend(self) -> None:
        """Lead to the engine (again)."""
        self._server = await asyncio.start_unix_server(self._serve, str(self.path))

    async def cut(self) -> None:
        """Break every connection and answer no new one."""
        assert self._server is not None
        self._server.close()
        for writer in list(self._writers):
            writer.transport.abort()
        self.path.unlink(missing_ok=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        engine_reader, engine_writer = await asyncio.open_unix_connection(ENGINE)
        pair = (writer, engine_writer)
        self._writers.update(pair)
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(self._copy(reader, engine_writer))
                both.create_task(self._copy(engine_reader, writer))
        finally:
            self._writers.difference_update(pair)
            for end in pair:
                end.close()

    async def _copy(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await source.read(1 << 16):
                sink.write(data)
                await sink.drain()
            if sink.can_write_eof():
                sink.write_eof()


@pytest.fixture
async def wire(system: System, tmp_path: Path) -> AsyncIterator[Wire]:
    """The sandbox worker on a wire that the test holds; afterwards it is on the engine's own socket again."""
    wire = Wire(tmp_path / "engine.sock")
    await wire.mend()
    system.kill("sandbox")
    # It stays away for longer than anybody would wait.
    system.start("sandbox", GATEHOUSE_DOCKER_HOST=f"unix://{wire.path}", GATEHOUSE_ENGINE_PATIENCE_S="1")
    yield wire
    system.kill("sandbox")
    system.start("sandbox")


async def test_calls_fail_the_run_degrades_and_a_human_finishes(system: System, wire: Wire) -> None:
    run_id = await triage(system, "engine-gone")
    await system.until_record(run_id, "call.outcome", 1)
    await wire.cut()
    question = await system.pending(run_id)
    assert question["question"] == "handover", question
    await wire.mend()
    output = {"summary": "Read by hand: the database refused connections.", "report": "out/report.md"}
    wrong = await system.answer(question, "approve", output={"summary": "no report"})
    assert (wrong.status_code, wrong.json()["kind"]) == (422, "invalid_arguments")
    assert (await system.answer(question, "approve", output=output)).status_code == 200
    run = await system.finished(run_id)
    assert (run["phase"], run["rung"], run["result"]["output"]) == ("succeeded", "human", output)
    assert any("sandbox" in reason for reason in run["result"]["degraded"]), run
    records = await promise.check(system, run_id)
    failed = [r["body"] for r in records if r["type"] == "call.outcome" and r["body"]["outcome"] == "failed"]
    assert failed
    assert {outcome["error"] for outcome in failed} == {"sandbox_unavailable"}


async def test_a_call_cut_off_from_its_box_is_uncertain_and_asked_about(system: System, wire: Wire) -> None:
    run_id = await system.start_run("mark-by-rules", "engine-cut", inputs={"seconds": 45})
    await system.marked(run_id, "second")
    await wire.cut()
    await asyncio.sleep(1)
    await wire.mend()
    question = await system.pending(run_id)
    assert question["question"] == "unknown_outcome", question
    assert (await system.answer(question, "deny")).status_code == 200
    assert (await approve_when_asked(system, run_id))["call"]["tool"] == "put_mark"
    run = await system.finished(run_id)
    assert run["result"]["output"] == {"second": "unknown", "flag": "succeeded"}
    await promise.check(system, run_id)
