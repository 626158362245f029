"""Whoever changes the log behind its back is found out, and told where it begins."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from tests.worker.store.facts import closing, fact, loose
from worker.store import chain
from worker.store.audit import AuditLog
from worker.store.chain import Envelope
from worker.store.database import Database
from worker.store.tables import audit_event, audit_head

SIZE = 12
TRIGGERS = ("audit_event_no_update", "audit_event_no_delete", "audit_event_no_replace", "audit_head_no_delete",
            "audit_head_forward")  # fmt: skip


@dataclass
class Forger:
    """Somebody with the rights of the database's owner, who has switched the triggers off."""

    conn: AsyncConnection

    async def row(self, seq: int) -> dict[str, Any]:
        found = await self.conn.execute(sa.select(audit_event).where(audit_event.c.seq == seq))
        return dict(found.mappings().one())

    async def change(self, at: int, /, **values: Any) -> None:
        await self.conn.execute(sa.update(audit_event).where(audit_event.c.seq == at).values(**values))

    async def remove(self, *seqs: int) -> None:
        await self.conn.execute(sa.delete(audit_event).where(audit_event.c.seq.in_(seqs)))

    async def insert(self, row: dict[str, Any]) -> None:
        await self.conn.execute(sa.insert(audit_event).values(row))

    async def move_head(self, **values: Any) -> None:
        await self.conn.execute(sa.update(audit_head).values(**values))


@pytest.fixture
async def log(audit: AuditLog) -> AuditLog:
    """SIZE records of two runs and of none."""
    for n in range(SIZE // 3):
        await audit.append(fact("run_a", n), fact("run_b", n), loose())
    return audit


async def forge(db: Database, how: Callable[[Forger], Awaitable[None]]) -> None:
    async with db.begin() as conn:
        if db.dialect == "sqlite":
            for trigger in TRIGGERS:
                await conn.execute(sa.text(f"DROP TRIGGER IF EXISTS {trigger}"))
        else:
            for table in ("audit_event", "audit_head"):
                await conn.execute(sa.text(f"ALTER TABLE {table} DISABLE TRIGGER ALL"))
        await how(Forger(conn))


def _leaf(row: dict[str, Any]) -> bytes:
    return chain.leaf_hash(Envelope(*(row[name] for name in Envelope._fields)))


async def _relink(f: Forger, first: int, last: int) -> None:
    """Compute all hashes anew, as a forger who knows the formula would."""
    previous = chain.GENESIS if first == 1 else (await f.row(first - 1))["chain_hash"]
    for seq in range(first, last + 1):
        leaf = _leaf(await f.row(seq))
        previous = chain.chain_hash(previous, seq, leaf)
        await f.change(seq, leaf_hash=leaf, chain_hash=previous)


EDITS: dict[str, Any] = {
    "event_id": "run_a/else", "ts": "2020-01-01T00:00:00.000000Z", "tenant": "other", "run_id": "run_c", "run_seq": 99,
    "type": "model.requested ", "actor": "nobody", "body": b'{"model":"practice:planner","step":1,"words":"Log"}',
    "leaf_hash": bytes(32),
}  # fmt: skip


@pytest.mark.parametrize("seq", [1, 7, SIZE - 2])
async def test_an_edited_field_is_named(log: AuditLog, db: Database, seq: int) -> None:
    async with db.read() as conn:
        true = await Forger(conn).row(seq)
    for field, value in EDITS.items():
        await forge(db, partial(_set, seq, field, value))
        found = await log.verify()
        assert (found.ok, found.first_bad, found.count) == (False, seq, seq - 1), field
        assert found.problem is not None
        assert "changed" in found.problem
        await forge(db, partial(_set, seq, field, true[field]))
    assert (await log.verify()).ok


async def _set(seq: int, field: str, value: Any, f: Forger) -> None:
    await f.change(seq, **{field: value})


async def _edit_chain(f: Forger) -> None:
    await f.change(5, chain_hash=bytes(32))


async def _edit_and_rehash(f: Forger) -> None:
    row = await f.row(5) | {"actor": "nobody"}
    await f.change(5, actor="nobody", leaf_hash=_leaf(row))


async def _forge_whole_record(f: Forger) -> None:
    await f.change(5, actor="nobody")
    await _relink(f, 5, 5)


async def _remove_one(f: Forger) -> None:
    await f.remove(5)


async def _remove_several(f: Forger) -> None:
    await f.remove(5, 6, 7)


async def _remove_first(f: Forger) -> None:
    await f.remove(1)


async def _close_the_gap(f: Forger) -> None:
    await f.remove(5)
    for seq in range(6, SIZE + 1):
        await f.change(seq, seq=seq - 1)
    await f.move_head(seq=SIZE - 1)


async def _swap(f: Forger) -> None:
    rows = [await f.row(5), await f.row(8)]
    await f.remove(5, 8)
    await f.insert(rows[0] | {"seq": 8})
    await f.insert(rows[1] | {"seq": 5})


async def _swap_all_but_the_chain(f: Forger) -> None:
    first, second = await f.row(5), await f.row(8)
    await f.remove(5, 8)
    await f.insert(first | {"seq": 8, "chain_hash": second["chain_hash"]})
    await f.insert(second | {"seq": 5, "chain_hash": first["chain_hash"]})


async def _cut_the_tail(f: Forger) -> None:
    await f.remove(10, 11, 12)


async def _cut_everything(f: Forger) -> None:
    await f.remove(*range(1, SIZE + 1))


async def _insert_beyond(f: Forger) -> None:
    row = await f.row(SIZE)
    await f.insert(row | {"seq": SIZE + 1, "event_id": "forged", "run_id": None, "run_seq": None})


async def _insert_before(f: Forger) -> None:
    row = await f.row(SIZE)
    await f.insert(row | {"seq": 0, "event_id": "forged", "run_id": None, "run_seq": None})


async def _edit_head_chain(f: Forger) -> None:
    await f.move_head(chain_hash=bytes(32))


async def _set_head_back(f: Forger) -> None:
    await f.move_head(seq=9, chain_hash=(await f.row(9))["chain_hash"])


async def _remove_head(f: Forger) -> None:
    await f.conn.execute(sa.delete(audit_head))


async def _number_a_run_with_a_gap(f: Forger) -> None:
    """All hashes right: what a faulty writer would leave."""
    await f.change(10, run_seq=9)
    await _relink(f, 10, SIZE)
    await f.move_head(chain_hash=(await f.row(SIZE))["chain_hash"])


@pytest.mark.parametrize(
    ("how", "seq", "words"),
    [
        (_edit_chain, 5, "does not follow"),
        (_edit_and_rehash, 5, "does not follow"),
        # The record itself is consistent: the break shows where the next one does not follow from it.
        (_forge_whole_record, 6, "does not follow from record 5"),
        (_remove_one, 5, "records 5 to 5 are missing"),
        (_remove_several, 5, "records 5 to 7 are missing"),
        (_remove_first, 1, "records 1 to 1 are missing"),
        (_close_the_gap, 5, "does not follow"),
        (_swap, 5, "does not follow"),
        (_swap_all_but_the_chain, 5, "does not follow"),
        (_cut_the_tail, 10, "records 10 to 12 are missing from the end"),
        (_cut_everything, 1, "records 1 to 12 are missing from the end"),
        (_insert_beyond, SIZE + 1, "beyond the head"),
        (_insert_before, 0, "before the first"),
        (_edit_head_chain, SIZE, "head does not match"),
        (_set_head_back, 10, "beyond the head"),
        (_remove_head, 1, "head row is missing"),
        (_number_a_run_with_a_gap, 10, "not numbered densely"),
    ],
)
async def test_tampering_is_named_where_it_begins(
    log: AuditLog, db: Database, how: Callable[[Forger], Awaitable[None]], seq: int, words: str
) -> None:
    await forge(db, how)
    found = await log.verify()
    assert not found.ok
    assert (found.first_bad, found.problem) == (seq, found.problem)
    assert found.problem is not None
    assert words in found.problem


async def test_a_closing_record_that_miscounts_is_named(log: AuditLog) -> None:
    await log.append(closing("run_a", 4))
    found = await log.verify()
    assert (found.ok, found.first_bad) == (False, SIZE + 1)


async def test_nothing_but_text_in_a_text_column_is_read(log: AuditLog, db: Database) -> None:
    if db.dialect != "sqlite":
        return  # PostgreSQL does not take another type
    await forge(db, lambda f: _raw(f, "UPDATE audit_event SET body = 'text', actor = 7 WHERE seq = 4"))
    found = await log.verify()
    assert (found.ok, found.first_bad) == (False, 4)


async def _raw(f: Forger, statement: str) -> None:
    await f.conn.execute(sa.text(statement))


async def test_a_log_rewritten_with_its_head_shows_only_against_a_copy_of_the_head(log: AuditLog, db: Database) -> None:
    """The limit of a check without outside evidence, written down."""
    before = await log.verify()

    async def rewrite(f: Forger) -> None:
        await f.change(5, actor="nobody")
        await _relink(f, 5, SIZE)
        await f.move_head(chain_hash=(await f.row(SIZE))["chain_hash"])

    await forge(db, rewrite)
    after = await log.verify()
    assert (before.ok, after.ok) == (True, True)
    assert before.head != after.head


async def test_an_empty_log_verifies(audit: AuditLog) -> None:
    found = await audit.verify()
    assert (found.ok, found.count, found.head) == (True, 0, chain.GENESIS.hex())


async def test_a_log_of_several_batches_verifies(audit: AuditLog) -> None:
    for start in range(0, 2400, 400):
        await audit.append(*(fact("run_a", n) for n in range(start, start + 400)))
    found = await audit.verify()
    assert (found.ok, found.count) == (True, 2400)
