"""Promises: what runs work with lies in no column as plain text; a value counts in its own row alone; values of before
sealing and of earlier keys are read, and brought under the newest key; a new column has to be put on one side."""

import base64
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from policies.decision import Principal
from policies.standing import Delegation, Grant
from tests.api.test_cli import command
from tools.contract import Outcome, ToolCall, ToolResult
from worker.store import keyring as keyrings
from worker.store import tables
from worker.store.approvals import Approvals
from worker.store.audit import AuditEvent, AuditLog
from worker.store.database import Database, StoreUnavailable
from worker.store.events import outcome_body, outcome_id
from worker.store.idempotency import Idempotency, StoredResponse
from worker.store.keyring import Keyring
from worker.store.ledger import Ledger
from worker.store.resealing import counts, reseal
from worker.store.runs import Run, Runs
from worker.store.sealing import SEALED, SealedValueRefused
from worker.store.standing import Standing
from workflows.contracts import (
    ApprovalAnswer,
    ApprovalProgress,
    ApprovalRequest,
    ApprovalState,
    FileRef,
    Phase,
    Question,
    Rung,
    RunResult,
)

WORD = "wolframite-7"
"""What must not be found."""
MOMENT = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
OLGA = Principal(id="olga", tenant="acme", roles=("operator",))
PLAIN = {
    "run": "id tenant automation automation_version digest requester principal phase rung",
    "approval": "id run_id tenant automation state effect tool digest",
    "ledger": "key tool owner",
    "idempotency_key": "tenant principal key fingerprint resource_id token",
    "approval_grant": "id tenant automation tool revoked_by",
    "delegation": "id tenant absent stand_in revoked_by",
}
"""Names, states and digests, by which rows are found."""


def run(run_id: str = "run_1", tenant: str = "acme") -> Run:
    return Run(
        id=run_id, tenant=tenant, automation="tidy", automation_version="1", digest="d", requester="olga",
        principal=OLGA, inputs={"word": WORD}, files=(FileRef(name=WORD, sha256="0" * 64, size=1),),
        created_at=MOMENT, updated_at=MOMENT,
    )  # fmt: skip


def question(number: int = 1) -> ApprovalRequest:
    return ApprovalRequest(
        id=f"run_1.{number}", run_id="run_1", question=Question.CALL, tenant="acme", automation="tidy",
        requester="olga", digest="d", approvers="approver", requested_at=MOMENT, deadline=MOMENT,
        call=ToolCall(id="c1", tool="write_file", arguments={"content": WORD}), effect="destructive",
    )  # fmt: skip


async def fill(db: Database) -> None:
    """Rows of a run, by the store's own classes."""
    runs, approvals, audit = Runs(db), Approvals(db), AuditLog(db)
    await runs.insert(run())
    await runs.set_phase("run_1", Phase.FAILED, result=RunResult(phase=Phase.FAILED, rung=Rung.MODEL, failure=WORD))
    await approvals.open(question())
    answer = ApprovalAnswer(
        approval_id="run_1.1", run_id="run_1", verdict="approve", principal=OLGA, digest="d", reason=WORD,
        answered_at=MOMENT, expires_at=MOMENT, key_id="k",
    )  # fmt: skip
    await approvals.close("run_1.1", ApprovalState.APPROVED, answer, progress=ApprovalProgress(seq=1))
    result = ToolResult(outcome=Outcome.SUCCEEDED, content=WORD, duration_ms=1)
    body = outcome_body(call_id="c1", tool="write_file", key="run_1/c1", result=result) | {"content_head": ""}
    event = AuditEvent(outcome_id("run_1", "c1"), "call.outcome", "acme", "run_1", "system:sandbox", body)
    await Ledger(db, audit).settle("run_1/c1", result, event)
    keys = Idempotency(db)
    reserved = await keys.reserve(OLGA, "k", "f", resource_id="run_1")
    await keys.complete(reserved, StoredResponse(status=202, body={"word": WORD}))


async def read(db: Database) -> dict[str, Any]:
    """The same by reading."""
    found = await Runs(db).get("acme", "run_1")
    asked = await Approvals(db).get("acme", "run_1.1")
    settled = await Ledger(db).get("run_1/c1")
    replayed = await Idempotency(db).reserve(OLGA, "k", "f", resource_id="run_2")
    assert found is not None
    assert asked is not None
    assert settled is not None
    assert replayed.response is not None
    assert asked.request.call is not None
    return {
        "inputs": found.inputs, "files": found.files[0].name, "failure": found.result and found.result.failure,
        "arguments": asked.request.call.arguments, "reason": asked.answer and asked.answer.reason,
        "seq": asked.progress.seq, "content": settled.result and settled.result.content,
        "response": replayed.response.body,
    }  # fmt: skip


HELD = {
    "inputs": {"word": WORD}, "files": WORD, "failure": WORD, "arguments": {"content": WORD}, "reason": WORD,
    "seq": 1, "content": WORD, "response": {"word": WORD},
}  # fmt: skip


async def stored(db: Database) -> str:
    """Every value of every table, as it lies there."""
    async with db.read() as conn:
        rows = [row for table in tables.metadata.sorted_tables for row in await conn.execute(sa.select(table))]
    return repr(rows)


async def raw(db: Database, table: sa.Table, column: str) -> Any:
    async with db.read() as conn:
        return (await conn.execute(sa.select(table.c[column]))).scalars().first()


async def put(db: Database, table: sa.Table, **values: Any) -> None:
    async with db.begin() as conn:
        await conn.execute(sa.update(table).values(values))


async def test_nothing_that_runs_work_with_lies_there_plain(db: Database) -> None:
    await fill(db)
    assert WORD not in await stored(db)
    assert await read(db) == HELD


async def test_grants_and_delegations_are_sealed(db: Database) -> None:
    later = MOMENT + timedelta(days=1)
    grant = Grant(
        id="gr_1", tenant="acme", automation="tidy", tool="write_file", arguments={"content": WORD}, uses=1,
        until=later, created_by="ruth", created_at=MOMENT,
    )  # fmt: skip
    made = Delegation(id="de_1", absent=OLGA, stand_in="ruth", reason=WORD, until=later, created_by="olga",
                      created_at=MOMENT)  # fmt: skip
    standing = Standing(db, AuditLog(db), {})
    await standing.add_grant(grant)
    await standing.add_delegation(made)
    for table in (tables.approval_grant, tables.delegation):
        assert WORD not in await raw(db, table, "content")
    assert [row.grant for row in await standing.grants("acme")] == [grant]
    assert [row.delegation for row in await standing.delegations("acme")] == [made]


async def test_a_value_counts_in_its_own_row_alone(db: Database) -> None:
    await fill(db)
    runs = Runs(db)
    await runs.insert(run("run_2"))
    await runs.insert(run("run_3", tenant="other"))
    taken = await raw(db, tables.run, "inputs")
    for target in ("run_2", "run_3"):
        async with db.begin() as conn:
            await conn.execute(sa.update(tables.run).where(tables.run.c.id == target).values(inputs=taken))
        with pytest.raises(SealedValueRefused, match=f"run.inputs of {target}"):
            await runs.get(None, target)
    one, other = await raw(db, tables.approval, "request"), await raw(db, tables.approval, "answer")
    await put(db, tables.approval, request=other, answer=one)
    with pytest.raises(SealedValueRefused, match=r"approval\.request"):
        await Approvals(db).get("acme", "run_1.1")
    kept = await raw(db, tables.ledger, "result")
    await put(db, tables.ledger, key="run_2/c1")
    with pytest.raises(SealedValueRefused):
        await Ledger(db).get("run_2/c1")
    # Said to be another tenant's, or with one bit turned.
    named = base64.urlsafe_b64encode(b"other").decode()
    parts = kept.split(".")
    turned = bytearray(base64.urlsafe_b64decode(parts[4]))
    turned[-1] ^= 1
    for forged in (
        ".".join([*parts[:3], named, parts[4]]), ".".join([*parts[:4], base64.urlsafe_b64encode(turned).decode()]),
        ".".join(parts[:4]), ".".join([*parts[:2], "0" * 16, *parts[3:]]), "sealed.1.",
    ):  # fmt: skip
        await put(db, tables.ledger, key="run_1/c1", result=forged)
        with pytest.raises(SealedValueRefused, match=r"ledger\.result of run_1/c1"):
            await Ledger(db).get("run_1/c1")


async def test_a_store_without_its_keys_keeps_them_closed(db: Database, store_url: str) -> None:
    await fill(db)
    bare = Database(store_url)
    with pytest.raises(StoreUnavailable, match="without its data keys"):
        await Runs(bare).get("acme", "run_1")
    with pytest.raises(StoreUnavailable, match="without its data keys"):
        await Runs(bare).insert(run("run_2"))
    await bare.close()


async def test_values_of_before_sealing_are_read_and_sealed(db: Database, store_url: str, keyring: Keyring) -> None:
    await fill(db)
    for table, sealed in SEALED.items():
        async with db.begin() as conn:
            for row in await conn.execute(sa.select(table)):
                names = [name for name in sealed.columns if getattr(row, name) is not None]
                plain = Runs(db)._seals.open(table, row)  # pyright: ignore[reportPrivateUsage]
                await conn.execute(sa.update(table).values({name: plain[name] for name in names}))
    assert WORD in await stored(db)
    assert await counts(db) == {"plain": 8}
    assert await read(db) == HELD
    assert await reseal(db) == (4, 8)
    assert await counts(db) == {keyring.newest: 8}
    assert WORD not in await stored(db)
    assert await read(db) == HELD
    assert await reseal(db) == (0, 0)
    if db.sqlite_path is not None:
        await db.close()
        assert WORD.encode() not in db.sqlite_path.read_bytes(), "nor in what the file does not use any more"


async def test_a_key_that_was_turned_over_opens_nothing_any_more(store_url: str, tmp_path: Path) -> None:
    path = tmp_path / "data.keys"
    db = Database(store_url, keyrings.open_generated(path))
    await fill(db)
    first = keyrings.open_given(path).newest
    second = keyrings.rotate(path)
    turned = Database(store_url, keyrings.open_given(path))
    assert await read(turned) == HELD
    assert (await raw(turned, tables.ledger, "result")).split(".")[2] == first
    await Runs(turned).insert(run("run_2"))
    assert await counts(turned) == {first: 8, second: 2}
    if db.sqlite_path is not None:
        # By the command, as an operator does it.
        env = {"GATEHOUSE_DATA": str(tmp_path), "GATEHOUSE_ENCRYPTION_KEYS": str(path),
               "GATEHOUSE_DATABASE_URL": store_url}  # fmt: skip
        done = command("encryption", "reseal", "--json", **env)
        assert (done.code, done.json) == (0, {"rows": 4, "values": 8}), done.err
    else:
        assert await reseal(turned) == (4, 8)
    await turned.close()
    await db.close()
    path.write_text(path.read_text().splitlines()[-1] + "\n")
    alone = Database(store_url, keyrings.open_given(path))
    assert await read(alone) == HELD
    await alone.close()


def test_every_column_of_a_table_with_sealed_ones_is_on_one_side() -> None:
    for table, sealed in SEALED.items():
        texts = {column.name for column in table.c if type(column.type) is sa.Text}
        assert texts == {*sealed.columns, *PLAIN[table.name].split()}, table.name
