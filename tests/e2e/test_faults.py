"""Kill -9 of every part at several points of a run: it finishes, no effect doubles, none is unaudited, nothing stays.

The main job is log-triage with the practice model; a reviewer approves the deletion as soon as it is asked.
"""

import asyncio
import gzip
from collections import Counter
from typing import Any

import pytest

from tests.e2e import promise
from tests.e2e.system import System, docker

Json = dict[str, Any]

LOG = b"2026-11-20 10:00:00 INFO start\n" + b"2026-11-20 10:00:01 ERROR db: connection refused (pool=7)\n" * 40
FILES = {"app.log": LOG, "app.log.1": LOG * 2, "app.log.2.gz": gzip.compress(LOG, mtime=0)}

POINTS = [
    ("runs", "call.intent", 2),
    ("runs", "gate.decided", 3),
    ("runs", "approval.requested", 1),
    ("runs", "approval.approved", 1),
    ("models", "call.outcome", 2),
    ("models", "model.requested", 1),
    ("sandbox", "run.opened", 1),
    ("sandbox", "call.outcome", 1),
    ("api", "approval.requested", 1),
    ("api", "approval.approved", 1),
    ("temporal", "call.intent", 2),
    ("temporal", "approval.requested", 1),
    ("temporal", "approval.approved", 1),
]


async def triage(system: System, key: str) -> str:
    """Start log-triage on the sample files."""
    files = [await system.upload(name, content) for name, content in FILES.items()]
    return await system.start_run("log-triage", key, files=files)


async def approve_when_asked(system: System, run_id: str) -> Json:
    """Approve the run's first question; a question answered by a lost request may be decided already."""
    question = await system.pending(run_id)
    response = await system.answer(question, "approve")
    decided = response.status_code == 409 and response.json()["kind"] == "already_decided"
    assert response.status_code == 200 or decided, response.text
    return question


@pytest.mark.parametrize(("part", "record", "nth"), POINTS, ids=[f"{p}-at-{r}-{n}" for p, r, n in POINTS])
async def test_a_killed_part_costs_nothing_but_time(system: System, part: str, record: str, nth: int) -> None:
    run_id = await triage(system, f"kill-{part}-{record}-{nth}")
    approval = asyncio.create_task(approve_when_asked(system, run_id))
    await system.until_record(run_id, record, nth)
    system.kill(part)
    await asyncio.sleep(0.5)
    system.start(part)
    await approval
    run = await system.finished(run_id)
    assert run["phase"] == "succeeded", (run, system.tails())
    assert run["rung"] in ("model", "fallback_model"), run
    assert [a["name"] for a in run["result"]["artifacts"]] == ["report.md"]
    records = await promise.check(system, run_id)
    deletions = [r for r in records if r["type"] == "call.outcome" and r["body"]["tool"] == "delete_files"]
    assert len(deletions) == 1


async def test_everything_killed_at_once_goes_on_where_it_was(system: System) -> None:
    run_id = await triage(system, "kill-everything")
    question = await system.pending(run_id)
    for part in ("api", "runs", "models", "sandbox", "temporal"):
        system.kill(part)
    for part in ("temporal", "runs", "models", "sandbox", "api"):
        system.start(part)
    await system.ready()
    assert (await system.answer(question, "approve")).status_code == 200
    assert (await system.finished(run_id))["phase"] == "succeeded"
    await promise.check(system, run_id)


async def marks(system: System, run_id: str) -> Counter[str]:
    """How often each effect happened, as the artifact tells."""
    response = await system.request("olga", "GET", f"/runs/{run_id}/artifacts/marks.log")
    assert response.status_code == 200, response.text
    return Counter(response.text.split())


async def killed_in_the_box(system: System, key: str) -> tuple[str, Json]:
    """Kill the sandbox worker while an at-most-once program has already left its mark; the question that follows."""
    run_id = await system.start_run("mark-by-rules", key, inputs={"seconds": 45})
    await system.marked(run_id, "second")
    system.kill("sandbox")
    system.start("sandbox")
    question = await system.pending(run_id)
    assert question["question"] == "unknown_outcome"
    return run_id, question


async def test_a_call_that_may_not_repeat_is_left_to_a_human_who_leaves_it(system: System) -> None:
    run_id, question = await killed_in_the_box(system, "unknown-left")
    assert (await system.answer(question, "deny")).status_code == 200
    assert (await approve_when_asked(system, run_id))["call"]["tool"] == "put_mark"
    run = await system.finished(run_id)
    assert run["result"]["output"] == {"second": "unknown", "flag": "succeeded"}
    assert (await marks(system, run_id))["second"] == 1
    await promise.check(system, run_id)


async def test_a_call_that_may_not_repeat_runs_again_only_by_a_humans_order(system: System) -> None:
    run_id, question = await killed_in_the_box(system, "unknown-ordered")
    assert (await system.answer(question, "approve")).status_code == 200
    assert (await approve_when_asked(system, run_id))["call"]["tool"] == "put_mark"
    run = await system.finished(run_id)
    assert run["result"]["output"] == {"second": "succeeded", "flag": "succeeded"}
    assert (await marks(system, run_id)) == {"first": 1, "second": 2}, "once before the kill, once by order"
    await promise.check(system, run_id)


async def test_a_call_that_may_repeat_is_fenced_and_repeated(system: System) -> None:
    run_id = await system.start_run("mark-by-rules", "safe-repeat", inputs={"flag_seconds": 4})
    await approve_when_asked(system, run_id)
    await system.until_record(run_id, "approval.approved")
    first = await system.boxed(run_id)
    await asyncio.sleep(1)
    system.kill("sandbox")
    system.start("sandbox")
    run = await system.finished(run_id)
    assert run["result"]["output"]["flag"] == "succeeded", run
    assert first not in docker("ps", "-aq")
    await promise.check(system, run_id)


async def test_cancel_ends_the_box_and_withdraws_the_question(system: System) -> None:
    asking = await triage(system, "cancel-asking")
    question = await system.pending(asking)
    running = await system.start_run("mark-by-rules", "cancel-running", inputs={"seconds": 40})
    await system.until_record(running, "gate.decided", 2)
    await system.boxed(running)
    for run_id in (asking, running):
        response = await system.request("olga", "POST", f"/runs/{run_id}/cancel")
        assert response.status_code == 202, response.text
    for run_id in (asking, running):
        assert (await system.finished(run_id))["phase"] == "cancelled"
        await promise.check(system, run_id)
    late = await system.answer(question, "approve")
    assert late.status_code == 409, late.text
    assert late.json()["kind"] == "cancelled"


async def test_temporal_gone_is_said_and_nothing_is_lost(system: System) -> None:
    file = await system.upload("app.log", LOG)
    system.kill("temporal")
    try:
        async with system.client("olga") as client:
            ready = await client.get("/ready")
            assert ready.status_code == 503
            body: Json = {"automation": "log-triage", "inputs": {}, "files": [file]}
            refused = await client.post("/runs", json=body, headers={"Idempotency-Key": "temporal-gone"})
        assert refused.status_code == 503, refused.text
        assert "temporal" in refused.json()["detail"].lower()
    finally:
        system.start("temporal")
    run_id = await system.start_run("log-triage", "temporal-gone", files=[file])
    run = await system.finished(run_id)
    assert run["phase"] == "succeeded", (run, system.tails())
    await promise.check(system, run_id)
