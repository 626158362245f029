"""A program in a real box, its proxy, and servers on loopback: what gets out, what comes back, what is on record."""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest
from temporalio.exceptions import ApplicationError

from tests.fixtures.egress import HOST, OTHER, Sites
from tests.fixtures.sandbox import leftovers
from tests.worker.sandbox.test_activities import Desk, environment
from tools.catalog import load_tools
from tools.contract import EgressCredential, EgressLimits, JsonObject, Outcome, ToolResult, ToolSpec
from tools.egress import rules
from worker.activities.means import Means
from worker.activities.sandbox import SandboxActivities
from worker.sandbox.container import Ending, Job, Sandbox
from worker.sandbox.egress import Egress, through
from worker.sandbox.engine import SandboxUnavailable
from worker.sandbox.grant import Grant
from worker.sandbox.process import this_process
from worker.sandbox.scrubbing import Scrubber
from worker.sandbox.secrets import EnvironmentSecrets, Secrets
from worker.sandbox.workspace import Workspaces
from worker.store.audit import AuditLog
from worker.store.blobs import Blobs
from worker.store.database import Database
from worker.store.events import egress_refused_id
from worker.store.ledger import Ledger
from workflows.contracts import ToolRun

TOKEN = "token/of+the=service"
FETCH = """
import json, sys, urllib.error, urllib.request
for url in json.load(sys.stdin)["arguments"]["urls"]:
    try:
        got = urllib.request.urlopen(url, timeout=10).read().decode()
    except urllib.error.HTTPError as error:
        got = f"{error.code} {error.read().decode()}"
    except OSError as error:
        got = str(error)
    print(json.dumps(got), end="")
"""


@pytest.fixture
def backend() -> str:
    return "sqlite"


class Office(Desk):
    """A desk whose calls have means."""

    def __init__(
        self, sandbox: Sandbox, blobs: Blobs, db: Database, workspaces: Workspaces, folder: Path, sites: Sites
    ) -> None:
        self.folder = folder
        audit = AuditLog(db)
        egress = Egress(folder, resolve=sites.resolve, tls=sites.trust)
        environment_ = {"GATEHOUSE_SECRET_SERVICE_TOKEN": TOKEN, "GATEHOUSE_SECRET_BROKEN": "two\nlines of it"}
        secrets = Secrets([EnvironmentSecrets(environment_)], Scrubber())
        means = Means(egress, secrets, audit, opened=[f"{HOST}:80"])
        activities = SandboxActivities(sandbox, Ledger(db), blobs, workspaces, audit, means=means)
        super().__init__(activities, blobs, db, f"run_{hashlib.sha256(str(folder).encode()).hexdigest()[:8]}")

    async def call(self, source: str, *urls: str, **spec: object) -> ToolResult:
        order = await self.order(source, arguments={"urls": [*urls]})
        return await self.execute(order.model_copy(update={"tool": order.tool.model_copy(update=spec)}))

    async def refusals(self) -> list[JsonObject]:
        found = await self.audit.page(tenant="t", run_id=self.run.run_id, type="egress.refused")
        return [record.body for record in found]


@pytest.fixture
async def office(
    sandbox: Sandbox, workspaces: Workspaces, blobs: Blobs, db: Database, tmp_path: Path, sites: Sites
) -> AsyncIterator[Office]:
    made = Office(sandbox, blobs, db, workspaces, tmp_path / "egress", sites)
    yield made
    assert list(made.folder.glob("*")) == []


async def test_declared_hosts_are_reached_and_nothing_else(office: Office, sites: Sites) -> None:
    result = await office.call(FETCH, f"http://{HOST}/x", egress=(f"{HOST}:80", HOST))
    assert (result.outcome, result.content) == (Outcome.SUCCEEDED, '"hello"')
    assert sites.plain.connections == 1
    assert await office.refusals() == []
    (body,) = await office.outcomes()
    egress = body["egress"]
    assert isinstance(egress, dict)
    assert egress["hosts"] == {f"{HOST}:80": 1}
    assert egress["received_bytes"] == len(sites.plain.answer)


async def test_refusals_are_told_and_on_record(office: Office, sites: Sites) -> None:
    result = await office.call(FETCH, f"http://{OTHER}/", egress=(f"{HOST}:80",))
    assert json.loads(result.content) == f"403 egress refused: {OTHER}:80 is not on the allow-list\n"
    (body,) = await office.refusals()
    assert (body["call_id"], body["kind"], body["host"], body["port"], body["times"]) == (
        "c1", "not_allowed", OTHER, 80, 1,
    )  # fmt: skip
    assert await office.audit.get(egress_refused_id(office.run.run_id, "c1", "1.1.0")) is not None
    assert sites.plain.connections == 0


async def test_limits_of_the_manifest_hold(office: Office, sites: Sites) -> None:
    source = FETCH.replace('print(json.dumps(got), end="")', "pass") + "\nprint(json.dumps(got))"
    result = await office.call(
        source, *[f"http://{HOST}/"] * 4, egress=(f"{HOST}:80",),
        egress_limits=EgressLimits(requests=2),
    )  # fmt: skip
    assert json.loads(result.content) == "403 egress refused: more than 2 requests\n"
    assert sites.plain.connections == 2
    (body,) = await office.refusals()
    assert (body["kind"], body["times"]) == ("requests", 2)


async def test_http_request_reaches_opened_hosts(office: Office, sites: Sites) -> None:
    tool = load_tools()["http_request"]
    await office.blobs.put(tool.program)

    async def send(url: str, call: str) -> ToolResult:
        order = await office.order("pass", arguments={"url": url}, call=call)
        return await office.execute(_of(order, tool.spec.model_copy(update={"name": "probe"})))

    answer = await send(f"http://{HOST}/x", "c1")
    assert answer.outcome is Outcome.SUCCEEDED
    assert json.loads(answer.content)["body"] == "hello"
    refused = await send(f"http://{OTHER}/x", "c2")
    assert (refused.outcome, refused.error) == (Outcome.FAILED, "exit_code")
    assert "egress refused: other.test.example:80 is not on the allow-list" in refused.content
    tunnel = await send(f"https://{HOST}/x", "c3")
    assert "403 Egress refused: api.test.example:443 is not on the allow-list" in tunnel.content
    assert sites.tls.connections == 0


def _of(order: ToolRun, spec: ToolSpec) -> ToolRun:
    return order.model_copy(update={"tool": spec})


async def test_any_host_means_none_unless_some_are_opened(
    office: Office, sandbox: Sandbox, workspaces: Workspaces
) -> None:
    closed = Means(Egress(office.folder), Secrets([], Scrubber()), office.audit)
    office.activities = SandboxActivities(sandbox, office.ledger, office.blobs, workspaces, office.audit, means=closed)
    with pytest.raises(ApplicationError, match="egress is closed"):
        await office.call("print(1)", egress=("*",))
    assert await office.outcomes() == []


async def test_credential_never_enters_the_box(office: Office, sites: Sites) -> None:
    """The server gets it; the program looks for it everywhere it can and in the answer of a server that repeats it."""
    look = f"""
import json, os, urllib.request, urllib.error
secret = bytes.fromhex({TOKEN[::-1].encode().hex()!r})[::-1]
seen = []
def look(where, data):
    if secret in data: seen.append(where)
look("environment", repr(os.environ).encode())
for top in ("/work", "/run", "/tmp", "/etc"):
    for folder, _, files in os.walk(top):
        for name in files:
            path = os.path.join(folder, name)
            try: look(path, open(path, "rb").read(1 << 20))
            except OSError: pass
for pid in filter(str.isdigit, os.listdir("/proc")):
    for name in ("environ", "cmdline", "maps"):
        try: look(f"/proc/{{pid}}/{{name}}", open(f"/proc/{{pid}}/{{name}}", "rb").read())
        except OSError: pass
answer = urllib.request.urlopen("http://{HOST}:443/v1").read()
look("answer", answer)
print(json.dumps([seen, answer.decode()]))
"""
    credential = EgressCredential(host=HOST, secret="service_token")
    result = await office.call(look, egress=(HOST,), egress_credentials=(credential,))
    assert json.loads(result.content) == [[], "hello"]
    assert f"Authorization: Bearer {TOKEN}".encode() in sites.tls.heads[0]
    records = str([r.body for r in await office.audit.page(tenant="t", run_id=office.run.run_id)])
    assert TOKEN not in records


async def test_a_server_that_repeats_the_credential_is_cut_off(office: Office, sites: Sites) -> None:
    sites.tls.echo = True
    result = await office.call(
        FETCH, f"http://{HOST}:443/", egress=(HOST,),
        egress_credentials=(EgressCredential(host=HOST, secret="service_token"),),
    )  # fmt: skip
    assert "the answer contains the credential" in result.content
    assert TOKEN not in result.content
    assert [body["kind"] for body in await office.refusals()] == ["echo"]


@pytest.mark.parametrize(
    "spec",
    [
        {"secrets": ("nonesuch",)},
        {"egress": (HOST,), "egress_credentials": (EgressCredential(host=HOST, secret="nonesuch"),)},
        {"egress": (HOST,), "egress_credentials": (EgressCredential(host=HOST, secret="broken"),)},
        {"egress": ("http://x",)},
    ],
)
async def test_what_cannot_be_given_is_refused_and_nothing_runs(office: Office, spec: Mapping[str, object]) -> None:
    with pytest.raises(ApplicationError) as caught:
        await office.call("print(1)", **spec)
    assert caught.value.type == "refused"
    assert "lines of it" not in str(caught.value)
    assert await office.outcomes() == []


async def test_the_way_out_ends_with_a_cancelled_call(office: Office, sandbox: Sandbox) -> None:
    order = await office.order("import time; time.sleep(60)")
    order = order.model_copy(update={"tool": order.tool.model_copy(update={"egress": (HOST,)})})
    activity = environment()
    call = asyncio.create_task(activity.run(office.activities.run_tool, order))
    while not await leftovers(sandbox, office.run.run_id):  # noqa: ASYNC110 - the engine tells nobody
        await asyncio.sleep(0.05)
    activity.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert list(office.folder.glob("*")) == []


async def test_ways_of_dead_workers_are_swept(tmp_path: Path) -> None:
    egress = Egress(tmp_path)
    for name, owner in (("dead", "elsewhere"), ("odd", None)):
        (tmp_path / name).mkdir()
        if owner:
            (tmp_path / name / "owner").write_text(owner)
    here, _, _ = this_process().partition(":")
    (tmp_path / "dead" / "owner").write_text(f"{here}:999999999:1")
    async with egress.open(Grant(())):
        assert egress.sweep() == 1
        assert not (tmp_path / "dead").exists()
        assert len([*tmp_path.iterdir()]) == 2  # noqa: ASYNC240


async def test_no_folder_no_call(sandbox: Sandbox, tmp_path: Path) -> None:
    """The engine never makes up a folder that is gone, which it would do for a bind in its old form."""
    with pytest.raises(SandboxUnavailable):
        await sandbox.run(Job(run_id="r", key="k", program=b"print(1)", stdin=b"", egress=str(tmp_path / "gone")))
    assert not (tmp_path / "gone").exists()


async def test_many_connections_and_large_bodies_through_the_relay(
    sandbox: Sandbox, sites: Sites, tmp_path: Path
) -> None:
    source = f"""
import concurrent.futures, urllib.request
def post(n):
    data = bytes([n]) * (300_000 + n)
    return len(urllib.request.urlopen("http://{HOST}/", data=data, timeout=20).read())
with concurrent.futures.ThreadPoolExecutor(8) as pool:
    print(sum(pool.map(post, range(16))))
"""
    sites.plain.answer = b"HTTP/1.1 200 OK\r\nContent-Length: 200000\r\n\r\n" + bytes(200_000)
    async with Egress(tmp_path / "way", resolve=sites.resolve).open(Grant(rules([f"{HOST}:80"]))) as way:
        job = through(Job(run_id="run_relay", key="k", program=source.encode(), stdin=b""), way)
        ran = await sandbox.run(job)
    assert (ran.ending, ran.stdout.strip(), ran.stderr) == (Ending.SUCCEEDED, b"3200000", b"")
    assert sorted(len(body) for body in sites.plain.bodies) == [300_000 + n for n in range(16)]
    assert way.traffic.sent_bytes == sum(300_000 + n for n in range(16))
