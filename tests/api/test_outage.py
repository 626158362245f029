"""Promises: without Temporal the API starts, reads work, readiness is red with the reason, starts answer 503, and what
was asked for under a key starts later, once."""

import asyncio
from pathlib import Path

import httpx

from tests.api.running import Api, running
from tests.api.test_events import read
from tests.fixtures.store import Server
from tests.fixtures.temporal import TemporalServer

BODY = {"automation": "tidy", "inputs": {"path": "in/a"}}


async def parts(api: Api) -> tuple[int, dict[str, bool]]:
    response = await api.anonymous().get("/ready")
    return response.status_code, {name: part["ok"] for name, part in response.json()["parts"].items()}


async def start(client: httpx.AsyncClient, key: str | None = None) -> httpx.Response:
    return await client.post("/runs", json=BODY, headers={"Idempotency-Key": key} if key else {})


async def test_all_green(api: Api) -> None:
    assert (await api.anonymous().get("/health")).json() == {"status": "alive"}
    green = {"store": True, "migrations": True, "temporal": True, "policy": True}
    assert await parts(api) == (200, {**green, "workers": False}), "nobody works here, and the API serves all the same"
    told = (await api.anonymous().get("/ready")).json()["parts"]["workers"]
    assert "gatehouse-" in told["reason"] or "sandbox" in told["reason"]
    assert "GATEHOUSE_SANDBOX_WAIT_S" in told["remedy"]


async def test_temporal_away_from_the_start_and_again_later(tmp_path: Path) -> None:
    server = TemporalServer()
    async with running(tmp_path, server.address) as api:
        client = await api.client("admin")
        red = await api.anonymous().get("/ready")
        assert red.status_code == 503
        temporal = red.json()["parts"]["temporal"]
        assert server.address in temporal["reason"]
        assert "GATEHOUSE_TEMPORAL_ADDRESS" in temporal["remedy"]
        assert red.json()["parts"]["store"]["ok"]
        assert (await client.get("/runs")).status_code == 200, "reads do not need Temporal"

        unkeyed = await start(client)
        assert (unkeyed.status_code, unkeyed.json()["kind"]) == (503, "temporal_unreachable")
        assert server.address in unkeyed.json()["detail"]
        assert unkeyed.headers["retry-after"]
        (failed,) = (await client.get("/runs")).json()["items"]
        assert failed["phase"] == "failed"
        assert "Temporal" in failed["result"]["failure"]

        for _ in range(2):
            keyed = await start(client, "later")
            assert keyed.status_code == 503
            assert "same Idempotency-Key" in keyed.json()["remedy"]
        (waiting,) = (await client.get("/runs", params={"phase": "queued"})).json()["items"]
        asked = await api.put_question(await api.put_run())
        answered = await (await api.client("approver")).post(
            f"/approvals/{asked.id}/deny", json={"digest": asked.digest, "reason": "no"}
        )
        assert answered.json()["kind"] == "temporal_unreachable"
        assert (await client.post(f"/runs/{waiting['id']}/cancel")).json()["kind"] == "temporal_unreachable"

        await server.start()
        try:
            assert (await parts(api))[0] == 200
            started = await start(client, "later")
            assert (started.status_code, started.json()["id"]) == (202, waiting["id"])
            assert len(await api.records("run.requested", run_id=waiting["id"])) == 1
            assert await api.services.gateway.exists(waiting["id"])
        finally:
            server.stop()

        # Gone again, under a connection that worked.
        begin = asyncio.get_running_loop().time()
        assert (await start(client)).json()["kind"] == "temporal_unreachable"
        assert (await parts(api))[1]["temporal"] is False
        assert asyncio.get_running_loop().time() - begin < 60
        assert (await api.services.audit.verify()).ok


async def test_the_store_away(tmp_path: Path, temporal_server: TemporalServer) -> None:
    async with running(tmp_path, temporal_server.address) as api:
        client = await api.client("viewer")
        assert (await client.get("/runs")).status_code == 200
        await api.services.database.close()
        path = api.services.database.sqlite_path
        assert path is not None
        for suffix in "-wal", "-shm":
            path.with_name(path.name + suffix).unlink(missing_ok=True)
        path.write_bytes(b"not a database " * 4096)
        response = await client.get("/runs")
        assert (response.status_code, response.json()["kind"]) == (503, "store_unavailable"), response.text
        status, found = await parts(api)
        assert (status, found["store"], found["migrations"], found["temporal"]) == (503, False, False, True)


async def test_on_postgresql(tmp_path: Path, temporal_server: TemporalServer, postgres_server: Server) -> None:
    """The same API over the other database: start, repeat, list, follow, cancel."""
    url = postgres_server.create()
    async with running(tmp_path, temporal_server.address, database_url=url) as api:
        assert (await parts(api))[0] == 200
        client = await api.client("admin")
        answers = await asyncio.gather(*(start(client, "pg") for _ in range(6)))
        ids = {a.json()["id"] for a in answers if a.status_code == 202}
        assert len(ids) == 1, [a.text for a in answers]
        assert {a.status_code for a in answers} <= {202, 409}
        run = await api.put_run()
        following = asyncio.create_task(read(client, run.id))
        assert (await client.post(f"/runs/{run.id}/cancel")).json()["phase"] == "cancelled"
        assert [e["type"] for e in await asyncio.wait_for(following, 60)] == ["run.cancel_requested", "run.closed"]
        listed = (await client.get("/runs")).json()["items"]
        assert {r["id"] for r in listed} == ids | {run.id}
        nul = await client.post("/runs", json={"automation": "tidy", "inputs": {"path": "in/\x00"}})
        assert nul.status_code == 202
        assert (await client.get("/audit/verify")).json()["ok"]
    postgres_server.drop(url)
