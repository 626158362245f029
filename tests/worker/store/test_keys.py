"""API keys: only the whole, living key opens anything, and the store could not betray it."""

import asyncio
import string
from datetime import timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from policies.decision import Principal
from worker.store import times
from worker.store.audit import AuditLog
from worker.store.database import Database
from worker.store.keyfiles import KeyFileUnsafe
from worker.store.keys import ApiKeys
from worker.store.tables import api_key

ALICE = Principal(id="alice", tenant="acme", roles=("operator", "approver"))


async def whose(keys: ApiKeys, plaintext: str) -> Principal | None:
    key = await keys.verify(plaintext)
    return key and key.principal


@pytest.fixture
def keys(db: Database, audit: AuditLog, tmp_path: Path) -> ApiKeys:
    return ApiKeys(db, audit, tmp_path / "keys")


async def test_a_key_stands_for_its_principal(keys: ApiKeys) -> None:
    key, plaintext = await keys.create("laptop", ALICE)
    assert plaintext.startswith(f"gh_{key.id}_")
    assert await whose(keys, plaintext) == ALICE


async def test_the_store_does_not_hold_the_key(keys: ApiKeys, db: Database, audit: AuditLog) -> None:
    _, plaintext = await keys.create("laptop", ALICE)
    secret = plaintext.rsplit("_", 1)[1]
    async with db.read() as conn:
        row = (await conn.execute(sa.select(api_key))).one()
    assert secret not in repr(row)
    assert secret.encode() not in b"".join([line async for line in audit.export()])


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.integers(0, 60), char=st.sampled_from(string.ascii_lowercase + string.digits + "_ ÄÀ\x00٣"))
async def test_a_key_with_one_wrong_character_opens_nothing(keys: ApiKeys, at: int, char: str) -> None:
    _, plaintext = await keys.create("laptop", ALICE)
    wrong = plaintext[:at] + char + plaintext[at + 1 :]
    if wrong != plaintext:
        assert await keys.verify(wrong) is None


@pytest.mark.parametrize("text", ["", "gh__", "gh_" + "0" * 12 + "_" + "0" * 39, "x" * 100_000])
async def test_nonsense_opens_nothing(keys: ApiKeys, text: str) -> None:
    assert await keys.verify(text) is None


async def test_a_revoked_key_opens_nothing_and_says_when(keys: ApiKeys, audit: AuditLog) -> None:
    key, plaintext = await keys.create("laptop", ALICE, actor="root")
    assert await keys.revoke("other", key.id) is None
    assert await whose(keys, plaintext) == ALICE
    revoked = await keys.revoke("acme", key.id, actor="root")
    assert revoked is not None
    assert revoked.revoked_at is not None
    assert await keys.verify(plaintext) is None
    assert await keys.revoke("acme", key.id, actor="somebody else") == revoked
    created, withdrawn = await audit.page(tenant="acme")
    assert (created.type, withdrawn.type, withdrawn.actor) == ("key.created", "key.revoked", "root")
    assert created.body["roles"] == ["operator", "approver"]


async def test_an_expired_key_opens_nothing(keys: ApiKeys) -> None:
    _, stale = await keys.create("old", ALICE, times.now() - timedelta(seconds=1))
    _, fresh = await keys.create("new", ALICE, times.now() + timedelta(hours=1))
    assert await keys.verify(stale) is None
    assert await whose(keys, fresh) == ALICE


async def test_keys_are_listed_for_their_tenant(keys: ApiKeys) -> None:
    first, _ = await keys.create("a", ALICE)
    second, _ = await keys.create("b", Principal(id="bob", tenant="other"))
    assert [k.id for k in await keys.list("acme")] == [first.id]
    assert [k.id for k in await keys.list(None)] == [second.id, first.id]


async def test_use_is_noted_at_most_once_a_minute(keys: ApiKeys, db: Database) -> None:
    key, plaintext = await keys.create("laptop", ALICE)
    await asyncio.gather(*(keys.verify(plaintext) for _ in range(5)))
    [first] = await keys.list("acme")
    assert first.last_used_at is not None
    await keys.verify(plaintext)
    assert [k.last_used_at for k in await keys.list("acme")] == [first.last_used_at]
    async with db.begin() as conn:
        earlier = first.last_used_at - timedelta(seconds=61)
        await conn.execute(sa.update(api_key).values(last_used_at=earlier))
    await keys.verify(plaintext)
    [later] = await keys.list("acme")
    assert later.last_used_at is not None
    assert later.last_used_at >= first.last_used_at
    assert later.id == key.id


async def test_another_pepper_opens_nothing(keys: ApiKeys, db: Database, audit: AuditLog, tmp_path: Path) -> None:
    _, plaintext = await keys.create("laptop", ALICE)
    assert await whose(ApiKeys(db, audit, tmp_path / "keys"), plaintext) == ALICE
    assert await ApiKeys(db, audit, tmp_path / "elsewhere").verify(plaintext) is None


async def test_a_pepper_others_can_read_is_refused(db: Database, audit: AuditLog, tmp_path: Path) -> None:
    ApiKeys(db, audit, tmp_path / "keys")
    (tmp_path / "keys" / "pepper").chmod(0o640)
    with pytest.raises(KeyFileUnsafe, match="chmod 600"):
        ApiKeys(db, audit, tmp_path / "keys")


async def test_a_successor_takes_over_within_the_grace(keys: ApiKeys, audit: AuditLog) -> None:
    expires = times.now() + timedelta(days=30)
    old, plaintext = await keys.create("laptop", ALICE, expires, scopes=("runs:*",))
    rotated = await keys.rotate("acme", old.id, grace=timedelta(hours=1), actor="root")
    assert rotated is not None
    new, successor = rotated
    assert (new.name, new.principal, new.scopes) == ("laptop", ALICE, ("runs:*",))
    assert new.expires_at is not None
    assert abs((new.expires_at - new.created_at) - timedelta(days=30)) < timedelta(minutes=1)
    assert await whose(keys, plaintext) == await whose(keys, successor) == ALICE
    assert (await audit.page(tenant="acme", type="key.rotated"))[0].body["successor"] == new.id
    assert await keys.rotate("acme", new.id, grace=timedelta(0)) is not None
    assert await keys.verify(successor) is None
    assert await keys.verify(plaintext) is not None, "its own grace is not touched"
    assert await keys.rotate("acme", new.id, grace=timedelta(hours=1)) is None, "an ended key has no successor"
    assert await keys.rotate("other", old.id, grace=timedelta(hours=1)) is None


async def test_rotating_never_prolongs_a_key(keys: ApiKeys) -> None:
    expires = times.now() + timedelta(minutes=5)
    old, _ = await keys.create("laptop", ALICE, expires)
    assert await keys.rotate("acme", old.id, grace=timedelta(hours=1)) is not None
    assert {k.id: k.expires_at for k in await keys.list("acme")}[old.id] == expires
