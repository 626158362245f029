"""Stop everything: with the API and the keeper killed in the middle and Temporal away nothing new begins, what runs is
killed, every stop is confirmed in the end, and after the release everything goes on where it stood."""

import asyncio
from typing import Any

from tests.e2e import promise
from tests.e2e.system import FINAL, System, docker
from tests.e2e.test_faults import triage
from worker.store.database import Database
from worker.store.stops import Stops

Json = dict[str, Any]

SLOW_S = 200.0
"""A ceiling for what takes seconds on an idle machine."""


async def switch(system: System, switch_id: str, timeout_s: float = SLOW_S, **wanted: Any) -> Json:
    """The switch, once it is as wanted."""
    async with asyncio.timeout(timeout_s):
        while True:
            found: Json = (await system.request("vera", "GET", f"/switches/{switch_id}")).json()
            if all(found[name] == value for name, value in wanted.items()):
                return found
            await asyncio.sleep(0.2)


async def claimed(system: System, run_id: str, timeout_s: float = SLOW_S) -> None:
    """Wait until a program of the run has begun."""
    store = Database(system.settings.sql_url)
    async with asyncio.timeout(timeout_s):
        while not (await Stops(store).claimed_boxes([run_id]))[run_id]:  # noqa: ASYNC110  (other processes' doing)
            await asyncio.sleep(0.1)
    await store.close()


async def boxes_gone(run_id: str, timeout_s: float = SLOW_S) -> None:
    async with asyncio.timeout(timeout_s):
        label = f"label=gatehouse.run={run_id}"
        while docker("ps", "-q", "--filter", label, "--filter", "label=gatehouse.kind=call"):  # noqa: ASYNC110
            await asyncio.sleep(0.1)


async def refused_to_the_end(system: System, run_id: str, timeout_s: float = SLOW_S) -> Json:
    """The run once it has ended, with a no to whatever it asks: safe mode may already have said it."""
    async with asyncio.timeout(timeout_s):
        while (run := await system.run(run_id))["phase"] not in FINAL:
            asked = await system.request("ruth", "GET", "/approvals", params={"run": run_id, "state": "pending"})
            for question in asked.json()["items"]:
                await system.answer(question, "deny")
            await asyncio.sleep(0.2)
    return run


async def release(system: System, switch_id: str, state: str) -> None:
    body = {"state": state, "reason": "the test is over"}
    done = await system.request("adam", "POST", f"/switches/{switch_id}/release", json=body)
    assert done.status_code == 200, done.text


async def test_everything_is_stopped_whoever_is_killed_meanwhile(system: System) -> None:
    asking = await triage(system, "switch-asking")
    question = await system.pending(asking)
    boxed = await system.start_run("mark-by-rules", "switch-boxed", inputs={"seconds": 45})
    await system.until_record(boxed, "call.outcome")
    await claimed(system, boxed)
    set_ = await system.request("adam", "POST", "/switches", json={"scope": "global", "reason": "a test stops all"})
    system.kill("api")
    system.kill("keeper")
    assert set_.status_code == 201, set_.text
    switch_id = set_.json()["id"]
    await boxes_gone(boxed)  # neither API nor keeper is needed for that
    system.start("api")
    await system.ready(SLOW_S)
    refused = await system.request("olga", "POST", "/runs", json={"automation": "mark-by-rules", "inputs": {}})
    assert (refused.status_code, refused.json()["kind"]) == (409, "stopped")
    assert (await system.answer(question, "approve")).json()["kind"] == "frozen"
    assert not (await switch(system, switch_id))["confirmed"], "nobody has asked the runs yet"
    system.start("keeper")
    found = await switch(system, switch_id, confirmed=True)
    assert found["counts"]["requested"] == found["counts"]["confirmed"] >= 2
    assert {asking, boxed} <= {r["run_id"] for r in found["runs"]}
    assert {(await system.run(run))["phase"] for run in (asking, boxed)} == {"frozen"}

    system.kill("temporal")
    again = await system.request("olga", "POST", "/runs", json={"automation": "mark-by-rules", "inputs": {}})
    assert (again.status_code, again.json()["kind"]) == (409, "stopped"), "refusing needs no Temporal"
    system.start("temporal")
    await system.ready(SLOW_S)

    await release(system, switch_id, "stop")
    await release(system, switch_id, "safe_mode")
    question = await system.pending(asking)
    assert (await system.answer(question, "approve")).status_code == 200
    assert (await system.finished(asking))["phase"] == "succeeded"
    await promise.check(system, asking)
    done = await refused_to_the_end(system, boxed)
    assert done["result"]["output"] == {"second": "unknown", "flag": "denied"}
    await promise.check(system, boxed)
