"""A whole run whose tool reaches a service outside: API, workflow, a reviewer, sandbox worker, proxy, TLS server.

The worker is killed between the effect and its result; the effect is counted at the server.
"""

import json
from collections.abc import AsyncIterator

import httpx
import pytest

from tests.e2e import promise
from tests.e2e.system import System
from tests.e2e.test_faults import approve_when_asked
from tests.fixtures.egress import HOST, Sites
from tests.fixtures.temporal import free_port
from tests.workflows.house import until

TOKEN = "token/of+the=service"


@pytest.fixture
async def outside(system: System, sites: Sites) -> AsyncIterator[dict[str, str]]:
    """The sandbox worker, with test names that lead to the test's servers."""
    given = {
        "SITES": json.dumps({f"{HOST}:443": sites.tls.port}),
        "SSL_CERT_FILE": str(sites.authority),
        "GATEHOUSE_SECRET_SERVICE_TOKEN": TOKEN,
        "GATEHOUSE_METRICS_ADDRESS": f"127.0.0.1:{free_port()}",
    }
    system.kill("sandbox")
    system.start("sandbox", module="tests.e2e.sandbox_worker", **given)
    yield given
    system.kill("sandbox")
    system.start("sandbox")


async def test_a_charge_happens_once_though_its_worker_is_killed(
    system: System, sites: Sites, outside: dict[str, str]
) -> None:
    run_id = await system.start_run("charge-by-rules", "charge-once", inputs={"seconds": 40})
    await approve_when_asked(system, run_id)

    async def charged() -> list[bytes]:
        return [head for head in sites.tls.heads if head.startswith(b"POST /charges/acme ")]

    (charge,) = await until(charged, 120)
    assert f"\r\nAuthorization: Bearer {TOKEN}\r\n".encode() in charge
    assert b"\r\nIdempotency-Key: " in charge.replace(b"Idempotency-key", b"Idempotency-Key")
    system.kill("sandbox")
    system.start("sandbox", module="tests.e2e.sandbox_worker", **outside)
    run = await system.finished(run_id, 180)
    assert run["result"]["output"] == {"outcome": "succeeded"}, (run, system.tails())
    assert len(await charged()) == 1
    look = next(head for head in sites.tls.heads if head.startswith(b"GET /charges/acme "))
    assert TOKEN.encode() in look

    records = await promise.check(system, run_id)
    (found,) = [r["body"] for r in records if r["type"] == "call.reconciled"]
    assert (found["answer"], found["attempt"]) == ("happened", 2)
    (outcome,) = [r["body"] for r in records if r["type"] == "call.outcome"]
    assert outcome["reconciled"] is True
    assert '"found": true' in outcome["content_head"]
    (refused,) = [r["body"] for r in records if r["type"] == "egress.refused"]
    assert (refused["host"], refused["kind"]) == ("other.test.example", "not_allowed")
    assert TOKEN not in json.dumps(records)
    assert TOKEN not in (system.data / "logs" / "sandbox.log").read_text(errors="replace")

    host, _, port = outside["GATEHOUSE_METRICS_ADDRESS"].rpartition(":")
    async with httpx.AsyncClient(timeout=60) as client:
        told = (await client.get(f"http://{host}:{int(port) + 2}/metrics")).text
    assert "gatehouse_box_runs{" in told
    assert "temporal_worker_task_slots_available" in told
