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
from tests.api.test_cli import command
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
    (("api.app",), "missing"), (("api.app",), "default"),
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
            file.write_bytes(base64.b64encode(bytes(32)) + b"\n")
            file.chmod(0o600)
    done = subprocess.run(
        [sys.executable, "-m", *program], env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True,
        timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    told = {None: "GATEHOUSE_ENCRYPTION_KEYS", "missing": "does not exist", "default": "not a random key"}[given]
    assert told in done.stdout + done.stderr
    assert not (tmp_path / "keys").exists()


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
