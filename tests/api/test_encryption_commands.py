"""`gatehouse encryption` works on files and shows no key but a new one; production does not start without its own."""

import asyncio
import base64
import os
import subprocess
import sys
from pathlib import Path

import pytest

from api.doctor.finding import Finding
from api.doctor.sealed import data_keys
from policies.decision import Principal
from tests.api.running import running
from tests.api.test_cli import command
from tests.fixtures.temporal import free_port
from worker.encryption import key_file
from worker.settings import Settings
from worker.storage import open_database
from worker.store import times
from worker.store.keyring import new_line, rotate
from worker.store.runs import Run, Runs


def test_keys_are_made_named_and_turned_over(tmp_path: Path) -> None:
    given = tmp_path / "data.keys"
    made = command("encryption", "new-key")
    given.write_text(made.out)
    given.chmod(0o600)
    env = {"GATEHOUSE_DATA": str(tmp_path / "data"), "GATEHOUSE_ENCRYPTION_KEYS": str(given)}
    first = command("encryption", "status", "--json", **env)
    assert command("encryption", "rotate", **env).code == 0
    second = command("encryption", "status", "--json", **env)
    assert [first.json["encrypts"], second.json["encrypts"]] == second.json["decrypt"]
    assert all(line not in second.out + second.err for line in given.read_text().split())
    assert not (tmp_path / "data").exists()


def test_a_file_that_is_no_keyring_is_an_error_with_its_remedy(tmp_path: Path) -> None:
    done = command("encryption", "status", GATEHOUSE_ENCRYPTION_KEYS=str(tmp_path / "none"))
    assert (done.code, "does not exist" in done.err) == (1, True)


WORKERS: list[tuple[str, ...]] = [("worker.main", "--queue", queue) for queue in ("runs", "models", "sandbox")]
REFUSED: list[tuple[tuple[str, ...], str | None]] = [
    *((program, None) for program in (("api.app",), ("worker.keeper",), *WORKERS)),
    # All open their keys in one place.
    (("api.app",), "missing"), (("api.app",), "default"), (("api.app",), "alone"), (("worker.keeper",), "alone"),
]  # fmt: skip


@pytest.mark.parametrize(("program", "given"), REFUSED, ids=[f"{p[-1]} {given}" for p, given in REFUSED])
def test_production_does_not_start_on_a_generated_missing_or_default_key(
    program: tuple[str, ...], given: str | None, tmp_path: Path
) -> None:
    env = {k: v for k, v in os.environ.items() if not k.startswith("GATEHOUSE_")}
    env |= {"GATEHOUSE_ENVIRONMENT": "production", "GATEHOUSE_DATA": str(tmp_path)}
    if given is not None:
        file = tmp_path.with_name(f"{tmp_path.name}.keys")
        env |= {"GATEHOUSE_ENCRYPTION_KEYS": str(file)}
        if given == "default":
            written(file, base64.b64encode(bytes(32)) + b"\n")
        if given == "alone":  # and nothing else that keys are hashed and answers signed with
            written(file, new_line())
    done = subprocess.run(
        [sys.executable, "-m", *program], env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True,
        timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    told = {
        None: "GATEHOUSE_ENCRYPTION_KEYS", "missing": "does not exist", "default": "not a random key",
        "alone": "no pepper, answer.pem",
    }[given]  # fmt: skip
    assert told in done.stdout + done.stderr
    assert not (tmp_path / "keys").exists()


def written(file: Path, content: bytes) -> None:
    file.write_bytes(content)
    file.chmod(0o600)


async def test_production_runs_on_keys_that_somebody_made(tmp_path: Path) -> None:
    data, given = tmp_path / "data", tmp_path / "data.keys"
    written(given, new_line())
    env = {
        "GATEHOUSE_ENVIRONMENT": "production", "GATEHOUSE_DATA": str(data), "GATEHOUSE_ENCRYPTION_KEYS": str(given)
    }  # fmt: skip
    create = ("keys", "create", "adam", "--role", "admin")
    refused = command(*create, **env)
    assert (refused.code, "gatehouse keys init" in refused.err) == (1, True)
    assert not (data / "keys").exists()
    assert command("keys", "init", **env).code == 0
    made = {path.name: path.read_bytes() for path in (data / "keys").iterdir()}
    assert "holds all" in command("keys", "init", **env).err
    assert {path.name: path.read_bytes() for path in (data / "keys").iterdir()} == made
    nobody = f"127.0.0.1:{free_port()}"
    async with running(data, nobody, environment="production", encryption_keys=given) as api:
        key = await asyncio.to_thread(command, *create, **env)
        assert key.code == 0, key.err
        told = {"Authorization": f"Bearer {key.out.strip()}"}
        assert (await api.anonymous().get("/runs", headers=told)).status_code == 200
    written(data / "keys" / "pepper", b"00" * 32)
    assert "not a random one" in command(*create, **env).err


def test_the_doctor_knows_what_lies_under_which_key(tmp_path: Path) -> None:
    settings = Settings(data=tmp_path)

    def look() -> dict[str, Finding]:
        return {found.what: found for found in data_keys(settings)}

    assert look()["data keys"].status == "ok"
    assert not (tmp_path / "keys").exists(), "looking makes nothing"

    async def put() -> None:
        db = open_database(settings)
        await db.migrate()
        moment, who = times.now(), Principal(id="olga")
        await Runs(db).insert(
            Run(id="run_1", tenant="default", automation="tidy", automation_version="1", digest="d", requester="olga",
                principal=who, inputs={}, created_at=moment, updated_at=moment)
        )  # fmt: skip
        await db.close()

    asyncio.run(put())
    assert look()["sealed columns"] == Finding("sealed columns", "ok", "2 values, all under the newest key")
    rotate(key_file(settings))
    assert (look()["sealed columns"].status, look()["sealed columns"].remedy) == ("warn", "gatehouse encryption reseal")
    key_file(settings).write_bytes(new_line())
    assert look()["sealed columns"].status == "fail"
    assert look()["sealed columns"].detail.startswith("2 values are sealed under keys that are not there")
