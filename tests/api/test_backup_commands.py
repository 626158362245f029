"""`gatehouse backup`: there and back, and what it refuses."""

from pathlib import Path

from tests.api.test_cli import command
from tests.fixtures.store import migrate


async def test_there_and_back(tmp_path: Path) -> None:
    data, out = tmp_path / "data", str(tmp_path / "out")
    data.mkdir()
    await migrate(f"sqlite:///{data / 'gatehouse.db'}")
    (tmp_path / "phrase").write_text("a passphrase for drills\n")
    phrase = ("--passphrase-file", str(tmp_path / "phrase"))

    refused = command("backup", "create", "--out", out, GATEHOUSE_DATA=str(data))
    assert (refused.code, "--without-keys" in refused.err) == (2, True)
    taken = command("backup", "create", "--out", out, *phrase, "--json", GATEHOUSE_DATA=str(data))
    assert (taken.code, taken.json["with_keys"], taken.json["store"]) == (0, True, "sqlite")
    assert command("backup", "verify", out).code == 0
    new = str(tmp_path / "new")
    refused = command("backup", "restore", out, GATEHOUSE_DATA=new)
    assert (refused.code, "passphrase" in refused.err) == (1, True)
    assert command("backup", "restore", out, *phrase, GATEHOUSE_DATA=new).code == 0
    assert (tmp_path / "new" / "gatehouse.db").exists()
    refused = command("backup", "restore", out, *phrase, GATEHOUSE_DATA=new)
    assert (refused.code, "already" in refused.err) == (1, True)
