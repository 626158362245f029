"""The database is killed while two API processes and all workers write to it: whoever asks meanwhile is told so, and
what was asked for, answered or under way goes on when it is back, once."""

import asyncio
from collections.abc import Iterator

import httpx
import pytest

from tests.e2e import promise
from tests.e2e.system import Json, System
from tests.fixtures.postgres import Killable
from tests.fixtures.temporal import free_port

ASKED = 3
PATHS = ("/runs", "/approvals", "/audit", "/keys", "/switches", "/deliveries", "/grants")


@pytest.fixture
def apis(on_postgres: tuple[System, Killable]) -> Iterator[tuple[str, str]]:
    """Addresses of two API processes on one database."""
    system, _ = on_postgres
    port = free_port()
    system.start("api-2", GATEHOUSE_API_PORT=str(port))
    yield tuple(f"http://127.0.0.1:{at}/api/v1" for at in (system.ports["api"], port))  # pyright: ignore[reportReturnType]
    system.kill("api-2")


class Asking:
    """Somebody who starts runs by either API, patiently, and notes every answer that is no success."""

    def __init__(self, system: System, apis: tuple[str, str]) -> None:
        self.system = system
        self.apis = apis
        self.refused: list[httpx.Response] = []

    async def start(self, key: str) -> str:
        """Ask both APIs for one run until each has taken it; its id."""
        async with asyncio.timeout(240):
            first, second = await asyncio.gather(*(self._start(api, key) for api in self.apis))
        assert first == second, "asked for twice, and started once"
        return first

    async def _start(self, api: str, key: str) -> str:
        body: Json = {"automation": "mark-by-rules", "inputs": {}}
        async with self.system.client("olga") as client:
            while True:
                try:
                    response = await client.post(f"{api}/runs", json=body, headers={"Idempotency-Key": key})
                except httpx.TransportError:  # the second API is still starting
                    await asyncio.sleep(0.2)
                    continue
                if response.status_code == 202:
                    return str(response.json()["id"])
                self.refused.append(response)
                await asyncio.sleep(0.2)


async def test_a_database_killed_under_everybody(on_postgres: tuple[System, Killable], apis: tuple[str, str]) -> None:
    system, server = on_postgres
    asking = Asking(system, apis)
    waiting = await asking.start("before")
    question = await system.pending(waiting)
    asked = [asyncio.create_task(asking.start(f"under-way-{n}")) for n in range(ASKED)]
    await asked[0]

    await asyncio.to_thread(server.kill)
    asked.append(asyncio.create_task(asking.start("while-gone")))
    async with system.client("adam") as client:
        for api in apis:
            assert (await client.get(f"{api}/health")).status_code == 200
            ready = await client.get(f"{api}/ready")
            assert (ready.status_code, ready.json()["parts"]["store"]["ok"]) == (503, False)
            for told in [await client.get(f"{api}{path}") for path in PATHS]:
                assert (told.status_code, told.json()["kind"]) == (503, "store_unavailable"), told.text
                assert "GATEHOUSE_DATABASE_URL" in told.json()["remedy"]
                assert told.headers["retry-after"]
    await asyncio.to_thread(server.start)

    run_ids = [waiting, *await asyncio.gather(*asked)]
    assert len(set(run_ids)) == ASKED + 2
    kinds = {(response.status_code, response.json()["kind"]) for response in asking.refused}
    # Two that ask for the same run at the same moment: one is told that the other is at it.
    assert (503, "store_unavailable") in kinds
    assert kinds <= {(503, "store_unavailable"), (409, "in_progress")}, kinds

    assert (await system.answer(question, "approve")).status_code == 200
    for run_id in run_ids[1:]:
        assert (await system.answer(await system.pending(run_id), "approve")).status_code == 200
    for run_id in run_ids:
        run = await system.finished(run_id)
        assert run["result"]["output"] == {"second": "succeeded", "flag": "succeeded"}, (run, system.tails())
        await promise.check(system, run_id)
