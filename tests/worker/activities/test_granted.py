"""Grants at the gate, whatever is tried again: a call goes by the one grant it took, a recorded decision takes none."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from policies.decision import Decision, Verdict
from policies.engine import PolicyEngine
from policies.signatures import GRANT
from policies.standing import Grant
from tests.worker.activities.payloads import Job
from tools.contract import Effect
from worker.activities.gate import GateActivities
from worker.store import times
from worker.store.audit import AuditLog
from worker.store.ids import new_id
from worker.store.signing import load_or_create
from worker.store.standing import Standing
from worker.store.tables import approval_grant
from workflows.contracts import CallOpened

PutGrant = Callable[..., Awaitable[Grant]]


@pytest.fixture
def put_grant(standing: Standing, tmp_path: Path) -> PutGrant:
    async def put(**changes: Any) -> Grant:
        now = times.now()
        values: dict[str, Any] = {
            "id": new_id("grant"), "tenant": "default", "automation": "log-triage", "tool": "delete_files",
            "arguments": {"paths": "*"}, "uses": 1, "until": now + timedelta(days=1), "created_by": "ruth",
            "created_at": now, **changes,
        }  # fmt: skip
        grant = load_or_create(tmp_path).sign(Grant.model_validate(values), GRANT)
        await standing.add_grant(grant)
        return grant

    return put


@pytest.fixture
def open_call(
    engine: PolicyEngine, audit: AuditLog, standing: Standing, job: Job
) -> Callable[[str, int], Awaitable[Decision]]:
    gate = GateActivities(engine, audit, standing=standing)

    async def opened(call_id: str, gate_pass: int) -> Decision:
        return await gate.open_call(deletion(job, call_id, gate_pass))

    return opened


def deletion(job: Job, call_id: str = "c1", gate_pass: int = 0) -> CallOpened:
    return job.call(
        call_id, tool="delete_files", effect=Effect.DESTRUCTIVE, gate_pass=gate_pass, arguments={"paths": ["in/a"]}
    )


async def used(standing: Standing) -> dict[str, int]:
    return {row.grant.id: row.used for row in await standing.grants("default")}


async def test_a_call_goes_by_the_grant_it_took(
    open_call: Callable[[str, int], Awaitable[Decision]], put_grant: PutGrant, standing: Standing, audit: AuditLog
) -> None:
    first = await put_grant()
    assert (await open_call("c1", 0)).grant == first.id
    second = await put_grant(created_at=times.now() + timedelta(seconds=1))
    assert (await open_call("c1", 1)).grant == first.id, "gated again it is the same use of the same grant"
    assert await used(standing) == {first.id: 1, second.id: 0}
    assert len(await audit.page(tenant="default", type="grant.used")) == 1
    assert (await open_call("c2", 0)).grant == second.id
    assert (await open_call("c3", 0)).verdict is Verdict.ASK


async def test_a_repeat_of_a_recorded_decision_takes_no_grant(
    open_call: Callable[[str, int], Awaitable[Decision]], put_grant: PutGrant, standing: Standing
) -> None:
    asked = await open_call("c1", 0)
    assert asked.verdict is Verdict.ASK
    grant = await put_grant()
    assert await open_call("c1", 0) == asked
    assert await used(standing) == {grant.id: 0}


async def test_a_grant_that_is_revoked_while_a_call_looks_at_it_is_not_taken(
    open_call: Callable[[str, int], Awaitable[Decision]],
    put_grant: PutGrant,
    standing: Standing,
    audit: AuditLog,
    job: Job,
) -> None:
    asked, call = await open_call("c1", 0), deletion(job)
    grant = await put_grant()
    async with audit.db.begin() as conn:  # others still see the grant as it was, and wait to change it
        ending = sa.update(approval_grant).values(revoked_by="ada", revoked_at=times.now())
        await conn.execute(ending.where(approval_grant.c.id == grant.id))
        using = asyncio.create_task(standing.use(call.run.run_id, "c1", call.digest, asked, call.request))
        await asyncio.sleep(0.5)
        assert not using.done(), "it found the grant"
    assert await using is None
    assert await used(standing) == {grant.id: 0}


async def test_once_a_grant_is_revoked_it_lets_no_call_through_that_took_it_before(
    open_call: Callable[[str, int], Awaitable[Decision]], put_grant: PutGrant, standing: Standing
) -> None:
    grant = await put_grant(uses=2)
    assert (await open_call("c1", 0)).grant == grant.id
    await standing.revoke_grant("default", grant.id, "ada")
    assert (await open_call("c1", 1)).verdict is Verdict.ASK, "gated again, it is asked about"
