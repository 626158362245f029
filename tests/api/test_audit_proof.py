"""`gatehouse audit` as an auditor uses it: literal command lines, and no installation where none is needed."""

import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing as closing_sqlite
from pathlib import Path

import pytest

from api.doctor import auditing
from tests.worker.store.facts import calls, closing, fact, loose
from worker.settings import Settings
from worker.store import keyring
from worker.store.audit import AuditLog
from worker.store.checkpoints import CheckpointKey
from worker.store.database import Database


def gatehouse(folder: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "api.cli", *map(str, arguments)], capture_output=True, text=True, check=False,
        env={**os.environ, "GATEHOUSE_DATA": str(folder)},
    )  # fmt: skip


@pytest.fixture(scope="module")
async def house(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An installation with a log of 21 records, two of them beyond the checkpoint, and what an auditor was given."""
    folder = tmp_path_factory.mktemp("house")
    db = Database(f"sqlite:///{folder / 'gatehouse.db'}")
    await db.migrate()
    audit = AuditLog(db)
    await audit.append(*calls("run_a", 4), closing("run_a", 9), *calls("run_b", 4), loose(), fact("run_b", 1))
    given = json.loads(gatehouse(folder, "audit", "anchor", "--json").stdout)
    await audit.append(loose(), loose())
    await db.close()
    auditor = folder / "auditor"
    auditor.mkdir()
    shutil.copy(given["public_key"], auditor / "key.pub")
    shutil.copy(given["anchor"], auditor / "anchor.jsonl")
    assert gatehouse(folder, "audit", "export", "--out", auditor / "log.jsonl").returncode == 0
    return folder


def verify(house: Path, export: Path, *more: str) -> subprocess.CompletedProcess[str]:
    given = house / "auditor"
    return gatehouse(
        house / "nowhere", "audit", "verify", "--export", export, "--public-key", given / "key.pub", "--anchor",
        given / "anchor.jsonl", *more,
    )  # fmt: skip


def test_an_auditor_without_the_database_verifies_an_export(house: Path, tmp_path: Path) -> None:
    export = house / "auditor" / "log.jsonl"
    done = verify(house, export, "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout) | {"head": ""} == json.loads(done.stdout) | {
        "ok": True, "count": 21, "anchored": 19, "first_bad": None, "head": "",
    }  # fmt: skip
    lines = export.read_bytes().splitlines(keepends=True)
    changed = tmp_path / "changed.jsonl"
    changed.write_bytes(b"".join([*lines[:16], lines[16].replace(b"system", b"sYstem"), *lines[17:]]))
    done = verify(house, changed)
    assert (done.returncode, done.stdout.splitlines()[0].split(":")[0]) == (1, "record 17")
    changed.write_bytes(b"".join(lines[:12]))
    done = verify(house, changed, "--json")
    assert done.returncode == 1
    assert json.loads(done.stdout.splitlines()[0])["first_bad"] == 13


def test_what_cannot_be_verified_does_not_verify(house: Path, tmp_path: Path) -> None:
    export = house / "auditor" / "log.jsonl"
    assert gatehouse(house, "audit", "verify", "--export", export).returncode == 2
    stranger = verify(house, export, "--public-key", str(export))
    assert (stranger.returncode, stranger.stdout) == (2, ""), "that is no key"
    empty = tmp_path / "empty.jsonl"
    empty.write_bytes(b"")
    done = verify(house, empty)
    assert (done.returncode, done.stdout.split(":")[0]) == (1, "record 1")


def test_proofs_go_from_hand_to_hand(house: Path, tmp_path: Path) -> None:
    given, proof = house / "auditor", tmp_path / "proof.json"
    made = gatehouse(house, "audit", "prove", "7")
    assert made.returncode == 0, made.stderr
    proof.write_text(made.stdout)
    key = ("--public-key", given / "key.pub")
    done = gatehouse(tmp_path, "audit", "verify", "--proof", proof, *key)
    assert (done.returncode, done.stdout.startswith("proved: record 7 is in the log of 19")) == (0, True)
    proof.write_text(made.stdout.replace("read_file", "read_fils"))
    assert gatehouse(tmp_path, "audit", "verify", "--proof", proof, *key).returncode == 1
    assert gatehouse(house, "audit", "prove", "20").returncode == 1, "nobody signed for it"
    assert gatehouse(house, "audit", "verify").returncode == 0


def test_an_export_goes_on_where_it_ended_and_speaks_to_a_siem(house: Path, tmp_path: Path) -> None:
    log, events = tmp_path / "log.jsonl", tmp_path / "events.jsonl"
    whole = (house / "auditor" / "log.jsonl").read_bytes()
    log.write_bytes(b"".join(whole.splitlines(keepends=True)[:15]))
    assert gatehouse(house, "audit", "export", "--out", log, "--after", "15").returncode == 0
    assert log.read_bytes() == whole
    assert gatehouse(house, "audit", "export", "--format", "ocsf", "--after", "8", "--out", events).returncode == 0
    told = [json.loads(line) for line in events.read_bytes().splitlines()]
    assert [event["metadata"]["sequence"] for event in told] == list(range(9, 22))
    assert [event["unmapped"]["gatehouse"] for event in told] == [json.loads(line) for line in whole.splitlines()[8:]]
    for event in told:
        assert event["type_uid"] == event["class_uid"] * 100 + event["activity_id"]
        refused = event["api"]["operation"] == "access.denied"
        assert (event["status_id"], event["severity_id"]) == ((2, 3) if refused else (1, 1))


def test_an_export_speaks_cef(house: Path, tmp_path: Path) -> None:
    events = tmp_path / "events.cef"
    assert gatehouse(house, "audit", "export", "--format", "cef", "--out", events).returncode == 0
    whole = events.read_bytes()
    events.write_bytes(b"".join(whole.splitlines(keepends=True)[:10]))
    assert gatehouse(house, "audit", "export", "--format", "cef", "--after", "10", "--out", events).returncode == 0
    assert events.read_bytes() == whole, "it goes on where it ended"
    records = [json.loads(line) for line in (house / "auditor" / "log.jsonl").read_bytes().splitlines()]
    lines = events.read_text().split("\n")[:-1]
    assert len(lines) == len(records)
    for line, record in zip(lines, records, strict=True):
        head, extension = line.split("|", 7)[:7], line.split("|", 7)[7]
        assert (head[0], head[1], head[4]) == ("CEF:0", "Gatehouse", record["type"])
        assert f" cn1={record['seq']} " in extension
        body = re.search(r" cs3=(.*) cs4Label=leaf_hash cs4=([0-9a-f]{64})$", extension)
        assert body is not None
        assert json.loads(re.sub(r"\\([\\=])", r"\1", body[1])) == record["body"]
        assert body[2] == record["leaf_hash"]
        assert ("outcome=failure" in extension) == (record["type"] == "access.denied")


def test_an_export_is_searched_without_an_installation(house: Path, tmp_path: Path) -> None:
    export = house / "auditor" / "log.jsonl"
    records = [json.loads(line) for line in export.read_bytes().splitlines()]

    def found(*wanted: str) -> list[int]:
        done = gatehouse(tmp_path / "nowhere", "audit", "search", "--export", export, "--json", *wanted)
        assert done.returncode == (0 if done.stdout else 1), done.stderr
        return [json.loads(line)["seq"] for line in done.stdout.splitlines()]

    assert found("--run", "run_b", "--type", "call.outcome") == [
        r["seq"] for r in records if (r["run_id"], r["type"]) == ("run_b", "call.outcome")
    ]
    assert found("--actor", "mallory", "--since", records[19]["ts"]) == [20, 21]
    assert found("--until", records[19]["ts"], "--after", "17") == [18, 19]
    assert found("--text", "zwölf", "--after", "3", "--limit", "2") == [4, 6]
    assert found("--actor", "nobody") == []
    done = gatehouse(tmp_path, "audit", "search", "--export", export, "--since", "yesterday")
    assert (done.returncode, done.stdout) == (2, "")
    broken = tmp_path / "broken.jsonl"
    broken.write_bytes(export.read_bytes().replace(b'{"actor"', b"{actor", 2))
    done = gatehouse(tmp_path, "audit", "search", "--export", broken)
    assert (done.returncode, "line 1 is not a record" in done.stderr) == (2, True)


def test_the_doctor_says_how_the_log_is_kept(house: Path, tmp_path: Path) -> None:
    settings = Settings(data=house)
    told = {finding.what: finding for finding in auditing.examine(settings)}
    assert (told["audit log"].status, told["audit log"].detail) == ("ok", "21 records, last heartbeat never")
    assert told["audit anchor"].status == "ok"
    assert told["audit anchor"].detail.startswith("checkpoint of 19 records, ")
    nothing = {finding.what: finding for finding in auditing.examine(Settings(data=tmp_path))}
    assert [(f.what, f.status) for f in nothing.values()] == [("audit log", "ok")]
    elsewhere = {f.what: f for f in auditing.examine(Settings(data=house, audit_anchor=tmp_path / "none"))}
    assert elsewhere["audit anchor"].status == "warn"
    assert elsewhere["audit anchor"].remedy == "gatehouse audit anchor"
    broken = tmp_path / "broken"
    broken.write_bytes(b"no anchor\n")
    told = {f.what: f for f in auditing.examine(Settings(data=house, audit_anchor=broken))}
    assert told["audit anchor"].status == "fail"


def test_a_key_of_the_installation_changes_on_record_or_not_at_all(house: Path, tmp_path: Path) -> None:
    """A log that takes no record lets no key be changed or revoked."""
    folder = tmp_path / "data"
    shutil.copytree(house, folder)
    keyring.open_generated(Settings(data=folder).keys / "data.keys")
    changed = json.loads(gatehouse(folder, "keys", "rotate-answers", "--json").stdout)
    with closing_sqlite(sqlite3.connect(folder / "gatehouse.db")) as store:
        store.execute(
            "CREATE TRIGGER refused BEFORE INSERT ON audit_event BEGIN SELECT RAISE(ABORT, 'the log is shut'); END"
        )
    keys = Settings(data=folder).keys
    before = {path: path.read_bytes() for path in (*keys.iterdir(), Settings(data=folder).anchor)}
    for command in (
        ("keys", "rotate-answers"), ("keys", "revoke-answers", changed["old"]), ("encryption", "rotate"),
        ("audit", "rotate-key"),
    ):  # fmt: skip
        done = gatehouse(folder, *command)
        assert (done.returncode, "the log is shut" in done.stderr) == (1, True)
    assert {path: path.read_bytes() for path in before} == before
    assert set(keys.iterdir()) < set(before)
    with closing_sqlite(sqlite3.connect(folder / "gatehouse.db")) as store:
        store.execute("DROP TRIGGER refused")
    for command in ("keys", "revoke-answers", changed["old"]), ("encryption", "rotate"), ("audit", "rotate-key"):
        assert gatehouse(folder, *command).returncode == 0
    data = keyring.open_generated(keys / "data.keys").ids
    [signed] = [path.name[11:19] for path in keys.glob("checkpoint-*.pub") if path not in before]
    old_key = CheckpointKey.parse(before[keys / "checkpoint.key"]).public.hash.hex()
    told = [json.loads(line) for line in gatehouse(folder, "audit", "export").stdout.splitlines()]
    assert [(r["type"], r["body"]) for r in told if "_key." in r["type"]] == [
        ("answer_key.rotated", {"from": changed["old"], "to": changed["new"]}),
        ("answer_key.revoked", {"key_id": changed["old"]}),
        ("data_key.rotated", {"from": data[0], "to": data[1]}),
        ("checkpoint_key.rotated", {"from": old_key, "to": signed}),
    ]
    assert json.loads(gatehouse(folder, "audit", "verify", "--json").stdout)["anchored"] == told[-1]["seq"]
