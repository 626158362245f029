"""A program that looks for secrets that are not its own: of the worker, of other runs, of earlier calls.

It gives back all that it could read; whether a secret is in there is decided here.
"""

import asyncio
import base64
import hashlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from temporalio.exceptions import ApplicationError

from tests.fixtures.egress import Sites
from tests.worker.sandbox.test_activities import Desk
from tools.contract import Limits, Outcome
from worker.activities.means import Means
from worker.activities.sandbox import SandboxActivities
from worker.sandbox.container import Ending, Job, Ran, Sandbox
from worker.sandbox.egress import Egress
from worker.sandbox.engine import LABEL_OWNER, LABEL_RUN, Engine, installation_id
from worker.sandbox.pool import PoolSettings
from worker.sandbox.scrubbing import Scrubber
from worker.sandbox.secrets import EnvironmentSecrets, Secrets
from worker.sandbox.workspace import Workspaces
from worker.store.audit import AuditLog
from worker.store.blobs import Blobs
from worker.store.database import Database
from worker.store.ledger import Ledger

OWN = b"the-secret-of-this-very-call"
CANARY = b"canary-of-somebody-else-4711"
LIMITS = Limits(timeout_s=120, memory_mb=128, output_bytes=8 << 20)

# Prints, base64, everything it can read outside of the image's own files.
LOOT = """
import base64, os, sys
def give(data): sys.stdout.write(base64.b64encode(data).decode() + "\\n")
give(repr(dict(os.environ)).encode())
for top in ("/work", "/workspace", "/run", "/tmp", "/var/tmp", "/dev/shm", "/etc", "/home", "/root", "/mnt", "/opt",
            "/proc/1", "/proc/self", f"/proc/{os.getppid()}"):
    for folder, folders, files in os.walk(top):
        folders[:] = [name for name in folders if name not in ("task", "net", "fd", "map_files", "fdinfo")]
        for name in files:
            try:
                with open(os.path.join(folder, name), "rb") as file: give(file.read(50_000))
            except (OSError, ValueError): pass
for pid in filter(str.isdigit, os.listdir("/proc")):
    for name in ("environ", "cmdline", "maps", "stack", "mountinfo"):
        try:
            with open(f"/proc/{pid}/{name}", "rb") as file: give(file.read(50_000))
        except OSError: pass
    try:
        for fd in os.listdir(f"/proc/{pid}/fd"):
            with open(f"/proc/{pid}/fd/{fd}", "rb") as file: give(os.pread(file.fileno(), 50_000, 0))
    except OSError: pass
try:
    regions = [line.split() for line in open("/proc/1/maps")]
    with open("/proc/1/mem", "rb") as memory:
        for region in regions:
            start, end = (int(x, 16) for x in region[0].split("-"))
            memory.seek(start); give(memory.read(min(end - start, 200_000)))
except OSError: pass
"""


def loot(ran: Ran) -> bytes:
    assert ran.ending is Ending.SUCCEEDED, ran.stderr
    return b"".join(base64.b64decode(line) for line in ran.stdout.splitlines())


@pytest.fixture
def backend() -> str:
    return "sqlite"


Run = Callable[..., Awaitable[Ran]]


@pytest.fixture(params=["cold", "pooled"])
async def box(request: pytest.FixtureRequest, engine: Engine, sandbox_data: Path) -> AsyncIterator[Run]:
    pooled = request.param == "pooled"
    settings = PoolSettings(size=1) if pooled else None
    opened = Sandbox(engine, data=sandbox_data, owner=installation_id(sandbox_data), pool=settings)

    async def run(source: str, secrets: dict[str, bytes] | None = None, run_id: str = "run_abuse") -> Ran:
        job = Job(run_id, "k", source.encode(), b"{}", LIMITS, secrets=secrets or {})
        if pooled:
            opened.pool.want(await opened.kind(job))
            assert await opened.pool.full(60)
        ran = await opened.run(job)
        assert ran.pooled is pooled
        return ran

    yield run
    await opened.close()


async def test_control_its_own_secret_is_found(box: Run) -> None:
    """The search is good enough to find what is there."""
    assert OWN in loot(await box(LOOT, {"mine": OWN}))


async def test_the_workers_environment_and_files_stay_outside(
    box: Run, monkeypatch: pytest.MonkeyPatch, sandbox_data: Path
) -> None:
    monkeypatch.setenv("GATEHOUSE_SECRET_OTHER", CANARY.decode())
    monkeypatch.setenv("GATEHOUSE_VAULT_TOKEN", CANARY.decode())
    (sandbox_data / "canary").write_bytes(CANARY)
    found = loot(await box(LOOT))
    assert CANARY not in found
    assert b"GATEHOUSE" not in found
    assert installation_id(sandbox_data).encode() not in found


async def test_secrets_of_earlier_calls_and_other_runs_are_gone(box: Run) -> None:
    keep = """
import os
secret = open("/work/secrets/theirs").read()
for place in ("/tmp/x", "/work/x", "/dev/shm/x", "/work/secrets/x"):
    try: open(place, "w").write(secret)
    except OSError: pass
"""
    for run_id in ("run_abuse", "run_other"):
        assert (await box(keep, {"theirs": CANARY}, run_id)).ending is Ending.SUCCEEDED
        assert CANARY not in loot(await box(LOOT))


SLEEP = b"import time; time.sleep(100)"


@asynccontextmanager
async def holding(sandbox: Sandbox, job: Job) -> AsyncGenerator[None]:
    """The block runs while the job's program does, and ends it."""
    stands = asyncio.Event()

    async def commit(_: str) -> None:
        stands.set()

    call = asyncio.create_task(sandbox.run(job, commit=commit))
    await stands.wait()
    await asyncio.sleep(1)  # only now are the secrets handed over
    yield
    assert not call.done()
    call.cancel()
    with suppress(asyncio.CancelledError):
        await call


async def test_secrets_of_a_call_that_runs_now_stay_its_own(sandbox: Sandbox) -> None:
    async with holding(sandbox, Job("run_other", "k1", SLEEP, b"{}", LIMITS, secrets={"theirs": CANARY})):
        assert CANARY not in loot(await sandbox.run(Job("run_abuse", "k2", LOOT.encode(), b"{}", LIMITS)))


async def test_nothing_of_a_secret_is_in_what_the_engine_knows(sandbox: Sandbox) -> None:
    """Inspect, labels, command line, environment: what everybody with the engine can read."""
    engine = sandbox.engine
    async with holding(sandbox, Job("run_inspected", "k", SLEEP, b"{}", LIMITS, secrets={"mine": OWN})):
        found = await engine.find_containers({LABEL_OWNER: sandbox.owner, LABEL_RUN: "run_inspected"})
        inspected = [str(await engine.call(lambda api, f=f: api.inspect_container(str(f["Id"])))) for f in found]
    assert inspected
    assert not [text for text in inspected if OWN.decode() in text or base64.b64encode(OWN).decode() in text]


# ---------------------------------------------------------------- on its way out


@pytest.fixture
async def desk(
    sandbox: Sandbox, workspaces: Workspaces, blobs: Blobs, db: Database, tmp_path: Path, sites: Sites
) -> Desk:
    audit = AuditLog(db)
    secrets = Secrets([EnvironmentSecrets({"GATEHOUSE_SECRET_MINE": OWN.decode()})], Scrubber())
    means = Means(Egress(tmp_path / "egress"), secrets, audit)
    activities = SandboxActivities(sandbox, Ledger(db), blobs, workspaces, audit, means=means)
    return Desk(activities, blobs, db, f"run_{hashlib.sha256(str(tmp_path).encode()).hexdigest()[:8]}")


WRITTEN = (
    "s", "json.dumps(s)", "json.dumps(json.dumps({'k': s}))", "base64.b64encode(s.encode()).decode()",
    "s.encode().hex()", "base64.urlsafe_b64encode(b'user:' + s.encode()).decode()", "repr([s])",
    "urllib.parse.quote(s, safe='')", "'x' * 20_000 + s",
)  # fmt: skip


@pytest.mark.parametrize("written", WRITTEN)
@pytest.mark.parametrize("how", ["stdout", "stderr"])
async def test_own_secret_is_scrubbed_before_anything_is_kept(desk: Desk, written: str, how: str) -> None:
    source = (
        "import base64, json, sys, urllib.parse\ns = open('/work/secrets/mine').read()\n"
        + (f"print(json.dumps({written}))" if how == "stdout" else f"sys.exit({written})")
    )  # fmt: skip
    order = await desk.order(source)
    order = order.model_copy(update={"tool": order.tool.model_copy(update={"secrets": ("mine",)})})
    result = await desk.execute(order)
    assert result.outcome is (Outcome.SUCCEEDED if how == "stdout" else Outcome.FAILED)
    assert "[redacted]" in result.content
    kept = result.model_dump_json() + str(await desk.outcomes())
    if result.full_sha256:
        kept += (await desk.blobs.read(result.full_sha256)).decode()
    for form in (OWN.decode(), base64.b64encode(OWN).decode()[:-4], OWN.hex()):
        assert form not in kept


async def test_a_secret_the_manifest_does_not_name_is_not_given(desk: Desk) -> None:
    order = await desk.order("import os; print(int(os.path.exists('/work/secrets/mine')))")
    assert (await desk.execute(order)).content == "0"


async def test_a_tool_with_secrets_and_no_source_does_not_run(desk: Desk) -> None:
    order = await desk.order("print(1)")
    order = order.model_copy(update={"tool": order.tool.model_copy(update={"secrets": ("theirs",)})})
    with pytest.raises(ApplicationError, match="not set on the sandbox worker"):
        await desk.execute(order)
