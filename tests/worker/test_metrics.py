"""What Prometheus reads of a sandbox worker: the pool's and the boxes' numbers, true, beside Temporal's own."""

import re
from pathlib import Path

import httpx
import pytest

from tests.fixtures.sandbox import leftovers
from tests.fixtures.temporal import free_port
from worker import metrics
from worker.metrics import Metrics
from worker.sandbox.container import PROGRAM_COMMAND, Job, Sandbox
from worker.sandbox.engine import Engine, installation_id
from worker.sandbox.pool import PoolSettings
from worker.settings import Settings


async def read(address: str) -> dict[str, float]:
    async with httpx.AsyncClient(timeout=60) as client:
        text = (await client.get(f"http://{address}/metrics")).text
    lines = re.findall(r"^(gatehouse_\w+)(\{[^}]*\})? ([0-9.e+-]+)$", text, re.MULTILINE)
    return {
        name + ",".join(sorted(re.findall(r'(?:ending|pooled)="\w+"', labels))): float(n) for name, labels, n in lines
    }


async def test_the_pools_numbers(engine: Engine, sandbox_data: Path) -> None:
    address = f"127.0.0.1:{free_port()}"
    runtime = metrics.runtime(address)
    owner = installation_id(sandbox_data)
    sandbox = Sandbox(
        engine, data=sandbox_data, owner=owner, pool=PoolSettings(size=2), meter=Metrics(runtime.metric_meter)
    )
    job = Job("run_metrics", "k", b"print(1)", b"", command=PROGRAM_COMMAND)
    try:
        await sandbox.run(job)
        assert await sandbox.pool.full(60)
        found = await read(address)
        assert (found["gatehouse_pool_dry"], found["gatehouse_pool_boxes"]) == (1, 2)
        assert found["gatehouse_pool_refill_seconds_count"] == 2
        assert 0 < found["gatehouse_pool_refill_seconds_sum"] < 120
        await sandbox.run(job)
        found = await read(address)
        assert found["gatehouse_pool_hits"] == 1
        assert found['gatehouse_box_runsending="succeeded",pooled="true"'] == 1
        assert found['gatehouse_box_runsending="succeeded",pooled="false"'] == 1
        assert found["gatehouse_box_seconds_count"] == 2
    finally:
        await sandbox.close()
    assert (await read(address))["gatehouse_pool_boxes"] == 0
    assert await leftovers(sandbox, "run_metrics") == []


def test_an_address_is_host_and_port() -> None:
    assert Settings(metrics_address="127.0.0.1:9464").metrics_address
    for bad in ("9464", "http://x:1/", "127.0.0.1:"):
        with pytest.raises(ValueError, match="metrics_address"):
            Settings(metrics_address=bad)
