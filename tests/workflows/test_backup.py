"""The drill: a system is backed up at work, lost, and restored elsewhere; its log verifies and its runs go on."""

import shutil
from pathlib import Path

from tests.fixtures.provider import Provider, answer, calls
from tests.fixtures.temporal import TemporalServer
from tests.workflows.conftest import settings_for
from tests.workflows.house import House, Started, automation, opened, workers
from worker import backup
from worker.artifacts import open_blobs
from worker.sandbox.container import Sandbox
from worker.settings import Settings
from worker.store.checkpoints import Publisher
from workflows.automation import AutomationWorkflow
from workflows.contracts import Phase

PASSPHRASE = "a passphrase for drills"


async def busy(house: House, tag: str) -> tuple[Started, Started]:
    """A run that is over, and one that waits for an answer."""
    house.provider.script(f"over-{tag}", calls(("note", {"text": "a"})), answer(said="done"))
    over = await house.start(automation(f"practice:over-{tag}"))
    assert (await over.result()).phase is Phase.SUCCEEDED
    house.provider.script(f"waits-{tag}", calls(("erase", {"text": "b"})), answer(said="later"))
    waits = await house.start(automation(f"practice:waits-{tag}"))
    await waits.question()
    return over, waits


async def test_a_lost_system_comes_back_and_goes_on(provider: Provider, sandbox: Sandbox, tmp_path: Path) -> None:
    lost, found, out = tmp_path / "lost", tmp_path / "found", tmp_path / "backup"
    lost.mkdir()
    server = TemporalServer(db=lost / "temporal.db")
    await server.start()
    settings = settings_for(server, provider, lost)
    async with opened(provider, sandbox, open_blobs(settings), settings) as house, workers(house):
        over, waits = await busy(house, "drill")
        Publisher(house.db, settings.keys, settings.anchor).publish()
        artifact = await house.blobs.put(b"an artifact")
        manifest = await backup.create(settings, out, PASSPHRASE)  # everything is still at work
    server.stop()
    shutil.rmtree(lost)

    await backup.restore(Settings(data=found), out, PASSPHRASE)
    server = TemporalServer(db=found / "temporal.db")
    await server.start()
    settings = settings_for(server, provider, found)
    async with opened(provider, sandbox, open_blobs(settings), settings) as house, workers(house):
        verified = await house.audit.verify()
        assert (verified.ok, verified.count >= manifest.audit_count > 0) == (True, True)
        assert 0 < manifest.anchored <= manifest.audit_count
        assert await house.blobs.read(artifact.sha256) == b"an artifact"
        assert (await again(house, over).result()).phase is Phase.SUCCEEDED
        run = again(house, waits)
        await house.say(run, await run.question(), "approve")
        assert (await run.result()).output == {"said": "later"}
        assert set((await house.outcomes(run)).values()) == {"succeeded"}
        assert (await house.audit.verify()).ok
    server.stop()


def again(house: House, run: Started) -> Started:
    """The same run, asked of the restored system."""
    return Started(run.id, house.client.get_workflow_handle_for(AutomationWorkflow.run, run.id), house.approvals)
