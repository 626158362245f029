"""The API as a client meets it: a real server on a free port over a real store, with a key for each role."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import httpx

from api.app import Server, create_app
from api.services import Services
from policies.decision import Principal
from tests.fixtures.temporal import QUIET, TemporalServer, free_port
from tools.contract import ToolCall, arguments_digest
from worker import main, temporal
from worker.sandbox.images import ImageStore
from worker.settings import Settings
from worker.store.ids import new_id
from worker.store.runs import Run
from workflows.contracts import ApprovalRequest, ArtifactRef, Phase, Question, Rung, RunResult

HOME = Path(__file__).with_name("home")
ROLES = ("viewer", "operator", "approver", "auditor", "admin")

Json = dict[str, Any]


@dataclass
class Api:
    """A running API. `client(role)` speaks for a principal of that role; a name holding `@` is of that other tenant."""

    settings: Settings
    services: Services
    keys: dict[str, str] = field(default_factory=dict[str, str])
    clients: dict[str, httpx.AsyncClient] = field(default_factory=dict[str, httpx.AsyncClient])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.settings.api_port}"

    def anonymous(self) -> httpx.AsyncClient:
        return self._client("", {})

    async def client(self, who: str, *roles: str) -> httpx.AsyncClient:
        """A client whose principal is called `who`, with `roles` (its own name when none is given)."""
        if who not in self.clients:
            name, _, tenant = who.partition("@")
            principal = Principal(id=name, tenant=tenant or "default", roles=roles or (name,))
            _, self.keys[who] = await self.services.keys.create(f"test {name}", principal)
            self._client(who, {"Authorization": f"Bearer {self.keys[who]}"})
        return self.clients[who]

    def _client(self, who: str, headers: dict[str, str]) -> httpx.AsyncClient:
        if who not in self.clients:
            self.clients[who] = httpx.AsyncClient(base_url=f"{self.url}/api/v1", headers=headers, timeout=60)
        return self.clients[who]

    async def put_run(self, tenant: str = "default", phase: Phase = Phase.QUEUED, **changes: Any) -> Run:
        """A run's row as if it had been asked for and had got that far."""
        now = datetime.now(UTC)
        values: Json = {
            "id": new_id("run"), "tenant": tenant, "automation": "tidy", "automation_version": "1.0",
            "digest": "0" * 64, "requester": "olga", "principal": Principal(id="olga", tenant=tenant),
            "inputs": {"path": "in/a"}, "phase": phase, "created_at": now, "updated_at": now,
        }  # fmt: skip
        return await self.services.runs.insert(Run(**(values | changes)))

    async def put_question(self, run: Run, **changes: Any) -> ApprovalRequest:
        """A pending question of a run that has no workflow."""
        request = question_of(run, **changes)
        await self.services.approvals.open(request)
        return request

    async def put_artifact(self, name: str, content: bytes, tenant: str = "default") -> Run:
        """A finished run that left one file."""
        blob = await self.services.blobs.put(content)
        artifact = ArtifactRef(name=name, sha256=blob.sha256, size=blob.size, media_type="text/html")
        result = RunResult(phase=Phase.SUCCEEDED, rung=Rung.RULES, artifacts=(artifact,))
        return await self.put_run(tenant, Phase.SUCCEEDED, result=result)

    async def records(self, type_: str, **where: Any) -> list[Json]:
        """Bodies of the audit records of a type."""
        found = await self.services.audit.page(tenant=None, type=type_, limit=1000, **where)
        return [cast(Json, dict(r.body)) | {"actor": r.actor, "tenant": r.tenant, "run_id": r.run_id} for r in found]


def question_of(run: Run, **changes: Any) -> ApprovalRequest:
    """A question about a deletion."""
    now = datetime.now(UTC)
    call = ToolCall(id="c1", tool="delete_files", arguments={"paths": ["in/a"]})
    values: Json = {
        "id": f"{run.id}.1", "run_id": run.id, "question": Question.CALL, "tenant": run.tenant,
        "automation": "tidy", "requester": run.requester, "call": call, "tool_version": "1",
        "effect": "destructive",
        "digest": arguments_digest(call.tool, call.arguments), "rule": "destructive-needs-approval",
        "approvers": "approver", "requested_at": now, "deadline": now + timedelta(hours=1),
    }  # fmt: skip
    return ApprovalRequest(**(values | changes))


@asynccontextmanager
async def running(data: Path, temporal_address: str, **changes: Any) -> AsyncGenerator[Api, None]:
    """Serve until the block ends; then stop as SIGTERM would. Its runs are where nobody works unless told so."""
    changes = {"temporal_namespace": QUIET, "home": HOME} | changes
    settings = Settings(data=data, temporal_address=temporal_address, api_port=free_port(), **changes)
    app = create_app(settings)
    server = Server(settings, app)
    serving = asyncio.create_task(server.serve())
    try:
        while not server.started:
            assert not serving.done(), "the API did not start"
            await asyncio.sleep(0.02)
        yield (api := Api(settings, cast(Services, app.state.services)))
        for client in api.clients.values():
            await client.aclose()
    finally:
        server.should_exit = True
        await serving


@asynccontextmanager
async def staffed(data: Path, **changes: Any) -> AsyncGenerator[Api, None]:
    """An API with workers of every queue it needs, composed as in production, on a Temporal server of their own."""
    ImageStore(data, lambda _: None).ensure()
    server = TemporalServer()
    await server.start()
    async with running(data, server.address, temporal_namespace="default", **changes) as api:
        client = await temporal.connect(api.settings)
        async with (
            main._runs(api.settings, client) as runs,  # pyright: ignore[reportPrivateUsage]
            main._sandbox(api.settings, client) as sandbox,  # pyright: ignore[reportPrivateUsage]
            runs,
            sandbox,
        ):
            yield api
    server.stop()


__all__ = ["HOME", "ROLES", "Api", "Json", "question_of", "running", "staffed"]
