"""`gatehouse encryption` works on files and shows no key but a new one; production does not start without its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.api.test_cli import command


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


@pytest.mark.parametrize("program", [("api.app",), ("worker.main", "--queue", "models")], ids=lambda p: p[0])
def test_production_does_not_start_on_a_generated_key(program: tuple[str, ...], tmp_path: Path) -> None:
    env = {k: v for k, v in os.environ.items() if not k.startswith("GATEHOUSE_")}
    env |= {"GATEHOUSE_ENVIRONMENT": "production", "GATEHOUSE_DATA": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-m", *program], env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True,
        timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "GATEHOUSE_ENCRYPTION_KEYS" in done.stdout + done.stderr
    assert not (tmp_path / "keys").exists()
