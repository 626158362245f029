"""Promises: a follower sees every record of the run once and in order, live; resumes behind the last one; the stream
ends with the run, and with the server."""

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx

from api import tail
from tests.api.running import Api, Json, running
from tests.fixtures.temporal import TemporalServer
from worker.store.audit import AuditEvent
from worker.store.events import closed_id
from worker.store.runs import Run


async def read(client: httpx.AsyncClient, run_id: str, stop_after: int = 10_000, **more: Any) -> list[Json]:
    """Events until the stream ends or `stop_after` came: id, event, data."""
    found: list[Json] = []
    current: Json = {}
    async with client.stream("GET", f"/runs/{run_id}/events", **more) as response:
        assert response.status_code == 200, await response.aread()
        assert response.headers["content-type"].startswith("text/event-stream")
        async for line in response.aiter_lines():
            name, _, value = line.partition(": ")
            if name in {"id", "event", "data"}:
                current[name] = value
            elif not line and "data" in current:
                found.append({"seq": int(current["id"]), "type": current["event"], **json.loads(current["data"])})
                current = {}
                if len(found) == stop_after:
                    break
    return found


async def record(api: Api, run: Run, fact: str, type_: str) -> None:
    await api.services.audit.append(
        AuditEvent(f"{run.id}/{fact}", type_, run.tenant, run.id, "system:test", {"fact": fact})
    )


async def close(api: Api, run: Run) -> None:
    async with api.services.database.begin() as conn:
        await api.services.audit.lock(conn)
        count = await api.services.audit.count(run.id, conn=conn) + 1
        closed = AuditEvent(closed_id(run.id), "run.closed", run.tenant, run.id, "system:test", {"records": count})
        await api.services.audit.append(closed, conn=conn)


async def test_follow_live_and_resume(api: Api, operator: httpx.AsyncClient) -> None:
    run, other = await api.put_run(), await api.put_run()
    await record(api, run, "requested", "run.requested")
    following = [asyncio.create_task(read(operator, run.id)) for _ in range(3)]
    for n in range(5):
        await asyncio.sleep(0.1)
        await record(api, other, f"noise/{n}", "model.requested")
        await record(api, run, f"model/{n}", "model.requested")
    await close(api, run)
    found = [await asyncio.wait_for(f, 60) for f in following]
    kept = await api.services.audit.page(tenant="default", run_id=run.id)
    assert [e["seq"] for e in found[0]] == [r.seq for r in kept]
    assert found[0] == found[1] == found[2]
    assert found[0][-1]["type"] == "run.closed"
    assert {e["run_id"] for e in found[0]} == {run.id}

    third = str(found[0][2]["seq"])
    assert await read(operator, run.id, headers={"Last-Event-ID": third}) == found[0][3:]
    assert await read(operator, run.id, params={"after": third}) == found[0][3:]
    ended = await asyncio.wait_for(read(operator, run.id, headers={"Last-Event-ID": str(found[0][-1]["seq"])}), 60)
    assert ended == []


async def test_latency_of_a_live_event(api: Api, operator: httpx.AsyncClient) -> None:
    run = await api.put_run()
    following = asyncio.create_task(read(operator, run.id, stop_after=1))
    await asyncio.sleep(0.5)
    begin = asyncio.get_running_loop().time()
    await record(api, run, "requested", "run.requested")
    await asyncio.wait_for(following, 60)
    assert asyncio.get_running_loop().time() - begin < 10  # far less on an idle machine; a reader's own look is rarer


async def test_a_long_run_comes_whole(api: Api, operator: httpx.AsyncClient) -> None:
    run = await api.put_run()
    count = tail.PAGE * 2 + 7
    await api.services.audit.append(
        *(
            AuditEvent(f"{run.id}/m/{n}", "model.requested", "default", run.id, "system:test", {"n": n})
            for n in range(count)
        )
    )
    await close(api, run)
    found = await asyncio.wait_for(read(operator, run.id), 60)
    assert [e["body"].get("n") for e in found[:-1]] == list(range(count))


async def test_refusals_come_before_the_stream(api: Api, operator: httpx.AsyncClient) -> None:
    assert (await operator.get("/runs/none/events")).status_code == 404
    run = await api.put_run()
    for bad in "x", "-1", "9" * 19:
        response = await operator.get(f"/runs/{run.id}/events", headers={"Last-Event-ID": bad})
        assert (response.status_code, response.json()["errors"][0]["field"]) == (422, "header.Last-Event-ID")


async def test_shutdown_ends_open_streams(tmp_path: Path, temporal_server: TemporalServer) -> None:
    async with running(tmp_path, temporal_server.address) as own:
        client = await own.client("operator")
        run = await own.put_run()
        following = asyncio.create_task(read(client, run.id))
        await asyncio.sleep(0.5)
        begin = asyncio.get_running_loop().time()
        own.clients.clear()  # closing the client would end the stream from the other side
    assert await asyncio.wait_for(following, 60) == []
    assert asyncio.get_running_loop().time() - begin < 40  # it did not wait for the stream to end by itself
    await client.aclose()
