"""The worker processes: what each imports, how it waits, how it stops."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fixtures.temporal import TemporalServer, free_port

ROOT = Path(__file__).resolve().parents[2]

# Which module must not be in a worker of this queue: it would hold more than its work needs.
FORBIDDEN = {"runs": ("docker", "worker.models"), "models": ("docker", "casbin", "worker.activities.records")}

LOADED = """
import asyncio, sys
from worker import main, temporal
from worker.settings import Settings

async def compose():
    settings = Settings()
    async with {"runs": main._runs, "models": main._models}[sys.argv[1]](settings, await temporal.connect(settings)):
        pass

asyncio.run(compose())
print("\\n".join(sys.modules), flush=True)
__import__("os")._exit(0)
"""


def environment(data: Path, address: str) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("GATEHOUSE_", "OPENAI_", "ANTHROPIC_"))}
    ours = {"GATEHOUSE_DATA": str(data), "GATEHOUSE_TEMPORAL_ADDRESS": address, "PYTHONPATH": str(ROOT)}
    return kept | ours


@pytest.mark.parametrize("queue", FORBIDDEN)
def test_a_worker_imports_only_what_its_queue_needs(
    tmp_path: Path, temporal_server: TemporalServer, queue: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LOADED, queue], env=environment(tmp_path, temporal_server.address), cwd=ROOT,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    loaded = set(done.stdout.split())
    assert loaded.isdisjoint(FORBIDDEN[queue])


async def test_a_worker_waits_for_temporal_and_stops_cleanly(tmp_path: Path) -> None:
    """No server at start: it waits. The server comes: it polls. SIGTERM: status 0."""
    port = free_port()
    worker = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "worker.main", "--queue", "models", cwd=ROOT,
        env=environment(tmp_path, f"127.0.0.1:{port}"), stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert worker.stderr is not None
    seen: list[str] = []

    async def until(word: str) -> None:
        async with asyncio.timeout(240):
            while not any(word in line for line in seen):
                assert worker.stderr is not None
                seen.append((await worker.stderr.readline()).decode())

    await until("waiting for Temporal")
    server = TemporalServer(port)
    await server.start()
    await until("polling")
    worker.send_signal(signal.SIGTERM)
    assert await asyncio.wait_for(worker.wait(), 30) == 0, seen
    server.stop()


async def test_a_worker_that_waits_can_be_stopped(tmp_path: Path) -> None:
    worker = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "worker.main", "--queue", "runs", cwd=ROOT,
        env=environment(tmp_path, f"127.0.0.1:{free_port()}"), stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert worker.stderr is not None
    async with asyncio.timeout(240):
        while b"waiting for Temporal" not in await worker.stderr.readline():
            pass
    worker.send_signal(signal.SIGTERM)
    assert await asyncio.wait_for(worker.wait(), 30) == 0
