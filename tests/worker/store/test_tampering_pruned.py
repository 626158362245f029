"""A log with bodies that retention removed: thousands of changes, each found offline, the right record named."""

import json
import random
import shutil
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.worker.store.facts import calls, closing, fact, loose
from tests.worker.store.test_tampering import MUTATIONS, WAYS, Changed, Exported, in_parts, linked, try_all
from tools.contract import canonical_json
from worker.store import anchor, emptying, times
from worker.store.audit import AuditLog
from worker.store.checkpoints import CheckpointKey, Publisher, load_or_create, public_path
from worker.store.database import Database
from worker.store.lines import parse
from worker.store.note import parse_keys
from worker.store.retention import Policy, Retention


@pytest.fixture(scope="module")
async def pruned(sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """The same kind of log two years later: the bodies of its closed runs were removed, and it went on."""
    folder = tmp_path_factory.mktemp("pruned")
    path = folder / "gatehouse.db"
    shutil.copy(sqlite_template, path)
    db = Database(f"sqlite:///{path}")
    audit = AuditLog(db)
    publisher = Publisher(db, folder / "keys", folder / "anchor" / "audit.jsonl")
    key = load_or_create(folder / "keys")
    with pytest.MonkeyPatch.context() as then:
        long_ago = times.now() - timedelta(days=730)
        then.setattr(times, "now", lambda: long_ago)
        for n in range(3):
            run = f"run_{n}"
            await audit.append(*calls(run, 3), fact(run, 1), closing(run, 8), loose())
    publisher.publish()
    held = anchor.read(folder / "anchor" / "audit.jsonl", parse_keys(key.public.line()))
    await Retention(audit, Policy(365)).run(held, key)
    await audit.append(*calls("run_9", 2), closing("run_9", 5))
    publisher.publish()
    export = folder / "log.jsonl"
    export.write_bytes(b"".join([line async for line in audit.export()]))
    await db.close()
    held = anchor.read(folder / "anchor" / "audit.jsonl", parse_keys(key.public.line()))
    lines = export.read_bytes().splitlines()
    assert held.size == len(lines) == 33
    assert sum(b'"body":null' in line for line in lines) == 24
    return Exported(lines, held, export, public_path(folder / "keys", key), folder / "anchor" / "audit.jsonl")


def remove(lines: list[bytes], dice: random.Random) -> Changed:
    """A body removed, that no retention removed; the hashes left as they were."""
    at = dice.choice([n for n, line in enumerate(lines) if b'"body":null' not in line])
    return [*lines[:at], _without_body(lines[at]), *lines[at + 1 :]], at + 1


def _without_body(line: bytes) -> bytes:
    return canonical_json({**json.loads(line), "body": None})


def relabel(lines: list[bytes], dice: random.Random) -> Changed:
    """Another value in what is left of a pruned record, which no hash of its own can show."""
    at = dice.choice([n for n, line in enumerate(lines) if b'"body":null' in line])
    record: dict[str, Any] = json.loads(lines[at])
    field = dice.choice(["actor", "event_id", "tenant", "ts", "type", "run_id"])
    others = [json.loads(line)[field] for line in lines if json.loads(line)[field] != record[field]]
    other = dice.choice(others or ["default2"])
    return [*lines[:at], canonical_json({**record, field: other}), *lines[at + 1 :]], at + 1


def relabel_and_cover(lines: list[bytes], dice: random.Random) -> Changed:
    """The same, and a record appended that claims to cover it: chained as it must be, signed by another key."""
    changed, at = relabel(lines, dice)
    left = {at: emptying.remains(parse(changed[at - 1]).envelope)}
    forger = CheckpointKey(_name(lines), dice.randbytes(32))
    body = emptying.covering({"tenant": "default", "before": "2026-01-01T00:00:00.000000Z"}, left, forger)
    record = {**json.loads(_pruning(lines)), "event_id": "pruned_forged", "body": body}
    last = linked(canonical_json(record), len(lines) + 1, parse(lines[-1]).chain)
    return [*changed, last], at


def forge_cover(lines: list[bytes], dice: random.Random) -> Changed:
    """A record of retention appended that nobody signed for, over a body that was removed meanwhile: the record is
    the lie that can be named, for without it the body's removal would be one."""
    changed, at = remove(lines, dice)
    left = {at: emptying.remains(parse(changed[at - 1]).envelope)}
    forger = CheckpointKey(_name(lines), dice.randbytes(32))
    record = {**json.loads(_pruning(lines)), "event_id": "pruned_forged"}
    record["body"] = emptying.covering({"tenant": "default"}, left, forger)
    last = linked(canonical_json(record), len(lines) + 1, parse(lines[-1]).chain)
    # These two are never emptied, whatever covers them.
    never = json.loads(changed[at - 1])["type"] in ("retention.pruned", "run.closed")
    return [*changed, last], at if never else len(lines) + 1


def _pruning(lines: list[bytes]) -> bytes:
    return next(line for line in lines if b'"type":"retention.pruned"' in line)


def _name(lines: list[bytes]) -> str:
    """The log's name, which stands in the signature."""
    note = str(json.loads(_pruning(lines))["body"]["note"])
    return note.rpartition("\n\n")[2].split(" ")[1]


async def test_every_change_of_a_pruned_log_is_found_and_the_right_record_named(pruned: Exported) -> None:
    try_all(pruned, [*WAYS, remove, relabel, relabel, relabel_and_cover, forge_cover], MUTATIONS // 2)


def test_a_pruned_log_is_checked_from_the_beginning(pruned: Exported) -> None:
    """A part knows neither what covers its records nor the key that signed it."""
    for many in range(1, 20):
        assert in_parts(pruned.lines, pruned, many) is None
