"""On PostgreSQL the processes' own role can add to the log and read it, and that is all."""

import secrets
from collections.abc import Iterator

import psycopg
import pytest
import sqlalchemy as sa
from sqlalchemy import exc
from sqlalchemy.engine import make_url

from tests.fixtures import postgres
from tests.fixtures.store import Server
from tests.worker.store.facts import fact, loose
from worker.store import grants
from worker.store.audit import AuditLog
from worker.store.database import Database


@pytest.fixture
def role(postgres_server: Server) -> Iterator[tuple[str, str]]:
    """An empty database's URL as its owner, and a role that has no rights yet."""
    url, name = postgres_server.create(), f"app_{secrets.token_hex(4)}"
    with psycopg.connect(postgres.plain(url), autocommit=True) as conn:
        conn.execute(f"CREATE ROLE {name} LOGIN".encode())
    yield url, name
    postgres_server.drop(url)
    with psycopg.connect(
        postgres.plain(url).replace(make_url(url).database or "", "postgres"), autocommit=True
    ) as conn:
        conn.execute(f"DROP ROLE {name}".encode())


async def test_the_role_adds_and_reads_and_nothing_else(role: tuple[str, str]) -> None:
    owner = Database(role[0])
    await grants.grant(owner, role[1])
    await owner.close()
    db = Database(make_url(role[0]).set(username=role[1]).render_as_string(hide_password=False))
    await db.migrate()  # finds that it is done
    log = AuditLog(db)
    await log.append(fact("run_a", 1), loose())
    async with db.begin() as conn:
        await log.append(fact("run_a", 2), conn=conn)
    assert (await log.verify()).count == 3
    for statement in (
        "UPDATE audit_event SET actor = 'nobody'", "DELETE FROM audit_event", "TRUNCATE audit_event",
        "ALTER TABLE audit_event DISABLE TRIGGER ALL", "DROP TABLE audit_event", "DELETE FROM audit_head",
        "INSERT INTO audit_head VALUES (2, 0, '')", "CREATE TABLE mine (id int)",
        "SET session_replication_role = replica",
    ):  # fmt: skip
        with pytest.raises(exc.ProgrammingError, match=r"permission denied|must be owner"):
            await _do(db, statement)
    with pytest.raises(exc.DBAPIError, match="only moves forward"):
        await _do(db, "UPDATE audit_head SET seq = 1")
    await _do(db, "UPDATE run SET phase = 'failed'")
    assert (await log.verify()).ok
    await db.close()


async def _do(db: Database, statement: str) -> None:
    async with db.begin() as conn:
        await conn.execute(sa.text(statement))


def test_a_role_is_a_plain_name() -> None:
    for name in ("app; DROP TABLE run", "App", "", "app-1"):
        with pytest.raises(ValueError, match="plain role name"):
            grants.statements(name)
