"""Grants at the gate, whatever is tried again: a call goes by the one grant it took, a recorded decision takes none."""

from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

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
from worker.store.signing import load_or_create, public_keys
from worker.store.standing import Standing
from workflows.contracts import CallOpened

PutGrant = Callable[..., Awaitable[Grant]]


@pytest.fixture
def standing(audit: AuditLog, tmp_path: Path) -> Standing:
    load_or_create(tmp_path)
    return Standing(audit.db, audit, public_keys(tmp_path))


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
