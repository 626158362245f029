"""`gatehouse retention`, the keeper that does it by itself, and the PostgreSQL role that may: what is old goes
once it is due, a hold keeps it, and the log verifies."""

import asyncio
import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from sqlalchemy.engine import make_url
from typer.testing import CliRunner

from api.cli import app
from api.commands.session import CommandError
from tests.api.test_cli import Done
from tests.fixtures import postgres
from tests.fixtures.store import Server
from tests.worker.store.facts import calls, closing
from worker.keeper.retaining import Retaining
from worker.settings import Settings
from worker.storage import open_database
from worker.store import times
from worker.store.audit import AuditLog
from worker.store.checkpoints import Publisher
from worker.store.emptying import EMPTY


class House:
    """An installation with two runs that closed two years ago, under a checkpoint."""

    def __init__(self, data: Path, url: str | None = None) -> None:
        self.settings = Settings(data=data, database_url=url, retention_days=365)
        self.env = {"GATEHOUSE_DATA": str(data), "GATEHOUSE_RETENTION_DAYS": "365"}
        self.env |= {} if url is None else {"GATEHOUSE_DATABASE_URL": url}

    async def fill(self) -> None:
        db, long_ago = open_database(self.settings), times.now() - timedelta(days=730)
        with pytest.MonkeyPatch.context() as then:
            then.setattr(times, "now", lambda: long_ago)
            await db.migrate()
            for n in (1, 2):
                await AuditLog(db).append(*calls(f"run_{n}", 2), closing(f"run_{n}", 5))
        await db.close()
        Publisher(db, self.settings.keys, self.settings.anchor).publish()

    async def emptied(self) -> list[int]:
        db = open_database(self.settings)
        async with db.read() as conn:
            rows = (await conn.execute(sa.text("SELECT seq, body FROM audit_event ORDER BY seq"))).all()
        await db.close()
        return [seq for seq, body in rows if bytes(body) == EMPTY]

    def __call__(self, *arguments: str, **env: str | None) -> Done:
        kept = {name: None for name in os.environ if name.startswith("GATEHOUSE_")}
        done = CliRunner().invoke(app, list(arguments), env={**kept, **self.env, **env})
        if isinstance(done.exception, CommandError):
            error = done.exception
            return Done(int(error.code), done.stdout, f"{done.stderr}{error.problem}\n{error.remedy}")
        return Done(done.exit_code, done.stdout, done.stderr)


@pytest.fixture
def house(tmp_path: Path) -> House:
    made = House(tmp_path / "data")
    made.settings.data.mkdir()
    asyncio.run(made.fill())
    return made


def test_what_is_due_goes_when_told_and_a_hold_keeps_it(house: House) -> None:
    def due(**env: str) -> dict[str, Any]:
        [found] = house("retention", "status", "--json", **env).json["due"]
        return {name: found[name] for name in ("tenant", "records", "held")}

    assert due() == {"tenant": "default", "records": 8, "held": 0}
    assert "nothing was removed" in house("retention", "run").err
    held = house("retention", "hold", "--run", "run_1", "--reason", "case 17")
    assert (held.code, due()["held"]) == (0, 4)
    assert "case 17" in house("retention", "status").out
    done = house("retention", "run", "--yes", "--json").json
    assert (done["removed"], done["passes"][0]["records"]) == (True, 4)
    assert asyncio.run(house.emptied()) == [6, 7, 8, 9]
    assert house("retention", "release", held.out.strip(), "--reason", "settled").code == 0
    again = house("retention", "release", held.out.strip(), "--reason", "settled")
    assert (again.code, "in force" in again.err) == (1, True)
    assert house("retention", "run", "--yes").code == 0
    assert asyncio.run(house.emptied()) == [1, 2, 3, 4, 6, 7, 8, 9]
    assert house("audit", "verify").code == 0


def test_what_cannot_be_done_is_told(house: House) -> None:
    refused = house("retention", "hold", "--reason", " ")
    assert (refused.code, "reason" in refused.err) == (2, True)
    refused = house("retention", "hold", "--reason", "x", "--since", "2026-02-01", "--until", "2026-01-01")
    assert refused.code == 2
    without = house("retention", "status", GATEHOUSE_RETENTION_DAYS=None)
    assert "GATEHOUSE_RETENTION_DAYS" in without.out + without.err
    house.settings.anchor.write_text("{}\n")
    refused = house("retention", "run", "--yes")
    assert (refused.code, "nothing can be removed" in refused.err) == (1, True)
    assert asyncio.run(house.emptied()) == []


def test_the_keeper_does_it_by_itself(house: House) -> None:
    kept = {k: v for k, v in os.environ.items() if not k.startswith("GATEHOUSE_")}
    env = kept | house.env | {"GATEHOUSE_TEMPORAL_ADDRESS": "127.0.0.1:1"}
    keeper = subprocess.Popen([sys.executable, "-m", "worker.keeper"], env=env)

    async def enough() -> None:
        async with asyncio.timeout(240):
            while len(await house.emptied()) < 8:
                assert keeper.poll() is None
                await asyncio.sleep(0.05)

    try:
        asyncio.run(enough())
    finally:
        keeper.terminate()
        keeper.wait(60)
    assert house("audit", "verify").code == 0


@pytest.fixture
def roles(postgres_server: Server) -> Iterator[tuple[str, str, str]]:
    """An empty database's URL as its owner, and two roles that have no rights yet."""
    url, names = postgres_server.create(), [f"app_{secrets.token_hex(4)}" for _ in range(2)]
    with psycopg.connect(postgres.plain(url), autocommit=True) as conn:
        for name in names:
            conn.execute(f"CREATE ROLE {name} LOGIN".encode())
    yield url, names[0], names[1]
    admin = postgres.plain(postgres.sibling(url, "postgres"))
    postgres_server.drop(url)
    with psycopg.connect(admin, autocommit=True) as conn:
        for name in names:
            conn.execute(f"DROP ROLE {name}".encode())


def test_on_postgresql_only_a_role_that_was_let_may_empty_bodies(roles: tuple[str, str, str], tmp_path: Path) -> None:
    url, plain, retaining = roles
    house = House(tmp_path, url)
    assert house("audit", "grants", plain).code == 0
    assert house("audit", "grants", "--retention", retaining).code == 0
    asyncio.run(house.fill())

    def as_role(name: str) -> House:
        return House(tmp_path, make_url(url).set(username=name).render_as_string(hide_password=False))

    async def look(name: str) -> None:
        settings = as_role(name).settings
        db = open_database(settings)
        await Retaining(AuditLog(db), settings).look()
        await db.close()

    asyncio.run(look(plain))  # tells it, and ends nothing else
    refused = as_role(plain)("retention", "run", "--yes")
    assert (refused.code, "--retention" in refused.err) == (1, True)
    assert asyncio.run(house.emptied()) == []
    asyncio.run(look(retaining))
    assert len(asyncio.run(house.emptied())) == 8
    assert as_role(plain)("audit", "verify").code == 0
