"""Checkpoints are signed for what the log was, and for nothing else; keys change without losing the past."""

import asyncio
import base64
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.fixtures.processes import finished, spawn
from tests.worker.store import jobs
from tests.worker.store.facts import fact, loose
from tools.contract import JsonObject
from worker.store import anchor, merkle
from worker.store.anchor import AnchorError, Vouched
from worker.store.audit import AuditLog
from worker.store.checking import BadRecord
from worker.store.checkpoints import CheckpointKey, Published, Publisher, load_or_create, public_keys, public_path
from worker.store.database import Database
from worker.store.keyfiles import KeyFileUnsafe
from worker.store.merkle import ProofError
from worker.store.note import Checkpoint, NoteError, PublicKey, open_note, parse_keys, sign
from worker.store.proofs import check_proof, prove_growth, prove_record
from worker.store.rows import reading


class House:
    """One installation's files."""

    def __init__(self, db: Database, folder: Path) -> None:
        self.db = db
        self.keys = folder / "keys"
        self.anchor = folder / "anchor" / "audit.jsonl"
        self.publisher = self.process()

    def process(self) -> Publisher:
        """The publisher of another process."""
        return Publisher(self.db, self.keys, self.anchor)

    async def publish(self) -> Published:
        return await asyncio.to_thread(self.publisher.publish)

    async def rotate(self) -> Published:
        return await asyncio.to_thread(self.publisher.rotate)

    def read(self, *keys: PublicKey) -> Vouched:
        return anchor.read(self.anchor, {key.hash: key for key in keys} or public_keys(self.keys))

    def key(self) -> PublicKey:
        return load_or_create(self.keys).public


@pytest.fixture
def house(db: Database, tmp_path: Path) -> House:
    return House(db, tmp_path)


def test_notes_are_those_of_the_standard() -> None:
    """The key and note of the reference implementation's documentation, and a checkpoint as other tools write it."""
    key = PublicKey.parse("PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW")
    assert key.line() == "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
    held = (
        "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n\n"
        "\u2014 PeterNeumann "
        "x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
    )
    assert open_note(held, {key.hash: key}).signed_by == (key,)
    with pytest.raises(NoteError):
        open_note(held.replace("answer", "question"), {key.hash: key})
    pair = Ed25519PrivateKey.generate()
    ours = CheckpointKey("example.com/log", pair.private_bytes_raw())
    text = "example.com/log\n7\n" + base64.b64encode(bytes(32)).decode() + "\n"
    note = sign(text, ours)
    body, _, signature = note.rpartition("\n\n")
    assert body + "\n" == text
    assert signature.startswith("\u2014 example.com/log ")
    held = base64.b64decode(signature.split(" ")[2])
    pair.public_key().verify(held[4:], text.encode())
    assert Checkpoint.parse(open_note(note, {ours.public.hash: ours.public}).text).size == 7


async def test_a_checkpoint_vouches_for_every_record_so_far(house: House, audit: AuditLog) -> None:
    sizes: list[int] = []
    for n in range(4):
        await audit.append(*(fact("run_a", 10 * n + m) for m in range(n * 3)))
        sizes.append((await house.publish()).size)
    assert sizes == [0, 3, 9, 18]
    again = await house.publish()
    assert (again.fresh, again.size) == (False, 18)
    held = house.read()
    assert [point.size for point in held.checkpoints] == sizes
    leaves = [bytes.fromhex(json.loads(line)["leaf_hash"]) async for line in audit.export()]
    assert merkle.split(held.leaves) == leaves
    assert held.checkpoints[-1].root == merkle.root(leaves)
    found = await audit.verify(held)
    assert (found.ok, found.anchored) == (True, 18)


async def test_several_processes_take_turns(house: House, audit: AuditLog) -> None:
    others = [house.publisher, house.process(), house.process()]
    for n in range(6):
        await audit.append(fact("run_a", n))
        await asyncio.gather(*(asyncio.to_thread(other.publish) for other in others))
    held = house.read()
    assert [point.size for point in held.checkpoints] == [1, 2, 3, 4, 5, 6]


async def test_two_machines_with_one_database_take_turns(
    house: House, audit: AuditLog, store_url: str, tmp_path: Path
) -> None:
    """Each has an anchor file of its own, so that no lock on a file stands between them."""
    if house.db.dialect != "postgresql":
        return  # a SQLite store is on one machine
    await audit.append(fact("run_a", 1))
    theirs = tmp_path / "theirs.jsonl"
    with reading(house.db) as here:
        here.alone()
        there = spawn(jobs.publish, store_url, str(house.keys), str(theirs))
        while not await _waiting(house.db):
            assert there.is_alive(), "it did not wait"
            await asyncio.sleep(0.02)
        assert theirs.stat().st_size == 0, "nothing is signed while somebody else signs"
    await finished(there)
    assert anchor.read(theirs, public_keys(house.keys)).size == 1
    assert (await house.publish()).size == 1


async def _waiting(db: Database) -> bool:
    async with db.read() as conn:
        asked = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
        return (await conn.execute(sa.text(asked))).scalar_one() > 0


async def test_a_log_that_was_rewritten_gets_no_other_checkpoint(house: House, audit: AuditLog, db: Database) -> None:
    await audit.append(*(fact("run_a", n) for n in range(4)))
    await house.publish()
    await audit.append(fact("run_a", 4))
    await _unguarded(db, "UPDATE audit_event SET actor = 'nobody' WHERE seq = 5")
    with pytest.raises(BadRecord) as bad:
        await house.publish()
    assert bad.value.seq == 5
    await _unguarded(db, "DELETE FROM audit_event WHERE seq > 2", "UPDATE audit_head SET seq = 2")
    with pytest.raises(BadRecord, match="vouch for records to 4"):
        await house.publish()
    assert house.read().size == 4


async def _unguarded(db: Database, *statements: str) -> None:
    async with db.begin() as conn:
        if db.dialect == "sqlite":
            names = (await conn.execute(sa.text("SELECT name FROM sqlite_master WHERE type = 'trigger'"))).scalars()
            for name in names.all():
                await conn.execute(sa.text(f"DROP TRIGGER {name}"))
        else:
            for table in ("audit_event", "audit_head"):
                await conn.execute(sa.text(f"ALTER TABLE {table} DISABLE TRIGGER ALL"))
        for statement in statements:
            await conn.execute(sa.text(statement))


async def test_whoever_trusts_one_key_of_a_log_can_check_it_after_changes(house: House, audit: AuditLog) -> None:
    keys = [house.key()]
    for n in range(3):
        await audit.append(fact("run_a", n))
        await house.publish()
        await audit.append(loose())
        assert (await house.rotate()).size == 2 * n + 2
        keys.append(house.key())
    assert len({key.hash for key in keys}) == 4
    for key in keys:
        assert house.read(key).size == 6
    stranger = CheckpointKey(keys[0].name, bytes(32)).public
    with pytest.raises(AnchorError, match="none of its keys"):
        house.read(stranger)
    assert (await asyncio.to_thread(house.process().publish)).size == 6
    assert set(public_keys(house.keys)) == {key.hash for key in keys}


async def test_a_key_that_was_replaced_signs_nothing_any_more(house: House, audit: AuditLog) -> None:
    await audit.append(fact("run_a", 1))
    await house.publish()
    stolen = (house.keys / "checkpoint.key").read_bytes()
    await house.rotate()
    await audit.append(fact("run_a", 2))
    (house.keys / "checkpoint.key").write_bytes(stolen)
    with pytest.raises(NoteError, match="is not the one"):
        await asyncio.to_thread(house.process().publish)
    old = CheckpointKey.parse(stolen)
    leaf = bytes(32)
    grown = merkle.Range()
    grown.add([*merkle.split(house.read().leaves), leaf])
    forged = anchor.Line(sign(Checkpoint(old.public.name, 2, grown.root(), "").text(), old), 2, leaf)
    with house.anchor.open("ab") as file:
        file.write(forged.text())
    with pytest.raises(AnchorError, match="not signed by the given key"):
        house.read(old.public)


async def test_a_rotation_that_died_half_way_is_taken_up(house: House, audit: AuditLog) -> None:
    await audit.append(fact("run_a", 1))
    before = (house.keys / "checkpoint.key").read_bytes() if house.key() else b""
    await house.rotate()
    after = house.keys / "checkpoint.key"
    (house.keys / "checkpoint.next").write_bytes(after.read_bytes())
    after.write_bytes(before)
    lines = house.anchor.read_bytes().splitlines(keepends=True)
    house.anchor.write_bytes(b"".join(lines[:-1]))  # the rotation is the last thing that was written
    await audit.append(fact("run_a", 2))
    done = await asyncio.to_thread(house.process().publish)
    assert (done.size, house.read().size) == (2, 2)
    assert not (house.keys / "checkpoint.next").exists()


Lines = list[bytes]
CHANGES: list[tuple[Callable[[Lines], Lines], int]] = [
    (lambda lines: lines[1:], 1),
    (lambda lines: [lines[0], lines[2]], 4),
    (lambda lines: [*lines, lines[1]], 10),
    (lambda lines: [*lines[:2], lines[2].replace(b'"size":9', b'"size":8')], 7),
    (lambda lines: [*lines[:2], lines[2][:-40]], 7),
    (lambda lines: [lines[0], lines[1].replace(b'"leaves":"', b'"leaves":"AAAA'), lines[2]], 4),
    (lambda lines: [lines[0], lines[1].replace(b"time 2", b"time 1"), lines[2]], 4),
    (lambda _: [b"{}"], 1),
    (lambda _: [], 1),
]


@pytest.mark.parametrize(("how", "seq"), CHANGES)
async def test_a_changed_anchor_is_not_believed(
    house: House, audit: AuditLog, how: Callable[[list[bytes]], list[bytes]], seq: int
) -> None:
    for n in range(3):
        await audit.append(*(fact("run_a", 3 * n + m) for m in range(3)))
        await house.publish()
    house.anchor.write_bytes(b"\n".join(how(house.anchor.read_bytes().splitlines())) + b"\n")
    with pytest.raises(AnchorError) as error:
        house.read()
    assert error.value.seq == seq


async def test_a_changed_anchor_is_not_gone_on_with(house: House, audit: AuditLog) -> None:
    await audit.append(*(fact("run_a", n) for n in range(3)))
    await house.publish()
    await audit.append(loose())
    whole = house.anchor.read_bytes()
    line = json.loads(whole)
    leaves = base64.b64decode(line["leaves"])
    line["leaves"] = base64.b64encode(bytes(32) + leaves[32:]).decode()
    house.anchor.write_text(json.dumps(line) + "\n")
    with pytest.raises(AnchorError, match="was changed"):
        await asyncio.to_thread(house.process().publish)
    house.anchor.write_bytes(b"")
    with pytest.raises(AnchorError, match="somebody cut it"):
        await house.publish()
    house.anchor.write_bytes(whole + b'{"leaves":"AA')  # cut off while it was written
    assert (await asyncio.to_thread(house.process().publish)).size == 4
    assert house.read().size == 4


async def test_a_record_and_the_growth_of_the_log_can_be_proved(house: House, audit: AuditLog) -> None:
    for n in range(3):
        await audit.append(*(fact("run_a", 7 * n + m) for m in range(7)))
        await house.publish()
    held, keys = house.read(), public_keys(house.keys)
    lines = [line async for line in audit.export()]
    for seq in (1, 7, 8, 21):
        proof = prove_record(held, seq, lines[seq - 1])
        assert f"record {seq} is in the log of 21" in check_proof(proof, keys)
        with pytest.raises(ProofError):
            check_proof({**proof, "record": lines[3].decode().rstrip()}, keys)
        with pytest.raises(ProofError):
            check_proof({**proof, "record": lines[seq - 1].decode().replace("run_a", "run_b").rstrip()}, keys)
        with pytest.raises(ProofError):
            prove_record(held, seq, lines[3])
    grown = prove_growth(held, 7, 21)
    assert "beginning of the log of 21" in check_proof(grown, keys)
    wrong: list[JsonObject] = [
        {**grown, "old": held.notes[14]},
        {**grown, "path": []},
        {"kind": "other"},
        {**grown, "kind": "x"},
    ]
    for bad in wrong:
        with pytest.raises(ProofError):
            check_proof(bad, keys)
    with pytest.raises(ProofError):
        check_proof(grown, parse_keys(CheckpointKey("gatehouse", bytes(32)).public.line()))
    with pytest.raises(ProofError):
        prove_growth(held, 8, 21)


async def test_the_private_key_is_for_its_owner_alone(house: House) -> None:
    key = house.key()
    assert public_path(house.keys, load_or_create(house.keys)).read_text().strip() == key.line()
    (house.keys / "checkpoint.key").chmod(0o640)
    with pytest.raises(KeyFileUnsafe):
        await house.publish()
