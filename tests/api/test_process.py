"""Promises: `python -m api.app` starts without Temporal, ends cleanly on SIGTERM with a stream open, and says in one
line why it cannot start."""

import asyncio
import os
import signal
import socket
import sys
from asyncio.subprocess import PIPE, Process
from http.client import HTTPConnection
from pathlib import Path

import httpx

from policies.decision import Principal
from tests.api.running import HOME
from tests.fixtures.temporal import free_port
from worker.settings import Settings
from worker.store.audit import AuditLog
from worker.store.database import Database
from worker.store.keys import ApiKeys


async def started(data: Path, port: int, home: Path = HOME) -> Process:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("GATEHOUSE_")} | {
        "GATEHOUSE_DATA": str(data), "GATEHOUSE_HOME": str(home), "GATEHOUSE_API_PORT": str(port),
        "GATEHOUSE_TEMPORAL_ADDRESS": f"127.0.0.1:{free_port()}",
    }  # fmt: skip
    return await asyncio.create_subprocess_exec(sys.executable, "-m", "api.app", env=environment, stderr=PIPE)


async def until_it_listens(client: httpx.AsyncClient) -> None:
    async with asyncio.timeout(240):
        while True:
            try:
                assert (await client.get("/ready")).status_code == 503
                break
            except httpx.TransportError:
                await asyncio.sleep(0.2)


async def test_sigterm_with_an_open_stream(tmp_path: Path) -> None:
    port = free_port()
    settings = Settings(data=tmp_path)
    database = Database(settings.sql_url)
    await database.migrate()
    _, key = await ApiKeys(database, AuditLog(database), settings.keys).create("t", Principal(id="t", roles=("admin",)))
    await database.close()
    process = await started(tmp_path, port)
    client = httpx.AsyncClient(
        base_url=f"http://127.0.0.1:{port}/api/v1", headers={"Authorization": f"Bearer {key}"}, timeout=60
    )
    await until_it_listens(client)
    body = {"automation": "tidy", "inputs": {"path": "in/a"}}
    assert (await client.post("/runs", json=body, headers={"Idempotency-Key": "k"})).status_code == 503
    run_id = (await client.get("/runs")).json()["items"][0]["id"]
    async with client.stream("GET", f"/runs/{run_id}/events") as stream:
        lines = stream.aiter_lines()
        while "run.requested" not in await anext(lines):
            pass
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(240):
            assert await process.wait() == 0
            async for _ in lines:
                pass
    await client.aclose()


async def test_a_client_may_use_its_connection_again_after_a_pause(tmp_path: Path) -> None:
    """Pools of clients and proxies keep idle connections and write into them without looking."""
    port = free_port()
    process = await started(tmp_path, port)
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}/api/v1", timeout=60) as client:
        await until_it_listens(client)
    kept = HTTPConnection("127.0.0.1", port, timeout=10)
    for pause_s in (8, 0):
        kept.request("GET", "/api/v1/health")
        with kept.getresponse() as response:
            assert response.status == 200
            response.read()
        await asyncio.sleep(pause_s)
    kept.close()
    process.terminate()
    assert await process.wait() == 0


async def test_one_line_says_why_it_cannot_start(tmp_path: Path) -> None:
    rules = tmp_path / "home" / "rules"
    rules.mkdir(parents=True)
    (rules / "mine.yaml").write_text("apiVersion: gatehouse/v1\nrules: [{id: x}]\n")
    process = await started(tmp_path / "data", free_port(), tmp_path / "home")
    _, errors = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 1
    last = errors.decode().splitlines()[-1]
    assert "api.cannot_start" in last
    assert "mine.yaml" in last
    assert "Traceback" not in errors.decode()


async def test_a_taken_port(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        process = await started(tmp_path, int(taken.getsockname()[1]))
        _, errors = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 1
    assert "address already in use" in errors.decode()
