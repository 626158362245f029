"""Promises: a lost answer to a start makes one run, not two; what only reads is repeated, what acts is never; an event
stream that breaks goes on where it broke; lists end where they should; a refusal is an exception that says why."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gatehouse_client import (
    AuthenticationError,
    ConflictError,
    ForbiddenError,
    Gatehouse,
    InvalidError,
    NotFoundError,
    RunWaitsError,
    TooManyRequestsError,
    UnavailableError,
    UnexpectedAnswerError,
    UnreachableError,
    transport,
)
from tests.api.running import Api
from tests.client.conftest import Speaks
from tests.client.wire import LOST, problem, wire
from worker.store.audit import AuditEvent
from worker.store.events import closed_id
from workflows.contracts import Phase

INPUTS = {"path": "in/a"}


@pytest.fixture(autouse=True)
def in_a_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "FIRST_WAIT_S", 0.01)


async def test_a_start_whose_answer_is_lost_makes_one_run(api: Api) -> None:
    client = await api.client("lost", "operator")
    async with (
        wire(api.url, LOST, problem(503, "temporal_unreachable"), problem(409, "in_progress")) as broken,
        Gatehouse(broken.url, api.keys["lost"]) as gatehouse,
    ):
        run = await gatehouse.start_run("tidy", INPUTS)
    assert len(broken.requests) == 4
    keys = {line for head in broken.requests for line in head.split("\r\n") if line.startswith("Idempotency-Key:")}
    assert len(keys) == 1
    mine = [r for r in (await client.get("/runs")).json()["items"] if r["requester"] == "lost"]
    assert [r["id"] for r in mine] == [run.id]


async def test_what_acts_is_sent_once_and_what_reads_again(api: Api) -> None:
    await api.client("admin")
    run = await api.put_run()
    key = api.keys["admin"]
    async with wire(api.url, LOST, LOST) as broken, Gatehouse(broken.url, key) as gatehouse:
        with pytest.raises(UnreachableError):
            await gatehouse.cancel_run(run.id)
        assert (await gatehouse.get_run(run.id)).id == run.id
    assert [head.split()[0] for head in broken.requests] == ["POST", "GET", "GET"]
    busy = problem(429, "rate_limited", Retry_After="0")
    async with wire(api.url, busy, busy) as broken, Gatehouse(broken.url, key, retries=1) as gatehouse:
        with pytest.raises(TooManyRequestsError) as refused:
            await gatehouse.set_switch("tool", "a test", target="none_such")
    assert (refused.value.kind, refused.value.retry_after_s) == ("rate_limited", 0)
    away = problem(503, "store_unavailable")
    async with wire(api.url, away, away) as broken, Gatehouse(broken.url, key, retries=1) as gatehouse:
        with pytest.raises(UnavailableError):
            await gatehouse.get_me()
    assert len(broken.requests) == 2


async def test_a_broken_stream_goes_on_where_it_broke(api: Api) -> None:
    await api.client("viewer")
    run = await api.put_run(phase=Phase.SUCCEEDED)
    events = [AuditEvent(f"{run.id}/x/{n}", "run.degraded", "default", run.id, "t", {"n": n}) for n in range(6)]
    await api.services.audit.append(*events)
    await api.services.audit.append(AuditEvent(closed_id(run.id), "run.closed", "default", run.id, "t", {"records": 7}))
    # Cut in the middle of an event, several times over; and once not answered at all.
    async with wire(api.url, 1500, 1600, LOST, 1700) as broken, Gatehouse(broken.url, api.keys["viewer"]) as gatehouse:
        seen = [record async for record in gatehouse.follow_run(run.id)]
        now = [record.seq async for record in gatehouse.follow_run(run.id, until_now=True)]
        assert now == [record.seq for record in seen]
        behind = [record.seq async for record in gatehouse.follow_run(run.id, after=seen[3].seq)]
    assert [record.run_seq for record in seen] == list(range(1, 8))
    assert behind == [record.seq for record in seen[4:]]
    assert len(broken.requests) > 4


async def test_waiting_tells_how_it_goes_and_when_it_gives_up(api: Api, speaks: Speaks) -> None:
    gatehouse = await speaks("viewer")
    run = await api.put_run(phase=Phase.SUCCEEDED)
    await api.services.audit.append(AuditEvent(f"{run.id}/x", "run.opened", "default", run.id, "t", {}))
    with pytest.raises(RunWaitsError, match="has not ended"):
        await gatehouse.wait_for_run(run.id, timeout_s=0.2)
    seen: asyncio.Queue[str] = asyncio.Queue()
    waiting = asyncio.create_task(gatehouse.wait_for_run(run.id, progress=lambda record: seen.put_nowait(record.type)))
    assert await asyncio.wait_for(seen.get(), 60) == "run.opened"
    await api.services.audit.append(AuditEvent(closed_id(run.id), "run.closed", "default", run.id, "t", {"records": 2}))
    assert (await asyncio.wait_for(waiting, 60)).phase == "succeeded"
    assert await seen.get() == "run.closed"


async def test_a_list_is_as_long_as_wanted(api: Api, speaks: Speaks, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "PAGE", 2)
    gatehouse = await speaks("viewer")
    made = [(await api.put_run(automation="paged")).id for _ in range(5)]
    assert [run.id async for run in gatehouse.list_runs(automation="paged")] == made[::-1]
    for limit in (0, 1, 3, 5, 9):
        found = [run.id async for run in gatehouse.list_runs(automation="paged", limit=limit)]
        assert found == made[::-1][:limit]
    assert [run.id async for run in gatehouse.list_runs(automation="paged", phase="failed")] == []


async def test_a_refusal_says_why(api: Api, speaks: Speaks) -> None:
    operator, viewer = await speaks("operator"), await speaks("viewer")
    with pytest.raises(NotFoundError) as nothing:
        await viewer.get_run("run_none")
    assert (nothing.value.status, nothing.value.kind) == (404, "not_found")
    assert nothing.value.remedy
    assert nothing.value.request_id
    with pytest.raises(InvalidError) as wrong:
        await operator.start_run("tidy", {"path": "elsewhere"})
    assert (wrong.value.kind, wrong.value.field) == ("invalid_inputs", "body.inputs.path")
    assert wrong.value.errors[0].remedy
    with pytest.raises(ForbiddenError, match="operator"):
        await viewer.start_run("tidy", INPUTS)
    finished = await api.put_run(phase=Phase.SUCCEEDED)
    with pytest.raises(ConflictError) as late:
        await operator.cancel_run(finished.id)
    assert late.value.kind == "already_final"
    async with Gatehouse(api.url, "gh_wrong") as stranger:
        with pytest.raises(AuthenticationError):
            await stranger.get_me()
        assert (await stranger.get_health()).status == "alive"
    with pytest.raises(NotFoundError):
        _ = [chunk async for chunk in viewer.get_artifact(finished.id, "none")]


async def test_who_answers_is_no_gatehouse(api: Api) -> None:
    page = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\nConnection: close\r\n\r\n<html>"
    gone = b"HTTP/1.1 502 x\r\nContent-Length: 6\r\nConnection: close\r\n\r\n<html>"
    async with wire(api.url, page, gone) as broken, Gatehouse(broken.url, "") as gatehouse:
        with pytest.raises(UnexpectedAnswerError):
            await gatehouse.get_me()
        with pytest.raises(Exception, match="HTTP 502"):
            await gatehouse.get_me()


async def test_files_go_both_ways(api: Api, speaks: Speaks, tmp_path: Path) -> None:
    operator = await speaks("operator")
    content = bytes(range(256)) * 2000
    (tmp_path / "a.log").write_bytes(content)
    by_path = await operator.upload_file(tmp_path / "a.log", media_type="text/plain")
    assert (by_path.name, by_path.size, by_path.media_type) == ("a.log", len(content), "text/plain")

    async def pieces() -> AsyncIterator[bytes]:
        yield content[:1000]
        yield content[1000:]

    streamed = await operator.upload_file(pieces(), name="b.log")
    assert streamed.sha256 == by_path.sha256
    kept = await api.put_artifact("out/a report.md", content)
    (listed,) = await operator.list_artifacts(kept.id)
    assert await operator.save_artifact(kept.id, listed.name, tmp_path / "report.md") == len(content)
    assert (tmp_path / "report.md").read_bytes() == content
    with pytest.raises(ValueError, match="needs a name"):
        await operator.upload_file(b"x")


async def test_answers_carry_what_was_seen(api: Api, speaks: Speaks) -> None:
    approver = await speaks("approver")
    asked = await api.put_question(await api.put_run(phase=Phase.AWAITING_APPROVAL))
    question = await approver.get_approval(asked.id)
    assert question.call is not None
    assert question.call.arguments == {"paths": ["in/a"]}
    assert [q.id async for q in approver.list_approvals(run=asked.run_id, state="pending")] == [asked.id]
    with pytest.raises(ConflictError) as stale:
        await approver.approve(asked.id, "0" * 64, reason="seen")
    assert stale.value.kind == "args_changed"
