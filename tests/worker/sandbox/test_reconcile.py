"""A call that may not be repeated, whose worker is gone: its reconcile program says what happened, or people are asked.

Effects are counted where they happen: at a server on loopback, and in the workspace.
"""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from temporalio.exceptions import ApplicationError

from tests.fixtures.egress import HOST, Sites
from tests.worker.sandbox.test_egress import Office
from tools.contract import EgressCredential, JsonObject, Outcome, Repeat, ToolResult
from worker.sandbox.container import Sandbox
from worker.sandbox.workspace import Workspaces
from worker.store.audit import AuditEvent
from worker.store.blobs import Blobs
from worker.store.database import Database
from worker.store.events import reconciled_id
from worker.store.ledger import ClaimState, Ledger
from workflows.contracts import ToolRun, WorkspaceOpened

ROOT = Path(__file__).resolve().parents[3]
PAY = f"""
import json, sys, time, urllib.request
call = json.load(sys.stdin)
urllib.request.urlopen("http://{HOST}/pay/" + call["call_id"], data=call["key"].encode(), timeout=10).read()
time.sleep(call["arguments"].get("then_s", 0))
print(json.dumps({{"paid": call["call_id"]}}))
"""
LOOK = f"""
import json, sys, urllib.request
call = json.load(sys.stdin)
said = urllib.request.urlopen("http://{HOST}/paid/" + call["call_id"], timeout=10).read().decode()
print(json.dumps({{"happened": True, "output": {{"paid": call["call_id"], "grüße": said}}}} if said == "hello"
    else {{"happened": False}}))
"""


@pytest.fixture
def backend() -> str:
    return "sqlite"


@pytest.fixture
async def office(
    sandbox: Sandbox, workspaces: Workspaces, blobs: Blobs, db: Database, tmp_path: Path, sites: Sites
) -> AsyncIterator[Office]:
    made = Office(sandbox, blobs, db, workspaces, tmp_path / "egress", sites)
    yield made
    await sandbox.close()
    await workspaces.remove(made.run.run_id)


async def payment(office: Office, reconcile: str, *, source: str = PAY, then_s: float = 0, **spec: object) -> ToolRun:
    order = await office.order(source, repeat=Repeat.AT_MOST_ONCE, arguments={"then_s": then_s})
    looks = (await office.blobs.put(reconcile.encode())).sha256
    more = {"egress": (f"{HOST}:80",), "reconcile_sha256": looks, **spec}
    return order.model_copy(update={"tool": order.tool.model_copy(update=more)})


def payments(sites: Sites) -> int:
    return sum(head.startswith(b"POST /pay/") for head in sites.plain.heads)


async def lost(office: Office, order: ToolRun) -> None:
    """As a worker leaves it that died after its claim."""
    await office.ledger.claim(order.key, generation=order.generation, tool="probe", attempt=1, owner="gone box-1")


async def found(office: Office) -> list[JsonObject]:
    records = await office.audit.page(tenant="t", run_id=office.run.run_id, type="call.reconciled")
    return [record.body for record in records]


async def unknown(office: Office, order: ToolRun, attempt: int = 2) -> None:
    with pytest.raises(ApplicationError) as caught:
        await office.execute(order, attempt=attempt)
    assert (caught.value.type, caught.value.non_retryable) == ("outcome_unknown", True)
    assert await office.outcomes() == []


WORKER = """
import asyncio, dataclasses, sys
from pathlib import Path
from temporalio.testing import ActivityEnvironment
from tests.fixtures.egress import HOST, leads_to
from worker.activities.means import Means
from worker.activities.sandbox import SandboxActivities
from worker.sandbox.container import Sandbox
from worker.sandbox.egress import Egress
from worker.sandbox.engine import Engine, installation_id
from worker.sandbox.scrubbing import Scrubber
from worker.sandbox.secrets import Secrets
from worker.sandbox.workspace import Workspaces
from worker.store.audit import AuditLog
from worker.store.audit import AuditEvent
from worker.store.blobs import Blobs
from worker.store.database import Database
from worker.store.keyring import open_given
from worker.store.ledger import Ledger
from workflows.contracts import ToolRun

async def main():
    data, folder, url, port = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])
    order = ToolRun.model_validate_json(sys.stdin.read())
    db, blobs = Database(url, open_given(Path(sys.argv[5]))), Blobs(data / "blobs")
    async with Engine() as engine:
        sandbox = Sandbox(engine, data=data, owner=installation_id(data))
        audit = AuditLog(db)
        egress = Egress(folder, resolve=leads_to({(HOST, 80): port}))
        means = Means(egress, Secrets([], Scrubber()), audit)
        activities = SandboxActivities(sandbox, Ledger(db), blobs, Workspaces(sandbox, blobs), audit, means=means)
        await ActivityEnvironment().run(activities.run_tool, order)

asyncio.run(main())
"""


@pytest.mark.parametrize("known", [True, False], ids=["the service knows it", "the service knows nothing"])
async def test_a_worker_killed_after_the_effect(
    office: Office, sites: Sites, sandbox_data: Path, store_url: str, key_file: Path, known: bool
) -> None:
    order = await payment(office, LOOK, then_s=60)
    worker = await asyncio.create_subprocess_exec(
        sys.executable, "-c", WORKER, str(sandbox_data), str(office.folder), store_url, str(sites.plain.port),
        str(key_file),
        cwd=ROOT, stdin=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert worker.stdin is not None
    worker.stdin.write(order.model_dump_json().encode())
    worker.stdin.close()
    while not payments(sites):
        assert worker.returncode is None
        await asyncio.sleep(0.02)
    worker.kill()
    await worker.wait()
    held = await office.ledger.get(order.key)
    assert held is not None
    assert held.state is ClaimState.HELD

    if not known:
        sites.plain.answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno"
        # The second time it ends at once.
        order = await payment(office, LOOK, source=PAY.replace('get("then_s", 0)', 'get("nothing", 0)'), then_s=60)
    result = await office.execute(order, attempt=2)
    assert result.outcome is Outcome.SUCCEEDED, result
    (outcome,) = await office.outcomes()
    (record,) = await found(office)
    if known:
        assert payments(sites) == 1
        assert json.loads(result.content) == {"paid": "c1", "grüße": "hello"}
        assert (record["answer"], outcome["reconciled"]) == ("happened", True)
    else:
        assert payments(sites) == 2
        assert json.loads(result.content) == {"paid": "c1"}
        assert record["answer"] == "not_happened"
        assert "reconciled" not in outcome
    assert await office.execute(order, attempt=3) == result
    assert await office.audit.get(reconciled_id(office.run.run_id, "c1", 1, 2)) is not None


@pytest.mark.parametrize(
    ("reconcile", "why"),
    [
        ("print('perhaps')", "not one JSON value"),
        ("print('true')", "neither"),
        ('print(\'{"happened": "yes"}\')', "neither"),
        ('print(\'{"happened": 1, "output": 1}\')', "neither"),
        ("print('{\"happened\": true}')", "neither"),
        ('print(\'{"happened": false, "output": 1}\')', "neither"),
        ('print(\'{"happened": true, "happened": false}\')', "given twice"),
        ('print(\'{"happened": true, "output": 1}\'); raise SystemExit(3)', "exit_code"),
        ('print(\'{"happened": true, "output": NaN}\')', "NaN is not JSON"),
        ("import sys; sys.exit('ghp_' + 'a1B2' * 9)", "exit_code"),
    ],
)
async def test_anything_but_a_clear_answer_is_left_to_people(office: Office, reconcile: str, why: str) -> None:
    order = await payment(office, reconcile)
    await lost(office, order)
    await unknown(office, order)
    (record,) = await found(office)
    assert record["answer"] == "no_answer"
    assert why in str(record["problem"])
    assert "a1B2" not in str(record)
    held = await office.ledger.get(order.key)
    assert held is not None
    assert held.owner == "gone box-1"


async def test_a_program_that_cannot_be_run_or_does_not_end(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.activities.sandbox.RECONCILE_S", 0.5)
    slow = await payment(office, "import time; time.sleep(60)")
    await lost(office, slow)
    await unknown(office, slow)
    gone = slow.model_copy(update={"tool": slow.tool.model_copy(update={"reconcile_sha256": "0" * 64})})
    await unknown(office, gone, attempt=3)
    closed = slow.model_copy(update={"generation": 1, "tool": slow.tool.model_copy(
        update={"egress_credentials": (EgressCredential(host=f"{HOST}:80", secret="nonesuch"),)}
    )})  # fmt: skip
    await unknown(office, closed, attempt=4)
    assert [body["answer"] for body in await found(office)] == ["no_answer"] * 3


async def test_it_cannot_change_the_workspace(office: Office) -> None:
    await office.activities.open_workspace(WorkspaceOpened(run=office.run, files=()))
    source = "open('/workspace/out/mark', 'a').write('x'); print(1)"
    reconcile = "import json; open('/workspace/out/mark', 'a'); print(json.dumps({'happened': False}))"
    order = await payment(office, reconcile, source=source, workspace="write")
    await lost(office, order)
    await unknown(office, order)
    assert "Read-only file system" in str((await found(office))[0]["problem"])


async def test_a_humans_order_to_repeat_stands_unless_it_is_known_to_have_happened(
    office: Office, sites: Sites
) -> None:
    order = await payment(office, "print('who knows')")
    await lost(office, order)
    again = await office.again(order)
    assert json.loads((await office.execute(again)).content) == {"paid": "c1"}
    assert payments(sites) == 1
    office.run = office.run.model_copy(update={"run_id": f"{office.run.run_id}b"})
    order = await payment(office, LOOK)
    await lost(office, order)
    again = await office.again(order)
    assert json.loads((await office.execute(again)).content)["grüße"] == "hello"
    assert payments(sites) == 1


async def test_a_box_lost_under_a_living_worker_is_looked_into_by_the_next_attempt(
    office: Office, sites: Sites, sandbox: Sandbox
) -> None:
    order = await payment(office, LOOK, then_s=60)
    call = asyncio.create_task(office.execute(order))
    while not payments(sites):
        assert not call.done(), call
        await asyncio.sleep(0.02)
    await sandbox.clear_run(office.run.run_id)
    with pytest.raises(ApplicationError) as caught:
        await call
    assert (caught.value.type, caught.value.non_retryable) == ("worker_lost", False)
    assert json.loads((await office.execute(order, attempt=2)).content)["paid"] == "c1"
    assert payments(sites) == 1


async def test_who_lost_the_key_records_nothing(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut off, not dead: it has the program's result in hand when somebody else has taken the call over."""
    order = await payment(office, "print('{\"happened\": false}')", source="print(1)")
    settle = Ledger.settle

    async def taken_over(
        ledger: Ledger, key: str, result: ToolResult, event: AuditEvent, *, owner: str | None = None
    ) -> ToolResult:
        before = await ledger.get(key)
        assert before is not None
        await ledger.claim(key, generation=1, tool="probe", attempt=2, owner="other box-2", instead_of=before.owner)
        return await settle(ledger, key, result, event, owner=owner)

    monkeypatch.setattr(Ledger, "settle", taken_over)
    with pytest.raises(ApplicationError) as caught:
        await office.execute(order)
    assert (caught.value.type, caught.value.non_retryable) == ("worker_lost", False)
    assert await office.outcomes() == []
