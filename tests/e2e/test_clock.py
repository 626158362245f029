"""The clock of a whole installation on SQLite is set back, under two API processes, or ahead, by an hour, and then set
right: work and questions go on, nothing is taken for something else, and the log is whole, online and from an export
alone."""

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from tests.e2e import promise
from tests.e2e.system import ROOT, System, docker
from tests.e2e.test_database_gone import Asking
from tests.fixtures.temporal import free_port
from worker.sandbox import engine as names
from worker.sandbox import lifetime
from worker.sandbox.engine import installation_id
from worker.store import times
from worker.store.audit import AuditLog
from worker.store.checking import Verification
from worker.store.checkpoints import Publisher, public_keys
from worker.store.database import Database
from worker.store.offline import verify_export

HOUR_S = 3600


@pytest.fixture
async def system(tmp_path: Path) -> AsyncIterator[System]:
    found = System(data=tmp_path / "clock", home=Path(__file__).with_name("home"), clock=True)
    try:
        await found.start_all(models=False)
        yield found
    finally:
        found.stop_all()


async def verified(system: System, export: Path) -> Verification:
    """The log as an auditor has it, with a checkpoint of now, against the keys and the anchor."""
    settings, db = system.settings, Database(system.settings.sql_url)
    try:
        await asyncio.to_thread(Publisher(db, settings.keys, settings.anchor).publish)
        lines = [line async for line in AuditLog(db).export()]
        await asyncio.to_thread(export.write_bytes, b"".join(lines))
    finally:
        await db.close()
    return await asyncio.to_thread(verify_export, export, public_keys(settings.keys), settings.anchor)


async def test_a_clock_that_is_set_back_and_set_right(system: System, tmp_path: Path) -> None:
    port = free_port()
    system.start("api-2", GATEHOUSE_API_PORT=str(port))
    asking = Asking(system, tuple(f"http://127.0.0.1:{at}/api/v1" for at in (system.ports["api"], port)))  # pyright: ignore[reportArgumentType]
    before = await asking.start("before")
    question = await system.pending(before)

    system.step_clock(-HOUR_S)
    during = await asking.start("during")
    asked = await system.pending(during)
    opened = await system.until_record(during, "run.opened")
    assert times.from_text(opened["ts"]) < times.now() - timedelta(seconds=HOUR_S / 2), "it was set back"
    # Temporal's clock is right, and an answer is worth something for minutes only: this one came an hour ago.
    refused = await system.answer(question, "approve")
    assert (refused.status_code, refused.json()["kind"]) == (409, "expired")
    assert "the clocks of this machine and of Temporal's server are apart" in refused.json()["detail"]
    signed = subprocess.run(  # noqa: ASYNC221
        [sys.executable, "-m", "api.cli", "audit", "anchor", "--json"], cwd=ROOT, env=system.environment,
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    assert json.loads(signed.stdout)["fresh"], "what was recorded meanwhile is signed for"

    system.step_clock(0)
    for run_id, waits in ((before, question), (during, asked)):
        assert (await system.answer(waits, "approve")).status_code == 200
        run = await system.finished(run_id)
        assert run["result"]["output"] == {"second": "succeeded", "flag": "succeeded"}, (run, system.tails())
        records = await promise.check(system, run_id)
        assert [r["seq"] for r in records] == sorted(r["seq"] for r in records)

    found = await verified(system, tmp_path / "log.jsonl")
    assert found.ok, found
    assert found.clock.back >= 1
    # The API's heartbeat may have come in between.
    assert found.anchored <= found.count <= found.anchored + 2


async def test_a_clock_that_is_set_ahead_ends_no_call_at_work(system: System) -> None:
    run_id = await system.start_run("mark-by-rules", "ahead", inputs={"seconds": 30})
    await system.marked(run_id, "second")

    system.step_clock(HOUR_S)
    [image] = docker("inspect", "--format", "{{.Image}}", await system.boxed(run_id))
    ours = {names.LABEL_OWNER: installation_id(system.data), names.LABEL_KIND: "call", lifetime.LABEL_DEADLINE: "1"}
    [leftover] = docker("create", *(f"--label={name}={value}" for name, value in ours.items()), image)
    system.start("sandbox-2")  # sweeps at once
    async with asyncio.timeout(30):
        while leftover in docker("ps", "--all", "--quiet", "--no-trunc"):  # noqa: ASYNC110 - another process's doing
            await asyncio.sleep(0.2)
    done = [r for r in await system.records(run_id) if r["type"] == "call.outcome"]
    assert [r["body"]["outcome"] for r in done] == ["succeeded"], "the second is at work"

    system.step_clock(0)
    assert (await system.answer(await system.pending(run_id), "approve")).status_code == 200
    run = await system.finished(run_id)
    assert run["result"]["output"] == {"second": "succeeded", "flag": "succeeded"}, (run, system.tails())
    await promise.check(system, run_id)
