"""Ten thousand ways to change an exported log, each found without the database, and the right record named."""

import io
import itertools
import json
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.worker.store.facts import calls, closing, fact, loose
from tools.contract import canonical_json
from worker.store import anchor, chain, parts
from worker.store.anchor import Vouched
from worker.store.audit import AuditLog
from worker.store.checking import BadRecord, LogCheck
from worker.store.checkpoints import Publisher, load_or_create, public_path
from worker.store.database import Database
from worker.store.lines import parse
from worker.store.note import parse_keys
from worker.store.offline import check_lines, verify_export

MUTATIONS = 10_000
KEYS = ("chain_hash", "leaf_hash", "seq")


@dataclass
class Exported:
    """A log as an auditor holds it."""

    lines: list[bytes]
    vouched: Vouched
    export: Path
    key: Path
    anchor: Path


@pytest.fixture(scope="module")
async def exported(sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """A real log of five runs, with three checkpoints, exported."""
    folder = tmp_path_factory.mktemp("exported")
    path = folder / "gatehouse.db"
    shutil.copy(sqlite_template, path)
    db = Database(f"sqlite:///{path}")
    audit = AuditLog(db)
    publisher = Publisher(db, folder / "keys", folder / "anchor" / "audit.jsonl")
    for n in range(5):
        run = f"run_{n}"
        await audit.append(*calls(run, 3))
        await audit.append(fact(run, 1, words='ünï "quoted" ,"chain_hash":" \\'), loose())
        await audit.append(closing(run, 8))
        if n % 2 == 0:
            publisher.publish()
    export = folder / "log.jsonl"
    export.write_bytes(b"".join([line async for line in audit.export()]))
    await db.close()
    key = load_or_create(folder / "keys")
    held = anchor.read(folder / "anchor" / "audit.jsonl", parse_keys(key.public.line()))
    lines = export.read_bytes().splitlines()
    assert held.size == len(lines) == 45
    return Exported(lines, held, export, public_path(folder / "keys", key), folder / "anchor" / "audit.jsonl")


Changed = tuple[list[bytes], int]
"""The lines, and the number of the record that must be named."""


def flip(lines: list[bytes], dice: random.Random) -> Changed:
    """One bit anywhere, line breaks included."""
    data = bytearray(b"".join(line + b"\n" for line in lines))
    at = dice.randrange(len(data))
    data[at] ^= 1 << dice.randrange(8)
    number = sum(1 for _ in itertools.takewhile(lambda end: end <= at, _ends(lines))) + 1
    return list(parts.split(io.BytesIO(data))), number


def _ends(lines: list[bytes]) -> list[int]:
    return list(itertools.accumulate(len(line) + 1 for line in lines))


def edit(lines: list[bytes], dice: random.Random) -> Changed:
    """Another value in one field, the hashes left as they were."""
    at = dice.randrange(len(lines))
    record: dict[str, Any] = json.loads(lines[at])
    field = dice.choice(sorted(record))
    record[field] = _other(field, record[field], dice)
    return [*lines[:at], canonical_json(record), *lines[at + 1 :]], at + 1


def _other(field: str, value: Any, dice: random.Random) -> Any:
    if field == "body":
        value = value or {}
        key = dice.choice(sorted(value)) if value else "new"
        return {**value, key: [value.get(key), "and more"]} if dice.random() < 0.7 else {**value, f"{key}_": 1}
    if isinstance(value, int):
        return dice.choice([n for n in range(1, 60) if n != value])
    if field in ("leaf_hash", "chain_hash"):
        return bytes(dice.randrange(256) for _ in range(32)).hex()
    return dice.choice(["", f"{value}x", "system:nobody", None, 7, "run_0", "default2"])


def delete(lines: list[bytes], dice: random.Random) -> Changed:
    at, many = dice.randrange(len(lines)), dice.randint(1, 4)
    return [*lines[:at], *lines[at + many :]], at + 1


def cut(lines: list[bytes], dice: random.Random) -> Changed:
    at = dice.randrange(len(lines))
    rest = [lines[at][: dice.randrange(1, len(lines[at]))] + b" (cut off)"] if dice.random() < 0.5 else []
    return [*lines[:at], *rest], at + 1


def reorder(lines: list[bytes], dice: random.Random) -> Changed:
    first, second = sorted(dice.sample(range(len(lines)), 2))
    changed = [*lines]
    if dice.random() < 0.5:
        changed[first], changed[second] = changed[second], changed[first]
    elif dice.random() < 0.5:
        changed.insert(second, changed.pop(first))
    else:
        changed.insert(first, changed.pop(second))
    return changed, first + 1


def repeat(lines: list[bytes], dice: random.Random) -> Changed:
    at = dice.randrange(len(lines))
    where = dice.randrange(at + 1, len(lines) + 1)
    return [*lines[:where], lines[at], *lines[where:]], at + 1


def overwrite(lines: list[bytes], dice: random.Random) -> Changed:
    """A copy of one record in the place of another."""
    source, at = dice.sample(range(len(lines)), 2)
    return [*lines[:at], lines[source], *lines[at + 1 :]], at + 1


def insert(lines: list[bytes], dice: random.Random) -> Changed:
    """A record that never was, with right hashes and the number of its place; the rest stays."""
    at = dice.randrange(len(lines))
    return [*lines[:at], linked(_forged(lines, at, dice), at + 1, _chain_before(lines, at)), *lines[at:]], at + 1


def forge(lines: list[bytes], dice: random.Random) -> Changed:
    """Records changed, dropped, put in, copied or swapped, and every hash and number after them computed anew."""
    at = dice.randrange(len(lines) - 1)
    how = dice.randrange(5)
    if how == 0:
        body = [_forged(lines, at, dice), *lines[at + 1 :]]
    elif how == 1:
        body = lines[at + 1 :]
    elif how == 2:
        body = [_forged(lines, at, dice), *lines[at:]]
    elif how == 3:
        body = [lines[dice.choice([n for n in range(len(lines)) if n != at])], *lines[at:]]
    else:
        body = [lines[at + 1], lines[at], *lines[at + 2 :]]
    if dice.random() < 0.3:
        body = body[: dice.randint(1, len(body))]
    return [*lines[:at], *_rechained(body, at, _chain_before(lines, at))], at + 1


def drop_outcome(lines: list[bytes], dice: random.Random) -> Changed:
    """A call's outcome taken out, the run's count and numbers and all hashes made to fit."""
    at = dice.choice([n for n, line in enumerate(lines) if b'"type":"call.outcome"' in line])
    run = json.loads(lines[at])["run_id"]
    rest: list[bytes] = []
    for line in lines[at + 1 :]:
        record = json.loads(line)
        if record["run_id"] == run:
            record["run_seq"] -= 1
            if record["type"] == "run.closed":
                record["body"]["records"] -= 1
        rest.append(canonical_json(record))
    return [*lines[:at], *_rechained(rest, at, _chain_before(lines, at))], at + 1


def _chain_before(lines: list[bytes], at: int) -> bytes:
    return parse(lines[at - 1]).chain if at else chain.GENESIS


def _forged(lines: list[bytes], at: int, dice: random.Random) -> bytes:
    record: dict[str, Any] = json.loads(lines[at])
    record["body"] = {**(record["body"] or {}), "forged": dice.randrange(1 << 40)}
    return canonical_json(record)


def linked(line: bytes, seq: int, before: bytes) -> bytes:
    record: dict[str, Any] = json.loads(line)
    envelope = canonical_json({key: value for key, value in record.items() if key not in KEYS})
    leaf = chain.sha256(b"\x00" + envelope).digest()
    record |= {"seq": seq, "leaf_hash": leaf.hex(), "chain_hash": chain.chain_hash(before, seq, leaf).hex()}
    return canonical_json(record)


def _rechained(lines: list[bytes], start: int, before: bytes) -> list[bytes]:
    done: list[bytes] = []
    for seq, line in enumerate(lines, start + 1):
        done.append(linked(line, seq, before))
        before = parse(done[-1]).chain
    return done


WAYS: list[Callable[[list[bytes], random.Random], Changed]] = [
    flip, flip, edit, edit, delete, cut, reorder, repeat, overwrite, insert, forge, forge, drop_outcome,
]  # fmt: skip


def in_parts(lines: list[bytes], exported: Exported, many: int) -> LogCheck | None:
    """The check in parts, as several processes do it; None unless all is well."""
    source = io.BytesIO(b"".join(line + b"\n" for line in lines))
    found = (parts.check_part(source, part) for part in parts.cut(source, many))
    check = parts.joined(found, exported.vouched.leaves)
    try:
        if check is not None:
            check.finish()
    except BadRecord:
        return None
    return check


def test_a_log_that_is_checked_in_parts_is_the_same_log(exported: Exported) -> None:
    whole = LogCheck(exported.vouched.leaves)
    whole.take(map(parse, exported.lines))
    for many in range(1, 50):
        check = in_parts(exported.lines, exported, many)
        assert check is not None, many
        assert (check.count, check.value, check.leaves) == (whole.count, whole.value, whole.leaves)
        assert (check.clock, vars(check).keys()) == (whole.clock, vars(whole).keys())


def test_several_processes_find_what_one_finds(exported: Exported, tmp_path: Path) -> None:
    """In a process of its own, because it forks."""
    changed = tmp_path / "changed.jsonl"
    changed.write_bytes(exported.export.read_bytes().replace(b"run_4", b"run_5", 1))
    found = [
        subprocess.run(
            [sys.executable, "-c", _BY_TWO, path, exported.key, exported.anchor],
            check=True, capture_output=True, text=True, timeout=120,
        ).stdout.split()
        for path in (exported.export, changed)
    ]  # fmt: skip
    assert found[0] == ["True", str(len(exported.lines)), "None"]
    assert (found[1][0], found[1][2]) == ("False", "37")


_BY_TWO = """
import sys, pathlib
from worker.store import note, offline, parts
parts.processes = lambda size: 2
export, key, anchor = map(pathlib.Path, sys.argv[1:])
found = offline.verify_export(export, note.parse_keys(key.read_text()), anchor)
print(found.ok, found.count, found.first_bad)
"""


async def test_every_change_is_found_and_the_right_record_named(exported: Exported) -> None:
    try_all(exported, WAYS, MUTATIONS)


def try_all(exported: Exported, ways: list[Callable[[list[bytes], random.Random], Changed]], many: int) -> None:
    """So many changes, each in one of these ways."""
    assert check_lines(iter(exported.lines), exported.vouched).problem is None
    dice = random.Random(20261122)
    tried = 0
    while tried < many:
        way = dice.choice(ways)
        lines, expected = way(exported.lines, dice)
        if lines == exported.lines:
            continue
        tried += 1
        found = check_lines(iter(lines), exported.vouched)
        if tried % 3 == 0:
            assert not in_parts(lines, exported, tried % 5 + 2), way.__name__
        assert not found.ok, f"{way.__name__} {expected}"
        assert found.first_bad == expected, f"{way.__name__}: {found.problem}"


async def test_the_same_from_files(exported: Exported, tmp_path: Path) -> None:
    keys = parse_keys(exported.key.read_text())
    assert verify_export(exported.export, keys, exported.anchor).ok
    dice = random.Random(7)
    for way in WAYS:
        lines, expected = way(exported.lines, dice)
        changed = tmp_path / "changed.jsonl"
        changed.write_bytes(b"".join(line + b"\n" for line in lines))
        assert verify_export(changed, keys, exported.anchor).first_bad == expected, way.__name__


async def test_another_json_writer_changes_nothing_but_what_is_changed_with_it_is_named(exported: Exported) -> None:
    """Somebody may have read the export and written it again, in another style, and without the last line break."""
    records = [json.loads(line) for line in exported.lines]
    styles: list[dict[str, Any]] = [{}, {"ensure_ascii": False}, {"sort_keys": True}, {"separators": (",", ":")}]
    for style in styles:
        again = "\n".join(json.dumps(record, **style) for record in records)
        assert check_lines(parts.split(io.BytesIO(again.encode())), exported.vouched).ok
        for at in range(0, len(records), 7):
            changed = [{**record, "actor": "nobody"} if n == at else record for n, record in enumerate(records)]
            lines = [json.dumps(record, **style).encode() for record in changed]
            assert check_lines(iter(lines), exported.vouched).first_bad == at + 1
            del lines[at]
            assert check_lines(iter(lines), exported.vouched).first_bad == at + 1
    twice = exported.lines[3].replace(b'{"actor"', b'{"actor": "nobody", "actor"')
    assert check_lines(iter([*exported.lines[:3], twice]), exported.vouched).first_bad == 4


async def test_beyond_the_last_checkpoint_the_chain_and_what_runs_must_hold_remain(exported: Exported) -> None:
    lines = exported.lines
    first = Vouched(exported.vouched.leaves[: 9 * 32], exported.vouched.checkpoints[:1])
    assert check_lines(iter(lines), first).ok
    assert check_lines(iter(lines[:20]), first).ok, "a tail that nobody signed for cannot be missed"
    dice = random.Random(3)
    at = 11
    found = check_lines(iter([*lines[:at], _forged(lines, at, dice), *lines[at + 1 :]]), first)
    assert found.first_bad == at + 1
    outcome = next(n for n, line in enumerate(lines) if n > 9 and b'"type":"call.outcome"' in line)
    rest: list[bytes] = []
    for line in lines[outcome + 1 :]:
        record = json.loads(line)
        if record["run_id"] == "run_1":
            record["run_seq"] -= 1
            if record["type"] == "run.closed":
                record["body"]["records"] -= 1
        rest.append(canonical_json(record))
    found = check_lines(iter([*lines[:outcome], *_rechained(rest, outcome, _chain_before(lines, outcome))]), first)
    assert found.problem is not None
    assert "no outcome" in found.problem
    intent = json.loads(lines[outcome])["event_id"].replace("/outcome", "/intent")
    assert found.first_bad == next(n for n, line in enumerate(lines, 1) if intent.encode() in line)
