"""The queue page with 10,000 questions waiting, against the bare mechanism: the same query and plain JSON.

One API process with a full store, asked over HTTP on a kept connection, in alternating rounds: `GET /console/queue`
(session, rights, counts, 50 rows drawn) and the bare rows (query, JSON, without HTTP). Pages further back, filters and
the page of one question are measured too, and what the process holds in memory before and after.

    python -m benchmarks.console [--pending N] [--requests N]
"""

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx

from api.services import Services, open_services
from benchmarks.api import environment
from policies.decision import Principal
from tests.api.running import HOME, question_of
from tests.fixtures.temporal import free_port
from worker.settings import Settings
from worker.store.ids import new_id
from worker.store.queue import Wanted
from worker.store.runs import Run

LIMIT_MS = 150.0
"""p95 of the queue page."""
GROWTH_MB = 64
"""What the API's memory may grow by while it draws pages."""
EFFECTS = ("destructive", "send", "financial", "write", "access")


async def main(pending: int, requests: int) -> bool:
    """Measure, print, and say whether the limits hold."""
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(data=Path(folder), home=HOME, api_port=free_port(), temporal_address="127.0.0.1:1")
        async with open_services(settings) as services:
            await fill(services, pending)
            _, key = await services.keys.create("bench", Principal(id="ruth", roles=("approver",)))
            quiet = asyncio.subprocess.DEVNULL
            api = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "api.app",
                env=environment(settings),
                stdout=quiet,
                stderr=quiet,
            )
            try:
                async with httpx.AsyncClient(
                    base_url=f"http://127.0.0.1:{settings.api_port}", headers={"Sec-Fetch-Site": "same-origin"}
                ) as client:
                    return await compare(services, client, api.pid, key, pending, requests)
            finally:
                api.terminate()
                await api.wait()


async def fill(services: Services, pending: int) -> None:
    """A queue as long as asked for, with everything the page shows."""
    now = datetime.now(UTC)
    async with services.database.begin() as conn:
        for number in range(pending):
            run = Run(
                id=new_id("run"), tenant="default", automation="tidy", automation_version="1.0", digest="0" * 64,
                requester=f"olga{number % 7}", principal=Principal(id="olga"), inputs={"path": "in/a"}, created_at=now,
                updated_at=now,
            )  # fmt: skip
            await services.runs.insert(run, conn=conn)
            asked = question_of(
                run, effect=EFFECTS[number % 5], deadline=now + timedelta(minutes=1 + number * 7 % 9973)
            )
            await services.approvals.open(asked, conn=conn)


async def compare(
    services: Services, client: httpx.AsyncClient, pid: int, key: str, pending: int, requests: int
) -> bool:
    """Alternating rounds; prints a line each, then the JSON object."""
    async with asyncio.timeout(60):
        while True:
            try:
                if (await client.post("/console/sign-in", data={"key": key})).status_code == 303:
                    break
            except httpx.TransportError:
                await asyncio.sleep(0.2)
    wanted = Wanted(tenant="default")

    async def bare() -> None:
        page = await services.queue.page(wanted, limit=50)
        json.dumps([row.model_dump(mode="json") for row in page.items])

    def get(path: str) -> Callable[[], Awaitable[None]]:
        async def fetch() -> None:
            (await client.get(path)).raise_for_status()

        return fetch

    cursor = None
    for _ in range(max(1, pending // 100)):  # halfway back
        cursor = (await services.queue.page(wanted, cursor=cursor, limit=50)).next_cursor or cursor
    first = (await services.queue.page(wanted, limit=1)).items[0].request.id
    measured: dict[str, Callable[[], Awaitable[None]]] = {
        "bare": bare, "queue": get("/console/queue"), "filtered": get("/console/queue?effect=financial&age=5m"),
        "halfway": get(f"/console/queue?cursor={cursor or ''}"), "question": get(f"/console/questions/{first}"),
    }  # fmt: skip
    for ask in measured.values():
        await ask()
    before = memory_mb(pid)
    took: dict[str, list[float]] = {name: [] for name in measured}
    for _ in range(requests):
        for name, ask in measured.items():
            begin = time.perf_counter()
            await ask()
            took[name].append((time.perf_counter() - begin) * 1000)
    grown = memory_mb(pid) - before
    found: dict[str, float] = {"pending": pending}
    for name, times in took.items():
        found[f"{name}_p50_ms"] = round(statistics.median(times), 1)
        found[f"{name}_p95_ms"] = round(statistics.quantiles(times, n=20)[18], 1)
        print(f"{name:9} p50 {found[f'{name}_p50_ms']:6.1f} ms   p95 {found[f'{name}_p95_ms']:6.1f} ms")
    found |= {
        "ratio_p50": round(found["queue_p50_ms"] / found["bare_p50_ms"], 1), "memory_grown_mb": round(grown, 1),
        "limit_p95_ms": LIMIT_MS,
    }  # fmt: skip
    print(f"the page against the bare rows: {found['ratio_p50']} times; memory grew by {grown:.1f} MB")
    print(json.dumps(found))
    return found["queue_p95_ms"] <= LIMIT_MS and grown <= GROWTH_MB


def memory_mb(pid: int) -> float:
    """Resident size of the process."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pending", type=int, default=10_000)
    parser.add_argument("--requests", type=int, default=100)
    options = parser.parse_args()
    sys.exit(0 if asyncio.run(main(options.pending, options.requests)) else 1)
