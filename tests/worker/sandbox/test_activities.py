"""The activities as Temporal runs them: once, recorded, fenced, cancelled, drained. Real engine, ledger, audit log."""

import asyncio
import dataclasses
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Literal, get_type_hints

import pytest
import structlog
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from tests.fixtures.sandbox import leftovers
from tests.worker.activities.payloads import asked, decided, yes
from tools.contract import (
    CONTENT_LIMIT_CHARS,
    Effect,
    JsonObject,
    Limits,
    Outcome,
    Repeat,
    ToolCall,
    ToolResult,
    ToolSpec,
    arguments_digest,
)
from worker.activities.sandbox import SandboxActivities
from worker.sandbox.container import Sandbox
from worker.sandbox.engine import Engine
from worker.sandbox.workspace import Workspaces
from worker.store.approvals import Approvals
from worker.store.audit import AuditLog
from worker.store.blobs import Blobs
from worker.store.database import Database
from worker.store.events import outcome_id
from worker.store.ledger import ClaimState, Ledger
from workflows import ports
from workflows.contracts import ApprovalState, FileRef, Question, RunRef, ToolRun, WorkspaceOpened

SLEEP = "import time; time.sleep(60)"


@pytest.fixture
def backend() -> str:
    """The ledger's own tests cover both databases."""
    return "sqlite"


class Desk:
    """One run with its workspace; makes orders for calls."""

    def __init__(self, activities: SandboxActivities, blobs: Blobs, db: Database, run_id: str) -> None:
        self.activities = activities
        self.blobs = blobs
        self.ledger = Ledger(db)
        self.audit = AuditLog(db)
        self.run = RunRef(run_id=run_id, tenant="t", automation="a")

    async def order(
        self, source: str, *, call: str = "c1", repeat: Repeat = Repeat.SAFE, arguments: JsonObject | None = None,
        workspace: Literal["none", "read", "write"] = "none", limits: Limits | None = None,
    ) -> ToolRun:  # fmt: skip
        arguments = arguments or {}
        spec = ToolSpec(
            name="probe", version="1", description="d", parameters={"type": "object"}, effect=Effect.READ,
            repeat=repeat, workspace=workspace, limits=limits or Limits(),
            program_sha256=(await self.blobs.put(source.encode())).sha256,
        )  # fmt: skip
        order = ToolRun(
            run=self.run, key=f"{self.run.run_id}/first/{call}", tool=spec, rule="r",
            call=ToolCall(id=call, tool="probe", arguments=arguments), digest=arguments_digest("probe", arguments),
        )  # fmt: skip
        await self.audit.append(decided(order))
        return order

    async def again(self, order: ToolRun) -> ToolRun:
        """The order to repeat the call, which a human gave."""
        question = asked(order, question=Question.UNKNOWN_OUTCOME)
        approvals = Approvals(self.audit.db)
        await approvals.open(question)
        await approvals.close(question.id, ApprovalState.APPROVED, yes(question))
        return order.model_copy(update={"generation": 2, "approval_id": question.id})

    async def outcomes(self) -> list[JsonObject]:
        records = await self.audit.page(tenant="t", run_id=self.run.run_id, type="call.outcome")
        return [record.body for record in records]

    async def execute(self, order: ToolRun, *, attempt: int = 1) -> ToolResult:
        return await environment(attempt).run(self.activities.run_tool, order)


def environment(attempt: int = 1) -> ActivityEnvironment:
    made = ActivityEnvironment()
    made.info = dataclasses.replace(made.info, attempt=attempt)
    return made


@pytest.fixture
async def desk(
    sandbox: Sandbox, workspaces: Workspaces, blobs: Blobs, db: Database, request: pytest.FixtureRequest
) -> AsyncIterator[Desk]:
    activities = SandboxActivities(sandbox, Ledger(db), blobs, workspaces, AuditLog(db))
    made = Desk(activities, blobs, db, f"run_{abs(hash(request.node.name)) % 10**8}")
    yield made
    await sandbox.close()
    await workspaces.remove(made.run.run_id)


def test_signatures_are_those_of_the_ports(desk: Desk) -> None:
    pairs = zip(desk.activities.all(), (ports.open_workspace, ports.run_tool, ports.close_workspace), strict=True)
    for ours, port in pairs:
        assert get_type_hints(ours) == get_type_hints(port)


async def test_result_and_record(desk: Desk) -> None:
    source = (
        "import json, sys\nx = json.load(sys.stdin)\n"
        "print(json.dumps({'sum': sum(x['arguments']['n']), 'k': x['key']}))"
    )
    order = await desk.order(source, arguments={"n": [1, 2, 3]})
    result = await desk.execute(order)
    assert result.outcome is Outcome.SUCCEEDED
    assert result.content == f'{{"sum": 6, "k": "{order.key}"}}'
    (body,) = await desk.outcomes()
    assert (body["outcome"], body["call_id"], body["digest"], body["rule"]) == ("succeeded", "c1", order.digest, "r")
    record = await desk.audit.get(outcome_id(desk.run.run_id, "c1"))
    assert record is not None
    assert record.actor == "system:sandbox"
    held = await desk.ledger.get(order.key)
    assert held is not None
    assert held.state is ClaimState.SETTLED


async def test_repeat_gives_the_stored_result_and_runs_nothing(desk: Desk) -> None:
    order = await desk.order("import os; print(os.urandom(8).hex().join('\"\"'))")
    first = await desk.execute(order)
    for attempt in (1, 2, 3):
        assert await desk.execute(order, attempt=attempt) == first
    assert len(await desk.outcomes()) == 1


@pytest.mark.parametrize(
    ("source", "limits", "error", "words"),
    [
        ("import sys; sys.exit('no such thing')", None, "exit_code", "no such thing"),
        ("print('{')", None, "bad_output", "not one JSON value"),
        ("print('NaN')", None, "bad_output", "NaN is not JSON"),
        ("import sys; sys.stdout.buffer.write(b'\\xff')", None, "bad_output", "not UTF-8"),
        (SLEEP, Limits(timeout_s=0.5), "timeout", "0.5 s (timeout_s)"),
        ("b = bytearray(1 << 30)", Limits(memory_mb=64), "oom", "64 MB of memory (memory_mb)"),
        ("while True: print('x' * 1000)", Limits(output_bytes=2000), "output_limit", "2000 bytes (output_bytes)"),
    ],
)
async def test_failures_are_values_the_model_reads(
    desk: Desk, source: str, limits: Limits | None, error: str, words: str
) -> None:
    result = await desk.execute(await desk.order(source, limits=limits))
    assert (result.outcome, result.error) == (Outcome.FAILED, error)
    assert words in result.content
    assert (await desk.outcomes())[0]["error"] == error


async def test_long_output_is_capped_and_kept_whole(desk: Desk) -> None:
    result = await desk.execute(await desk.order("import json; print(json.dumps('a' * 30_000 + 'z'))"))
    assert len(result.content) <= CONTENT_LIMIT_CHARS
    assert result.content.startswith('"aaa')
    assert result.content.endswith('az"')
    assert "30003 characters in all" in result.content
    assert result.full_sha256 is not None
    assert len(await desk.blobs.read(result.full_sha256)) == 30_003


async def test_secrets_in_output_are_redacted_everywhere(desk: Desk) -> None:
    secret = "ghp_" + "a1B2" * 9
    source = f"import json; print(json.dumps({{'x': '{secret}', 'y': 'b' * 20_000}}))"
    result = await desk.execute(await desk.order(source))
    assert result.full_sha256 is not None
    assert (
        secret not in result.content + str(await desk.outcomes()) + (await desk.blobs.read(result.full_sha256)).decode()
    )


async def refused(desk: Desk, order: ToolRun, *, attempt: int = 1) -> str:
    with pytest.raises(ApplicationError) as caught:
        await desk.execute(order, attempt=attempt)
    assert caught.value.non_retryable
    assert await desk.outcomes() == []
    return str(caught.value.type)


async def test_unsound_orders_are_refused(desk: Desk) -> None:
    order = await desk.order("print(1)", arguments={"a": 1})
    changed = order.call.model_copy(update={"arguments": {"a": 2}})
    other = order.call.model_copy(update={"tool": "other"})
    for unsound in (
        order.model_copy(update={"call": changed}),
        order.model_copy(update={"call": other}),
        order.model_copy(update={"tool": order.tool.model_copy(update={"egress": ("example.org",)})}),
        order.model_copy(update={"tool": order.tool.model_copy(update={"image": "nonesuch"})}),
        order.model_copy(update={"tool": order.tool.model_copy(update={"program_sha256": "0" * 64})}),
        order.model_copy(update={"tool": order.tool.model_copy(update={"workspace": "read"})}),
    ):
        assert await refused(desk, unsound) == "refused"
        assert await desk.ledger.get(order.key) is None


async def test_no_engine_is_a_clean_failure(desk: Desk, sandbox_data: Path) -> None:
    async with Engine("unix:///nonexistent/docker.sock") as engine:
        sandbox = Sandbox(engine, data=sandbox_data, owner="o")
        workspaces = Workspaces(sandbox, desk.blobs)
        desk.activities = SandboxActivities(sandbox, desk.ledger, desk.blobs, workspaces, desk.audit)
        assert await refused(desk, await desk.order("print(1)")) == "sandbox_unavailable"
        with pytest.raises(ApplicationError) as caught:
            await environment().run(desk.activities.open_workspace, WorkspaceOpened(run=desk.run, files=()))
        assert caught.value.type == "sandbox_unavailable"


async def test_no_engine_to_fence_with_is_no_proof_that_nothing_happened(desk: Desk, sandbox_data: Path) -> None:
    order = await desk.order("print(1)", repeat=Repeat.AT_MOST_ONCE)
    await desk.ledger.claim(order.key, generation=1, tool="probe", attempt=1, owner="gone box-1")
    async with Engine("unix:///nonexistent/docker.sock") as engine:
        sandbox = Sandbox(engine, data=sandbox_data, owner="o")
        workspaces = Workspaces(sandbox, desk.blobs)
        desk.activities = SandboxActivities(sandbox, desk.ledger, desk.blobs, workspaces, desk.audit)
        assert await refused(desk, order, attempt=2) == "outcome_unknown"
        again = await desk.again(order)
        assert await refused(desk, again) == "sandbox_unavailable"


async def test_an_order_that_nobody_permitted_runs_nothing(desk: Desk) -> None:
    order = await desk.order("print(1)")
    for bad in (
        order.model_copy(update={"call": order.call.model_copy(update={"id": "c2"})}),
        order.model_copy(update={"gate_pass": 1}),
        order.model_copy(update={"generation": 2}),
    ):
        assert await refused(desk, bad) == "refused"
    assert await desk.ledger.get(order.key) is None
    assert await desk.outcomes() == []


async def test_uncertain_claim_of_a_safe_tool_runs_again(desk: Desk) -> None:
    order = await desk.order("print(1)")
    await desk.ledger.claim(order.key, generation=1, tool="probe", attempt=1, owner="a dead worker")
    assert (await desk.execute(order, attempt=2)).outcome is Outcome.SUCCEEDED


async def test_uncertain_claim_of_an_at_most_once_tool_is_a_question(desk: Desk) -> None:
    order = await desk.order("print(1)", repeat=Repeat.AT_MOST_ONCE)
    await desk.ledger.claim(order.key, generation=1, tool="probe", attempt=1, owner="a dead worker")
    for attempt in (1, 2):
        assert await refused(desk, order, attempt=attempt) == "outcome_unknown"
    again = await desk.again(order)
    assert (await desk.execute(again)).outcome is Outcome.SUCCEEDED
    assert len(await desk.outcomes()) == 1


async def test_at_most_once_that_was_never_claimed_runs_on_the_second_attempt(desk: Desk) -> None:
    """The first attempt died before its program could start, and the ledger proves it."""
    order = await desk.order("print(1)", repeat=Repeat.AT_MOST_ONCE)
    assert (await desk.execute(order, attempt=2)).outcome is Outcome.SUCCEEDED


async def standing(desk: Desk, order: ToolRun) -> None:
    """Wait until the call's program runs."""
    async with asyncio.timeout(60):
        while (held := await desk.ledger.get(order.key)) is None or held.state is not ClaimState.HELD:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    await asyncio.sleep(0.1)  # claimed right before the program starts


@pytest.mark.parametrize("repeat", list(Repeat))
async def test_second_attempt_fences_the_first(desk: Desk, sandbox: Sandbox, repeat: Repeat) -> None:
    """The first worker is cut off, not dead: its box goes before anything else happens, and it records no result."""
    order = await desk.order("import os, time; time.sleep(60)", repeat=repeat)
    first = asyncio.create_task(desk.execute(order))
    await standing(desk, order)
    quick = order.model_copy(update={"tool": (await desk.order("print(2)", repeat=repeat)).tool})
    if repeat is Repeat.SAFE:
        assert (await desk.execute(quick, attempt=2)).content == "2"
    else:
        assert await refused(desk, quick, attempt=2) == "outcome_unknown"
    with pytest.raises(ApplicationError) as caught:
        await first
    assert caught.value.type == ("worker_lost" if repeat is Repeat.SAFE else "outcome_unknown")
    await sandbox.close()
    assert await leftovers(sandbox, desk.run.run_id) == []


async def test_cancel_kills_the_box_and_heartbeats_told_of_life(desk: Desk, sandbox: Sandbox) -> None:
    order = await desk.order(SLEEP)
    beats: list[float] = []
    env = environment()
    named: set[object] = set()

    def beat(*_: object) -> None:
        beats.append(time.monotonic())
        named.add(structlog.contextvars.get_contextvars().get("call"))

    env.on_heartbeat = beat
    task = asyncio.create_task(env.run(desk.activities.run_tool, order))
    await standing(desk, order)
    async with asyncio.timeout(60):
        while len(beats) < 2:  # noqa: ASYNC110  (given by another thread)
            await asyncio.sleep(0.02)
    assert named == {order.call.id}, "log lines name their call"
    started = time.monotonic()
    env.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await leftovers(sandbox, desk.run.run_id) == []
    assert time.monotonic() - started < 20  # seconds; else it waited for the program
    assert await desk.outcomes() == []


async def test_drain_hands_back_what_may_be_repeated(desk: Desk, sandbox: Sandbox) -> None:
    order = await desk.order(SLEEP)
    env = environment()
    task = asyncio.create_task(env.run(desk.activities.run_tool, order))
    await standing(desk, order)
    started = time.monotonic()
    env.worker_shutdown()
    with pytest.raises(ApplicationError) as caught:
        await task
    assert (caught.value.type, caught.value.non_retryable) == ("worker_draining", False)
    assert time.monotonic() - started < 20  # seconds; else it waited for the program
    assert await leftovers(sandbox, desk.run.run_id) == []


async def test_drain_lets_an_at_most_once_call_finish(desk: Desk) -> None:
    order = await desk.order("import time; time.sleep(1); print(1)", repeat=Repeat.AT_MOST_ONCE)
    env = environment()
    task = asyncio.create_task(env.run(desk.activities.run_tool, order))
    await standing(desk, order)
    env.worker_shutdown()
    assert (await task).outcome is Outcome.SUCCEEDED


async def test_workspace_from_inputs_to_artifacts(desk: Desk, sandbox: Sandbox) -> None:
    blob = await desk.blobs.put(b"a\nb\n")
    opened = WorkspaceOpened(run=desk.run, files=(FileRef(name="x.log", sha256=blob.sha256, size=blob.size),))
    await environment().run(desk.activities.open_workspace, opened)
    await environment().run(desk.activities.open_workspace, opened)
    source = "open('out/copy.md', 'w').write(open('in/x.log').read()); print('true')"
    result = await desk.execute(await desk.order(source, workspace="write"))
    assert result.outcome is Outcome.SUCCEEDED, result.content
    # A call that is still running when the run is closed must not outlive it.
    late = await desk.order(SLEEP, call="late", workspace="write")
    task = asyncio.create_task(desk.execute(late))
    await standing(desk, late)
    (artifact,) = await environment().run(desk.activities.close_workspace, desk.run)
    assert (artifact.name, artifact.sha256, artifact.media_type) == ("copy.md", blob.sha256, "text/markdown")
    with pytest.raises(ApplicationError):
        await task
    assert await environment().run(desk.activities.close_workspace, desk.run) == (artifact,)
    assert len(await desk.audit.page(tenant="t", run_id=desk.run.run_id, type="artifact.stored")) == 1
    await sandbox.close()
    assert await leftovers(sandbox, desk.run.run_id) == []
