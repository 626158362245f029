"""The clock of a whole installation is set back by an hour under runs and questions, and an hour later set right: work
goes on, nothing is taken for something else, and the log is whole, online and from an export alone."""

import json
import subprocess
import sys
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from tests.e2e import promise
from tests.e2e.system import ROOT, Json, System
from worker.store import times

HOUR_S = 3600


@pytest.fixture
async def system(tmp_path: Path) -> AsyncIterator[System]:
    found = System(data=tmp_path / "clock", home=Path(__file__).with_name("home"), clock=True)
    try:
        await found.start_all()
        yield found
    finally:
        found.stop_all()


def told(system: System, *command: str) -> Json:
    """What `gatehouse audit` says, under the same clock."""
    done = subprocess.run(
        [sys.executable, "-m", "api.cli", "audit", *command, "--json"], cwd=ROOT, env=system.environment,
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)


async def test_a_clock_that_is_set_back_and_set_right(system: System, tmp_path: Path) -> None:
    before = await system.start_run("mark-by-rules", "before")
    question = await system.pending(before)
    assert told(system, "anchor")["fresh"]

    system.step_clock(-HOUR_S)
    during = await system.start_run("mark-by-rules", "during")
    asked = await system.pending(during)
    opened = await system.until_record(during, "run.opened")
    assert times.from_text(opened["ts"]) < times.now() - timedelta(seconds=HOUR_S / 2), "it was set back"
    # Temporal's clock is right, and an answer is worth something for minutes only: this one came an hour ago.
    refused = await system.answer(question, "approve")
    assert (refused.status_code, refused.json()["kind"]) == (409, "expired")
    assert "the clocks of this machine and of Temporal's server are apart" in refused.json()["detail"]
    assert told(system, "anchor")["fresh"], "what was recorded meanwhile is signed for"

    system.step_clock(0)
    for run_id, waits in ((before, question), (during, asked)):
        assert (await system.answer(waits, "approve")).status_code == 200
        run = await system.finished(run_id)
        assert run["result"]["output"] == {"second": "succeeded", "flag": "succeeded"}, (run, system.tails())
        records = await promise.check(system, run_id)
        assert [r["seq"] for r in records] == sorted(r["seq"] for r in records)

    anchored, log = told(system, "anchor"), tmp_path / "log.jsonl"
    told(system, "export", "--out", str(log))
    found = told(
        system, "verify", "--export", str(log), "--public-key", anchored["public_key"], "--anchor", anchored["anchor"]
    )
    assert (found["ok"], found["count"]) == (True, anchored["size"])
    assert found["clock_set_back"] >= 1
