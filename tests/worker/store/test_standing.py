"""Grants and delegations in the store: only what was signed counts, whatever the columns say, and only its tenant ends
it."""

from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from policies.decision import Principal
from policies.signatures import DELEGATION, GRANT
from policies.standing import Delegation, Grant
from worker.store import times
from worker.store.audit import AuditLog
from worker.store.database import Database
from worker.store.ids import new_id
from worker.store.signing import load_or_create
from worker.store.standing import Standing
from worker.store.tables import delegation

RUTH, BEA, EVE = (Principal(id=name, roles=("approver",)) for name in ("ruth", "bea", "eve"))
Put = Callable[..., Awaitable[Delegation]]


@pytest.fixture
def put(standing: Standing, tmp_path: Path) -> Put:
    """Ruth is away for an hour and Bea answers for her."""

    async def made(*, signed: bool = True, **changes: Any) -> Delegation:
        now = times.now()
        values: dict[str, Any] = {
            "id": new_id("dlg"), "absent": RUTH, "stand_in": "bea", "until": now + timedelta(hours=1),
            "created_by": "ruth", "created_at": now, **changes,
        }  # fmt: skip
        said = Delegation.model_validate(values)
        said = load_or_create(tmp_path).sign(said, DELEGATION) if signed else said
        await standing.add_delegation(said)
        return said

    return made


async def answers_for(standing: Standing, principal: Principal) -> set[str]:
    """For whom the principal answers now; both ways to ask must agree."""
    now = times.now()
    told = {absent.id for absent in await standing.absentees(principal, now)}
    assert told == {name for name in ("ruth", "ray") if await standing.absent(principal, name, now) is not None}
    return told


async def test_a_stand_in_is_told_for_whom_until_it_ends(standing: Standing, put: Put) -> None:
    made = await put()
    await put(absent=Principal(id="ray", roles=("approver",)), stand_in="eve")
    await put(absent=Principal(id="ray", tenant="other", roles=("approver",)))
    assert (await answers_for(standing, BEA), await answers_for(standing, EVE)) == ({"ruth"}, {"ray"})
    assert await standing.revoke_delegation("default", made.id, "ruth")
    assert await answers_for(standing, BEA) == set()


async def test_a_delegation_nobody_signed_lets_nobody_answer(standing: Standing, put: Put) -> None:
    await put(signed=False)
    assert await answers_for(standing, BEA) == set()


@pytest.mark.parametrize("column", ["stand_in", "until", "absent"])
async def test_what_the_columns_say_cannot_widen_what_was_signed(
    standing: Standing, put: Put, db: Database, column: str
) -> None:
    now = times.now()
    made = await put(until=now + timedelta(hours=-1 if column == "until" else 1))
    widened: dict[str, Any] = {"stand_in": "eve", "until": now + timedelta(days=9), "absent": "ray"}
    async with db.begin() as conn:
        changed = sa.update(delegation).where(delegation.c.id == made.id).values({column: widened[column]})
        await conn.execute(changed)
    for principal, absent in ((EVE, "ruth"), (BEA, "ray"), *([(BEA, "ruth")] if column == "until" else [])):
        assert await standing.absent(principal, absent, now) is None
    assert await standing.absentees(EVE, now) == []


async def test_what_is_ended_is_ended_once_and_by_its_own_tenant(
    standing: Standing, put: Put, audit: AuditLog, tmp_path: Path
) -> None:
    made, now = await put(), times.now()
    grant = Grant(
        id=new_id("grant"), tenant="default", automation="a", tool="t", uses=1, until=now + timedelta(days=1),
        created_by="ruth", created_at=now,
    )  # fmt: skip
    await standing.add_grant(load_or_create(tmp_path).sign(grant, GRANT))
    assert await standing.revoke_grant("other", grant.id, "eve") is None
    assert not await standing.revoke_delegation("other", made.id, "eve")
    assert await standing.revoke_delegation("default", made.id, "ruth")
    assert not await standing.revoke_delegation("default", made.id, "ada")
    for by in ("ruth", "ada"):
        ended = await standing.revoke_grant("default", grant.id, by)
        assert ended is not None
        assert ended.revoked_by == "ruth", "whoever was first"
    for kind in ("grant.revoked", "delegation.revoked"):
        assert [event.actor for event in await audit.page(tenant="default", type=kind)] == ["ruth"]
