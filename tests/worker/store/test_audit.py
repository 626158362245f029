"""The log keeps what it is told, once, in order, and for good; on both databases alike."""

import asyncio
import json
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy import exc

from tests.fixtures.processes import finished, spawn
from tests.worker.store import jobs
from tests.worker.store.facts import closing, fact, loose
from tools.contract import JsonObject, canonical_json
from worker.store import chain
from worker.store.audit import AuditEvent, AuditLog, RunAlreadyClosed, UnknownEventType
from worker.store.chain import Envelope
from worker.store.database import Database
from worker.store.events import EVENT_TYPES, LATE_TYPES
from worker.store.tables import audit_event


async def test_records_are_numbered_densely_over_the_log_and_within_each_run(audit: AuditLog) -> None:
    written = await audit.append(fact("run_a", 1), fact("run_b", 1), loose(), fact("run_a", 2))
    written += await audit.append(fact("run_b", 2), fact("run_a", 3))
    assert [r.seq for r in written] == [1, 2, 3, 4, 5, 6]
    assert [(r.run_id, r.run_seq) for r in written] == [
        ("run_a", 1), ("run_b", 1), (None, None), ("run_a", 2), ("run_b", 2), ("run_a", 3),
    ]  # fmt: skip
    assert (await audit.verify()).ok


async def test_a_record_reads_back_as_it_was_written(audit: AuditLog) -> None:
    body: JsonObject = {"text": "zwölf 🚪 \u0000 \u2028", "deep": [{"n": 2**60, "f": 0.1, "none": None, "no": False}]}
    event = AuditEvent("run_a/call/ä:1/intent", "call.intent", "ténant", "run_a", "böb", body)
    before = datetime.now(UTC)
    [written] = await audit.append(event)
    assert before <= written.ts <= datetime.now(UTC)
    assert written.ts.utcoffset() == timedelta(0)
    assert await audit.get(event.event_id) == written
    assert await audit.page(tenant="ténant") == [written]
    assert (written.tenant, written.actor, written.body) == ("ténant", "böb", body)


async def test_both_databases_hash_the_same_fact_alike(audit: AuditLog, db: Database) -> None:
    """The leaf and the chain come from the stored fields alone, by the documented formula."""
    [written] = await audit.append(fact("run_a", 1, words='"quoted" and ünï'))
    async with db.read() as conn:
        row = (await conn.execute(sa.select(audit_event))).one()
    assert row.ts == written.ts.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    fields = {
        "actor": row.actor, "body": json.loads(row.body), "event_id": row.event_id, "run_id": row.run_id,
        "run_seq": row.run_seq, "tenant": row.tenant, "ts": row.ts, "type": row.type,
    }  # fmt: skip
    stored = Envelope(
        row.event_id, row.ts, row.tenant, row.run_id, row.run_seq, row.type, row.actor, row.body
    )  # fmt: skip
    assert chain.envelope_bytes(stored) == canonical_json(fields)
    assert chain.leaf_hash(stored).hex() == written.leaf_hash
    assert chain.chain_hash(chain.GENESIS, 1, row.leaf_hash).hex() == written.chain_hash


async def test_a_fact_reported_again_is_the_stored_record_unchanged(audit: AuditLog) -> None:
    [first] = await audit.append(fact("run_a", 1, words="the truth"))
    again = await audit.append(fact("run_a", 1, words="another story"), fact("run_a", 2), fact("run_a", 2))
    assert again[0] == first
    assert again[1] == again[2]
    assert [r.seq for r in again] == [1, 2, 2]
    assert (await audit.verify()).count == 2


async def test_many_reports_of_one_fact_at_once_leave_one_record(audit: AuditLog) -> None:
    written = await asyncio.gather(*(audit.append(fact("run_a", 7, words=str(n))) for n in range(12)))
    assert len({record.seq for [record] in written}) == 1
    assert len({str(record.body["words"]) for [record] in written}) == 1


async def test_an_unknown_type_is_refused_and_nothing_of_the_batch_is_kept(audit: AuditLog) -> None:
    strange = AuditEvent("run_a/x", "run.exploded", "default", "run_a", "bob", {})
    with pytest.raises(UnknownEventType):
        await audit.append(fact("run_a", 1), strange)
    assert await audit.page(tenant=None) == []


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "\ud800"])
async def test_a_body_without_canonical_form_is_refused(audit: AuditLog, value: float | str) -> None:
    bad = AuditEvent("run_a/x", "call.intent", "default", "run_a", "bob", {"value": value})
    with pytest.raises(ValueError, match=r".+"):
        await audit.append(fact("run_a", 1), bad)
    assert await audit.page(tenant=None) == []


async def test_after_a_run_is_closed_only_late_attempts_are_recorded(audit: AuditLog) -> None:
    await audit.append(fact("run_a", 1), closing("run_a", 2))
    with pytest.raises(RunAlreadyClosed):
        await audit.append(fact("run_a", 2))
    [repeated] = await audit.append(fact("run_a", 1))
    assert repeated.seq == 1
    for number, type_ in enumerate(sorted(LATE_TYPES)):
        [late] = await audit.append(AuditEvent(f"run_a/late/{number}", type_, "default", "run_a", "bob", {}))
        assert late.run_seq == 3 + number
    assert (await audit.verify()).ok


async def test_an_append_in_a_transaction_stands_or_falls_with_it(audit: AuditLog, db: Database) -> None:
    with pytest.raises(RuntimeError, match="crash"):
        await _append_and_crash(audit, db)
    assert await audit.page(tenant=None) == []
    async with db.begin() as conn:
        await audit.append(fact("run_a", 1), conn=conn)
        await audit.append(fact("run_a", 2), conn=conn)
        assert await audit.count("run_a", conn=conn) == 2
        assert await audit.event_ids("run_a", "model.requested", conn=conn) == ["run_a/model/1", "run_a/model/2"]
    assert (await audit.verify()).count == 2


async def _append_and_crash(audit: AuditLog, db: Database) -> None:
    async with db.begin() as conn:
        await audit.append(fact("run_a", 1), conn=conn)
        raise RuntimeError("crash")


async def test_pages_are_scoped_and_resumable(audit: AuditLog) -> None:
    await audit.append(*(fact("run_a", n) for n in range(5)), fact("run_b", 1, tenant="other"), loose())
    assert [r.seq for r in await audit.page(tenant="default", limit=3)] == [1, 2, 3]
    assert [r.seq for r in await audit.page(tenant="default", after=3)] == [4, 5, 7]
    assert [r.seq for r in await audit.page(tenant="other")] == [6]
    assert [r.seq for r in await audit.page(tenant="default", run_id="run_b")] == []
    assert [r.seq for r in await audit.page(tenant=None, run_id="run_a", after=4)] == [5]
    assert [r.seq for r in await audit.page(tenant=None, type="access.denied")] == [7]
    for limit in (0, 1001):
        with pytest.raises(ValueError, match="limit"):
            await audit.page(tenant=None, limit=limit)


async def test_the_export_is_one_json_line_a_record_and_can_be_resumed(audit: AuditLog) -> None:
    written = await audit.append(*(fact("run_a", n) for n in range(3)))
    lines = [line async for line in audit.export()]
    assert [json.loads(line)["chain_hash"] for line in lines] == [r.chain_hash for r in written]
    assert all(line == canonical_json(json.loads(line)) + b"\n" for line in lines)
    assert [line async for line in audit.export(after=2)] == lines[2:]
    assert [line async for line in audit.export(tenant="other")] == []


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit_event SET actor = 'nobody' WHERE seq = 1",
        "DELETE FROM audit_event WHERE seq = 1",
        "UPDATE audit_head SET seq = 1",
        "UPDATE audit_head SET seq = 0",
        "DELETE FROM audit_head",
    ],
)
async def test_the_database_refuses_to_change_the_log(audit: AuditLog, db: Database, statement: str) -> None:
    await audit.append(fact("run_a", 1), fact("run_a", 2))
    with pytest.raises(exc.DBAPIError, match=r"append-only|only moves forward"):
        async with db.begin() as conn:
            await conn.execute(sa.text(statement))
    assert (await audit.verify()).ok


async def test_the_database_refuses_to_replace_or_truncate(audit: AuditLog, db: Database) -> None:
    await audit.append(fact("run_a", 1), fact("run_a", 2))
    if db.dialect == "postgresql":
        statements = ["TRUNCATE audit_event", "TRUNCATE audit_head"]
    else:
        columns = "event_id, ts, tenant, run_id, run_seq, type, actor, body, leaf_hash, chain_hash"
        statements = [
            f"REPLACE INTO audit_event (seq, {columns}) SELECT 1, {columns} FROM audit_event WHERE seq = 2",
            f"REPLACE INTO audit_event (seq, {columns}) SELECT 9, {columns} FROM audit_event WHERE seq = 2",
        ]
    for statement in statements:
        with pytest.raises(exc.DBAPIError, match=r"append-only|only moves forward"):
            async with db.begin() as conn:
                await conn.execute(sa.text(statement))
    assert (await audit.verify()).ok


async def test_several_processes_appending_at_once_leave_no_gap_and_no_duplicate(
    audit: AuditLog, store_url: str, tmp_path: Path
) -> None:
    facts, batch, writers = 40, 3, 4
    acknowledged = str(tmp_path / "acknowledged")
    await finished(
        *(spawn(jobs.append, store_url, f"run_{n}", facts, batch, acknowledged, writers) for n in range(writers))
    )
    found = await audit.verify()
    assert (found.ok, found.count) == (True, facts * batch * writers)
    records = await audit.page(tenant=None, limit=1000)
    assert [r.seq for r in records] == list(range(1, facts * batch * writers + 1))
    for n in range(writers):
        of_run = [r for r in records if r.run_id == f"run_{n}"]
        assert [r.run_seq for r in of_run] == list(range(1, facts * batch + 1))
        assert [r.body["step"] for r in of_run] == list(range(facts * batch))
    # They did write at the same time: each began before any other one ended.
    ends = {n: [r.seq for r in records if r.run_id == f"run_{n}"] for n in range(writers)}
    assert max(seqs[0] for seqs in ends.values()) < min(seqs[-1] for seqs in ends.values())


async def test_killing_writers_under_load_loses_nothing_acknowledged(
    audit: AuditLog, store_url: str, tmp_path: Path
) -> None:
    rounds, batch = 4, 2
    noted = {f"run_{turn}_{n}": tmp_path / f"{turn}-{n}" for turn in range(rounds) for n in range(2)}
    for turn in range(rounds):
        runs = [f"run_{turn}_{n}" for n in range(2)]
        writers = [spawn(jobs.append, store_url, run, 0, batch, str(noted[run])) for run in runs]
        await jobs.wait_for_notes(*(noted[run] for run in runs))
        await asyncio.sleep(0.02 + 0.017 * turn)
        for writer in writers:
            writer.kill()
        for writer in writers:
            await asyncio.to_thread(writer.join)
    found = await audit.verify()
    assert found.ok, found
    kept = Counter([json.loads(line)["run_id"] async for line in audit.export()])
    for run, path in noted.items():
        assert kept[run] >= batch * len(jobs.notes(path))
        assert kept[run] % batch == 0, "half a transaction was kept"
    [after] = await audit.append(loose())
    assert after.seq == found.count + 1


def test_every_type_says_what_it_means() -> None:
    assert all(meaning.endswith(".") for meaning in EVENT_TYPES.values())
    assert set(EVENT_TYPES) > LATE_TYPES
