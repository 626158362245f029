"""Promises: `gatehouse runs sweep` says what store and Temporal do not agree about, changes nothing when asked only to
look, starts what never started, and its exit status says whether something is left to do."""

import asyncio
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

from tests.api.running import HOME, Api, running
from tests.api.test_cli import Done, command
from tests.fixtures.temporal import TemporalServer
from workflows.contracts import Phase


async def test_a_run_left_behind_by_a_crash_is_started(tmp_path: Path, temporal_server: TemporalServer) -> None:
    async with running(tmp_path, temporal_server.address) as api:
        await _left_behind(api)


async def _left_behind(api: Api) -> None:
    operator, before = await api.client("operator"), datetime.now(UTC) - timedelta(hours=1)
    spec = api.services.catalog.automations["tidy"]
    left = await api.put_run(requester="operator", digest=spec.digest, created_at=before, updated_at=before)
    lost = await api.put_run(automation="gone", created_at=before, updated_at=before)

    async def sweep(*options: str) -> Done:
        settings = api.settings
        env = {"GATEHOUSE_DATA": str(settings.data), "GATEHOUSE_HOME": str(HOME)}
        env |= {"GATEHOUSE_TEMPORAL_ADDRESS": settings.temporal_address}
        env |= {"GATEHOUSE_TEMPORAL_NAMESPACE": settings.temporal_namespace}
        return await asyncio.to_thread(command, "runs", "sweep", *options, **env)

    looked = await sweep("--check")
    assert looked.code == 1
    assert "to be started" in looked.out
    assert "run it again without --check" in looked.err
    assert not await api.services.gateway.exists(left.id)
    done = await sweep("--json")
    found = {each["run_id"]: each for each in json.loads(done.out)}
    assert (found[left.id]["what"], found[left.id]["left"]) == ("started", False)
    assert (found[lost.id]["what"], found[lost.id]["left"]) == ("closed", False)
    assert await api.services.gateway.exists(left.id)
    failed = (await operator.get(f"/runs/{lost.id}")).json()
    assert (failed["phase"], "no automation gone" in failed["result"]["failure"]) == (Phase.FAILED, True)
    assert left.id not in (await sweep("--check")).out, "a run that waits for a worker is well"
