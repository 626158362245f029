"""Promises: on PostgreSQL a query that forgets the tenant still shows and takes rows of the request's tenant alone; a
connection that says nothing sees nothing; whoever serves all tenants sees all."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from pathlib import Path

import psycopg
import pytest
import sqlalchemy as sa
from psycopg import sql
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ProgrammingError

from policies.decision import Principal
from tests.api.running import running
from tests.fixtures import postgres
from tests.fixtures.store import Server
from worker.store import tenants
from worker.store.audit import AuditLog
from worker.store.database import Database
from worker.store.keys import ApiKeys
from worker.store.tables import api_key, metadata

ACME, OTHER = (Principal(id="alice", tenant=t, roles=("admin",)) for t in ("acme", "every tenant"))


@pytest.fixture
async def plain_url(postgres_server: Server) -> AsyncIterator[str]:
    """A database whose owner is an ordinary role: a superuser is bound by no policy."""
    url, role = postgres_server.create(), f"app_{secrets.token_hex(4)}"
    name = sql.Identifier(make_url(url).database or "")
    with psycopg.connect(postgres.plain(url), autocommit=True) as conn:
        conn.execute(sql.SQL("CREATE ROLE {} LOGIN").format(sql.Identifier(role)))
        conn.execute(sql.SQL("ALTER DATABASE {} OWNER TO {}").format(name, sql.Identifier(role)))
    yield make_url(url).set(username=role).render_as_string(hide_password=False)
    postgres_server.drop(url)
    with psycopg.connect(postgres.plain(postgres.sibling(url, "postgres")), autocommit=True) as conn:
        conn.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(role)))


async def test_a_forgotten_tenant_shows_nothing_of_others(plain_url: str, tmp_path: Path) -> None:
    db = Database(plain_url)
    await db.migrate()
    keys = ApiKeys(db, AuditLog(db), tmp_path / "keys")
    mine, _ = await keys.create("a", ACME)
    theirs, _ = await keys.create("b", OTHER)

    async def as_request(tenant: str) -> None:
        tenants.narrow_to(tenant)
        own = mine if tenant == "acme" else theirs
        assert [k.id for k in await keys.list(None)] == [own.id]
        async with db.begin() as conn:
            changed = await conn.execute(sa.update(api_key).values(name="taken over").returning(api_key.c.id))
            assert [row.id for row in changed] == [own.id]
        with pytest.raises(ProgrammingError, match="row-level security"):
            await keys.create("c", ACME if tenant != "acme" else OTHER)

    # At the same time, over one pool: what one request declares must not reach the next on its connection.
    await asyncio.gather(*(as_request(t) for t in ("acme", "every tenant") * 10))
    assert {k.id for k in await keys.list(None)} == {mine.id, theirs.id}
    await db.close()
    with psycopg.connect(postgres.plain(plain_url)) as conn:
        for silent in ("SELECT id FROM api_key", "SELECT id FROM run", "SELECT id FROM approval"):
            assert conn.execute(silent.encode()).fetchall() == []


async def test_every_table_of_a_tenant_is_fenced_or_said_not_to_be(plain_url: str) -> None:
    db = Database(plain_url)
    await db.migrate()
    async with db.read() as conn:
        fenced = {
            row.relname
            for row in await conn.execute(
                sa.text("SELECT relname FROM pg_class WHERE relrowsecurity AND relforcerowsecurity")
            )
        }
    await db.close()
    shared = {
        "audit_event",  # one chain runs through all tenants
        "switch", "switch_stop", "outbox", "delivery",  # an installation-wide stop, and the notices, cross tenants
        "idempotency_key",  # looked up by principal and key together
    }  # fmt: skip
    of_tenants = {table.name for table in metadata.sorted_tables if "tenant" in table.c}
    assert of_tenants == fenced | shared
    assert not fenced & shared


async def test_requests_are_narrowed(plain_url: str, tmp_path: Path) -> None:
    async with running(tmp_path, "127.0.0.1:1", database_url=plain_url) as api:
        run, other = await api.put_run("default"), await api.put_run("walled")
        mine, theirs = await api.client("admin"), await api.client("admin@walled", "admin")
        assert [r["id"] for r in (await mine.get("/runs")).json()["items"]] == [run.id]
        assert [r["id"] for r in (await theirs.get("/runs")).json()["items"]] == [other.id]
        assert (await theirs.get(f"/runs/{run.id}")).status_code == 404
        assert len((await mine.get("/keys")).json()["items"]) >= 1
        assert (await mine.post("/keys", json={"name": "k", "principal": "p", "roles": ["viewer"]})).status_code == 201
        # With a policy that shows narrowed connections nothing, each way in must find nothing.
        with psycopg.connect(postgres.plain(plain_url), autocommit=True) as conn:
            conn.execute(
                "ALTER POLICY own_tenant ON run USING (current_setting('gatehouse.every_tenant', true) = 'on')"
            )
        assert (await mine.get("/runs")).json()["items"] == []
        assert (await mine.get(f"/runs/{run.id}")).status_code == 404
