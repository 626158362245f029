"""POST /runs against the bare Temporal client's start call, in alternating rounds of one run.

Both start the very same workflow (same input, task queue, search attributes and payload settings) on one dev server
with its database in a file, as the product runs it, and without workers. What is compared is what the API adds: HTTP,
the key, the right, validation, the row and its audit record, durably. The API is its own process, as in real life; the
client keeps its connection.

    python -m benchmarks.api [--requests N] [--memory]
"""

import argparse
import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import httpx

from api.launch import RunIn, check
from api.services import Services, open_services
from policies.decision import Principal
from tests.api.running import HOME
from tests.fixtures.temporal import TemporalServer, free_port
from worker.settings import Settings
from worker.store.ids import new_id
from workflows.contracts import RunRequest

BODY = {"automation": "tidy", "inputs": {"path": "in/a"}}
LIMIT = 2.0
"""POST /runs p50 may be at most this many times the bare client's."""
ROUND = 10


async def main(requests: int, memory: bool) -> bool:
    """Measure, print, and say whether the limit holds."""
    with tempfile.TemporaryDirectory() as folder:
        server = TemporalServer(db=None if memory else Path(folder) / "temporal.db")
        await server.start()
        settings = Settings(data=Path(folder), home=HOME, temporal_address=server.address, api_port=free_port())
        api = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "api.app", env=environment(settings), stderr=asyncio.subprocess.DEVNULL
        )
        try:
            async with open_services(settings) as services:
                return await compare(services, requests)
        finally:
            api.terminate()
            await api.wait()
            server.stop()


def environment(settings: Settings) -> dict[str, str]:
    """What the API process is started with: these settings and nothing else of the product's."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("GATEHOUSE_")}
    return kept | {
        "GATEHOUSE_DATA": str(settings.data), "GATEHOUSE_HOME": str(settings.home),
        "GATEHOUSE_TEMPORAL_ADDRESS": settings.temporal_address, "GATEHOUSE_API_PORT": str(settings.api_port),
    }  # fmt: skip


async def connected(settings: Settings, key: str) -> httpx.AsyncClient:
    """A client of the API once that is ready."""
    client = httpx.AsyncClient(
        base_url=f"http://127.0.0.1:{settings.api_port}/api/v1", headers={"Authorization": f"Bearer {key}"}, timeout=30
    )
    async with asyncio.timeout(60):
        while True:
            try:
                if (await client.get("/ready")).status_code == 200:
                    return client
            except httpx.TransportError:
                pass
            await asyncio.sleep(0.2)


async def compare(services: Services, requests: int) -> bool:
    """Alternate rounds of the three ways to start a run."""
    principal = Principal(id="operator", roles=("operator",))
    _, key = await services.keys.create("benchmark", principal)
    client = await connected(services.settings, key)
    checked = await check(services, principal, RunIn.model_validate(BODY))

    async def bare() -> None:
        request = RunRequest(
            run_id=new_id("run"), principal=principal, automation=checked.spec, inputs=checked.inputs,
            answer_keys=dict(services.public_keys),
        )  # fmt: skip
        await services.gateway.start(request, "details")

    async def post(headers: dict[str, str]) -> None:
        response = await client.post("/runs", json=BODY, headers=headers)
        assert response.status_code == 202, response.text

    ways: dict[str, Callable[[], Awaitable[None]]] = {
        "bare": bare,
        "post": lambda: post({}),
        "post_keyed": lambda: post({"Idempotency-Key": new_id("bench")}),
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    for way in ways.values():
        for _ in range(ROUND):
            await way()
    for _ in range(max(1, requests // ROUND)):
        for name, way in ways.items():
            for _ in range(ROUND):
                begin = time.perf_counter()
                await way()
                times[name].append(time.perf_counter() - begin)
    return report(times)


def report(times: dict[str, list[float]]) -> bool:
    """A table for people, then one JSON object on the last line."""
    medians = {name: round(statistics.median(values) * 1000, 2) for name, values in times.items()}
    ratios = {name: round(medians[name] / medians["bare"], 2) for name in ("post", "post_keyed")}
    for name, values in times.items():
        p95 = statistics.quantiles(values, n=20)[-1] * 1000
        print(f"{name:<11} p50 {medians[name]:7.2f} ms   p95 {p95:7.2f} ms   n {len(values)}")
    print(f"POST /runs is {ratios['post']}x the bare start call, {ratios['post_keyed']}x with a key (limit {LIMIT}x)")
    holds = ratios["post"] <= LIMIT
    load = [round(x, 2) for x in os.getloadavg()]
    print(
        json.dumps({"name": "api", "medians": medians, "ratios": ratios, "load": load, "limit": LIMIT, "holds": holds})
    )
    return holds


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="POST /runs against the bare Temporal client.")
    parser.add_argument("--requests", type=int, default=200, help="measured requests of each kind")
    parser.add_argument(
        "--memory", action="store_true", help="Temporal keeps nothing on disk: flatters the bare client"
    )
    given = parser.parse_args()
    raise SystemExit(0 if asyncio.run(main(given.requests, given.memory)) else 1)
