"""Promises: what an old run worked with is found nowhere any more, what is left can still be read, and one record tells
what went; whatever runs, is young, is held or is used by another run stays."""

import asyncio
import itertools
import json
import signal
from datetime import timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from policies.decision import Principal
from tests.fixtures.processes import spawn
from tests.worker.store import jobs
from tests.worker.store.facts import closing
from tools.contract import Outcome, ToolCall, ToolResult, arguments_digest
from worker.store import contents, tables, times
from worker.store.approvals import Approvals
from worker.store.audit import AuditEvent, AuditLog
from worker.store.blobs import Blobs
from worker.store.contents import CONTENTS, GONE, STAYS, Contents
from worker.store.database import Database
from worker.store.events import closed_id, outcome_body, outcome_id
from worker.store.files import Files
from worker.store.holds import Holds
from worker.store.idempotency import Idempotency, StoredResponse
from worker.store.ledger import Ledger
from worker.store.outbox import Notice, Outbox
from worker.store.runs import Run, Runs
from worker.store.sealing import SEALED, Seals
from workflows.contracts import (
    ApprovalAnswer,
    ApprovalProgress,
    ApprovalRequest,
    ApprovalState,
    ArtifactRef,
    Delegated,
    FileRef,
    Phase,
    Question,
    Remark,
    Rung,
    RunResult,
)

WORD = "heliotrope"
"""Planted wherever a run keeps what it works with."""
OLGA = Principal(id="olga")


def test_every_column_that_holds_contents_is_dealt_with() -> None:
    """A sealed or bodied column that is added has to be emptied, go with its row, or be said to stay, and why."""
    sealed = {f"{table.name}.{name}" for table, found in SEALED.items() for name in found.columns}
    bodied = {f"{t.name}.{c.name}" for t in tables.metadata.sorted_tables for c in t.c if c.name in ("body", "content")}
    emptied = {f"{table.name}.{name}" for table, columns in CONTENTS.items() for name in columns}
    gone = {f"{table.name}.{column.name}" for table in GONE for column in table.c}
    others = {
        "audit_event.body",
        "policy_version.body",
    }  # by worker.store.retention; and the policy is nobody's content
    assert (sealed | bodied) - emptied - gone - STAYS - others == set()
    assert emptied | STAYS <= sealed


class Planted:
    """A store with runs that worked with the word."""

    def __init__(self, db: Database, folder: Path) -> None:
        self.db, self.audit = db, AuditLog(db)
        self.runs, self.approvals, self.files = Runs(db), Approvals(db), Files(db, Blobs(folder))

    async def run(self, run_id: str, phase: Phase = Phase.SUCCEEDED, *, tenant: str = "default", file: str = "") -> str:
        """A run in all its rows; the digest of its file, whose content is `file` or its own."""
        now, content = times.now(), (file or run_id).encode()
        stored = await self.files.add(
            tenant, f"{WORD}.txt", content, media_type="a/b", uploaded_by="olga", max_bytes=99
        )
        artifact = ArtifactRef(name=f"{WORD}.md", sha256=stored.sha256, size=1, media_type="text/plain")
        result = RunResult(
            phase=phase, rung=Rung.RULES, output={"said": WORD}, failure=WORD, artifacts=(artifact,), degraded=(WORD,)
        )
        await self.runs.insert(
            Run(
                id=run_id, tenant=tenant, automation="tidy", automation_version="1", digest="d", requester="olga",
                principal=OLGA, phase=phase, inputs={"path": WORD}, result=result, created_at=now, updated_at=now,
                files=(FileRef(name=stored.name, sha256=stored.sha256, size=stored.size),),
            )
        )  # fmt: skip
        await self._question(run_id, tenant)
        key = f"{run_id}/first/c1"
        outcome = ToolResult(outcome=Outcome.SUCCEEDED, content=WORD, full_sha256="0" * 64)
        body = outcome_body(call_id="c1", tool="t", key=key, result=outcome.model_copy(update={"content": "-"}))
        event = AuditEvent(outcome_id(run_id, "c1"), "call.outcome", tenant, run_id, "system:sandbox", body)
        await Ledger(self.db, self.audit).settle(key, outcome, event)
        notice = Notice(
            id=f"{run_id}/closed", type="run.closed", tenant=tenant, run_id=run_id, body={"text": WORD}, created_at=now
        )
        async with self.db.begin() as conn:
            await Outbox(self.db).add(conn, notice)
        await Outbox(self.db).direct(notice, ["mail"])
        idem = Idempotency(self.db)
        reserved = await idem.reserve(Principal(id="olga", tenant=tenant), run_id, "f", resource_id=run_id)
        await idem.complete(reserved, StoredResponse(status=201, body={"inputs": WORD}))
        if phase.final:
            end = closing(run_id, 2)
            await self.audit.append(AuditEvent(closed_id(run_id), end.type, tenant, run_id, end.actor, end.body))
        return stored.sha256

    async def _question(self, run_id: str, tenant: str) -> None:
        now, call = times.now(), ToolCall(id="c1", tool="delete_files", arguments={"paths": [WORD]})
        digest = arguments_digest(call.tool, call.arguments)
        request = ApprovalRequest(
            id=f"{run_id}.1", run_id=run_id, question=Question.CALL, tenant=tenant, automation="tidy",
            requester="olga", call=call, effect="destructive", digest=digest, reason=WORD, approvers="approver",
            requested_at=now, deadline=now,
        )  # fmt: skip
        answer = ApprovalAnswer(
            approval_id=request.id, run_id=run_id, verdict="approve", digest=digest, edited_arguments={"paths": [WORD]},
            output={"x": WORD}, principal=Principal(id="ada"), reason=WORD, answered_at=now, expires_at=now, key_id="k",
        )  # fmt: skip
        progress = ApprovalProgress(
            seq=3, answers=(answer,), conversation=(Remark(kind="ask", by="ada", text=WORD, at=now),),
            delegated=(Delegated(by="ada", to="bob", reason=WORD, at=now),),
        )  # fmt: skip
        await self.approvals.open(request)
        await self.approvals.close(request.id, ApprovalState.APPROVED, answer, progress=progress)

    async def holding(self) -> set[str]:
        """Columns in which the word stands, sealed ones opened, as `table.column of <run>`."""
        seals, found = Seals(self.db.keyring), set[str]()
        async with self.db.read() as conn:
            for table in tables.metadata.sorted_tables:
                for row in await conn.execute(sa.select(table)):
                    opened = seals.open(table, row) if table in SEALED else row._asdict()  # pyright: ignore[reportPrivateUsage]  (documented)
                    named = {name for name, value in opened.items() if WORD in str(value)}
                    found |= {f"{table.name}.{name}" for name in named}
        return found

    async def emptied(self) -> set[str]:
        """Runs that say so. In their rows the word stands nowhere; uploads and answers to requests go last of all."""
        seals, rows = Seals(self.db.keyring), list[str]()
        async with self.db.read() as conn:
            marked = sa.select(tables.run.c.id).where(tables.run.c.contents_removed_at.is_not(None))
            found = set((await conn.execute(marked)).scalars())
            for table in (tables.run, tables.approval, tables.ledger, tables.outbox):
                for row in await conn.execute(sa.select(table)):
                    rows.append(str(seals.open(table, row) if table in SEALED else row._asdict()))  # pyright: ignore[reportPrivateUsage]
        assert [row for row in rows if WORD in row and any(run_id in row for run_id in found)] == []
        return found

    async def whole(self, run_id: str) -> bool:
        """Whether the run still has its contents."""
        run = await self.runs.get(None, run_id)
        assert run is not None
        return run.inputs == {"path": WORD} and run.contents_removed_at is None


@pytest.fixture
def planted(db: Database, tmp_path: Path) -> Planted:
    return Planted(db, tmp_path / "blobs")


def soon() -> timedelta:
    return timedelta(seconds=1)


async def test_nothing_that_an_old_run_worked_with_is_left(planted: Planted) -> None:
    digest = await planted.run("run_1")
    assert await planted.holding() == {
        "run.inputs", "run.files", "run.result", "approval.request", "approval.answer", "approval.progress",
        "ledger.result", "outbox.body", "idempotency_key.response", "file.name",
    }  # fmt: skip
    of_default = Contents(planted.audit)
    before = times.now() + soon()
    assert await of_default.due("default", before) == (1, 1)
    assert await of_default.remove("default", before) == (1, 1)
    assert await planted.holding() == set()
    assert await of_default.remove("default", before) == (0, 0)
    run = await planted.runs.get("default", "run_1")
    assert run is not None
    assert run.contents_removed_at is not None
    assert (run.inputs, run.files, run.phase, run.digest) == ({}, (), Phase.SUCCEEDED, "d")
    assert run.result == RunResult(phase=Phase.SUCCEEDED, rung=Rung.RULES)
    question = await planted.approvals.get("default", "run_1.1")
    assert question is not None
    assert question.answer is not None
    assert (question.state, question.answer.principal.id, question.progress.seq) == ("approved", "ada", 3)
    assert question.request.digest == arguments_digest("delete_files", {"paths": [WORD]})
    claim = await Ledger(planted.db).get("run_1/first/c1")
    assert claim is not None
    assert claim.result == ToolResult(outcome=Outcome.SUCCEEDED, content="")
    [told, files] = await planted.audit.page(tenant="default", type="retention.contents_removed")
    assert told.body["runs"] == ["run_1"]
    assert told.body["rows"] == {"run": 1, "approval": 1, "ledger": 1, "outbox": 1}
    assert [file["sha256"] for file in json.loads(json.dumps(files.body["files"]))] == [digest]
    assert (await planted.audit.verify()).ok


async def test_what_runs_or_is_young_held_or_anothers_stays(planted: Planted) -> None:
    for run_id in ("run_old", "run_held"):
        await planted.run(run_id, file="the same")
    await planted.run("run_open", Phase.AWAITING_APPROVAL)
    await planted.run("run_theirs", tenant="other")
    before = times.now() + soon()
    await Holds(planted.audit).place("default", "case 17", "ada", run_id="run_held")
    found = Contents(planted.audit)
    assert await found.due("default", times.now() - timedelta(days=1)) == (0, 0)
    assert await found.remove("default", before) == (1, 0), "both files of the same bytes stay: the held run names them"
    for run_id, kept in {"run_old": False, "run_held": True, "run_open": True, "run_theirs": True}.items():
        assert await planted.whole(run_id) is kept, run_id


@pytest.mark.parametrize(
    ("since", "until", "kept"), [(None, None, True), (-1, 1, True), (1, 2, False), (-2, -1, False)]
)
async def test_a_hold_of_a_time_keeps_runs_that_lived_in_it(
    planted: Planted, since: int | None, until: int | None, kept: bool
) -> None:
    await planted.run("run_1")
    begins, ends = (None if days is None else times.now() + timedelta(days=days) for days in (since, until))
    hold = await Holds(planted.audit).place("default", "case 17", "ada", since=begins, until=ends)
    found, before = Contents(planted.audit), times.now() + soon()
    await found.remove("default", before)
    assert await planted.whole("run_1") is kept
    await Holds(planted.audit).lift(None, hold.id, "settled", "ada")
    await found.remove("default", before)
    assert await planted.holding() == set()


async def test_many_go_in_batches_each_with_its_record(planted: Planted, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contents, "BATCH", 2)
    for number in range(5):
        await planted.run(f"run_{number}")
    passes = (Contents(planted.audit).remove("default", times.now() + soon()) for _ in range(2))
    done = await asyncio.gather(*passes)
    assert tuple(map(sum, zip(*done, strict=True))) == (5, 5), "two at once remove each thing once"
    records = await planted.audit.page(tenant="default", type="retention.contents_removed")
    named = list(itertools.chain.from_iterable(json.loads(json.dumps(r.body["runs"])) for r in records))
    assert sorted(named) == [f"run_{number}" for number in range(5)]
    assert await planted.holding() == set()


async def test_a_batch_that_fails_takes_nothing_away(planted: Planted, monkeypatch: pytest.MonkeyPatch) -> None:
    await planted.run("run_1")
    before = await planted.holding()

    async def dying(*_: object, **__: object) -> object:
        raise RuntimeError("killed")

    with monkeypatch.context() as dead:
        dead.setattr(AuditLog, "append", dying)
        with pytest.raises(RuntimeError, match="killed"):
            await Contents(planted.audit).remove("default", times.now() + soon())
    assert await planted.holding() == before


@pytest.mark.parametrize(
    ("moment", "statement", "nth", "gone"),
    [("after", "UPDATE run SET", 4, 2), ("after", "DELETE FROM outbox", 2, 2), ("before", "DELETE FROM file", 1, 5)],
)
async def test_a_pass_that_is_killed_leaves_whole_batches(
    planted: Planted, store_url: str, key_file: Path, moment: str, statement: str, nth: int, gone: int
) -> None:
    runs = [f"run_{number}" for number in range(5)]
    for run_id in runs:
        await planted.run(run_id)
    removing = spawn(jobs.remove_contents, store_url, str(key_file), moment, statement, nth)
    await asyncio.to_thread(removing.join, 240)
    assert removing.exitcode == -signal.SIGKILL
    assert await planted.emptied() == set(runs[:gone])
    assert [run_id for run_id in runs if await planted.whole(run_id)] == runs[gone:]
    records = await planted.audit.page(tenant="default", type="retention.contents_removed")
    assert sum(len(json.loads(json.dumps(r.body["runs"]))) for r in records) == gone, "what went is on record"
    assert await Contents(planted.audit).remove("default", times.now() + soon()) == (5 - gone, 5)
    assert await planted.emptied() == set(runs)
    assert await planted.holding() == set()
    assert (await planted.audit.verify()).ok
