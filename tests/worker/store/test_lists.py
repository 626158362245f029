"""Lists: newest first, every item once however pages fall, and only the tenant's own."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from itertools import cycle
from typing import TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.decision import Principal
from worker.store import times
from worker.store.approvals import Approvals
from worker.store.database import Database
from worker.store.ids import new_id
from worker.store.paging import BadCursor, Page, Position, decode_cursor, encode_cursor
from worker.store.runs import Run, Runs
from workflows.contracts import (
    ApprovalRequest,
    ApprovalState,
    FileRef,
    Phase,
    Question,
    Rung,
    RunResult,
)
from workflows.held import FrozenQuestion

START = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


def run(number: int, *, tenant: str = "acme", automation: str = "log-triage") -> Run:
    # Three at each moment: the id must tell them apart.
    moment = START + timedelta(microseconds=number // 3)
    return Run(
        id=new_id("run"), tenant=tenant, automation=automation, automation_version="1.2", digest="d", requester="alice",
        principal=Principal(id="alice", tenant=tenant), inputs={"n": number, "ü": [None, 0.5]},
        files=(FileRef(name="a.log", sha256="0" * 64, size=1),), created_at=moment, updated_at=moment,
    )  # fmt: skip


def question(
    number: int, *, tenant: str = "acme", run_id: str = "run_1", automation: str = "log-triage"
) -> ApprovalRequest:
    moment = START + timedelta(microseconds=number // 3)
    return ApprovalRequest(
        id=f"{run_id}.{number}", run_id=run_id, question=Question.CALL, tenant=tenant, automation=automation,
        requester="alice", digest="d", approvers="approver", requested_at=moment, deadline=moment,
    )  # fmt: skip


T = TypeVar("T")


async def walk(fetch: Callable[[str | None], Awaitable[Page[T]]]) -> list[T]:
    found: list[T] = []
    cursor: str | None = None
    while True:
        page = await fetch(cursor)
        found += page.items
        cursor = page.next_cursor
        if cursor is None:
            return found


async def test_runs_page_newest_first_and_once(db: Database) -> None:
    runs = Runs(db)
    inserted = [await runs.insert(run(n)) for n in range(10)]
    expected = sorted(inserted, key=lambda r: (r.created_at, r.id), reverse=True)
    for limit in (1, 3, 4, 9, 10, 11):
        assert await walk(lambda cursor, size=limit: runs.page("acme", cursor=cursor, limit=size)) == expected


async def test_a_list_that_grows_meanwhile_repeats_and_skips_nothing(db: Database) -> None:
    runs = Runs(db)
    old = [await runs.insert(run(n)) for n in range(4)]
    first = await runs.page("acme", limit=2)
    await runs.insert(run(100))
    rest = await runs.page("acme", limit=2, cursor=first.next_cursor)
    assert {r.id for r in (*first.items, *rest.items)} == {r.id for r in old}


async def test_runs_are_the_tenant_s_own(db: Database) -> None:
    runs = Runs(db)
    mine, theirs = await runs.insert(run(1)), await runs.insert(run(2, tenant="other"))
    assert [r.id for r in (await runs.page("acme")).items] == [mine.id]
    assert await runs.get("acme", theirs.id) is None
    assert await runs.get("other", theirs.id) == theirs
    assert await runs.get(None, theirs.id) == theirs
    assert len((await runs.page(None)).items) == 2


async def test_runs_filter_by_phase_and_automation(db: Database) -> None:
    runs = Runs(db)
    first = await runs.insert(run(1))
    second = await runs.insert(run(2, automation="disk-cleanup"))
    assert await runs.set_phase(first.id, Phase.WORKING)
    assert [r.id for r in (await runs.page("acme", phase=Phase.WORKING)).items] == [first.id]
    assert [r.id for r in (await runs.page("acme", automation="disk-cleanup")).items] == [second.id]
    assert (await runs.page("acme", phase=Phase.WORKING, automation="disk-cleanup")).items == ()


async def test_a_run_reads_back_as_inserted_and_is_inserted_once(db: Database) -> None:
    runs = Runs(db)
    new = run(1)
    assert await runs.insert(new) == new
    again = new.model_copy(update={"automation": "other"})
    assert await runs.insert(again) == new
    assert await runs.get("acme", new.id) == new


async def test_what_has_ended_stays_ended(db: Database) -> None:
    runs = Runs(db)
    new = await runs.insert(run(1))
    result = RunResult(phase=Phase.FAILED, rung=Rung.RULES, output={"x": 1.5}, failure="no", cost_microusd=None)
    assert await runs.set_rung(new.id, Rung.FALLBACK_MODEL)
    assert await runs.set_phase(new.id, Phase.FAILED, rung=Rung.RULES, result=result)
    assert not await runs.set_phase(new.id, Phase.SUCCEEDED)
    assert not await runs.set_rung(new.id, Rung.HUMAN)
    found = await runs.get("acme", new.id)
    assert found is not None
    assert (found.phase, found.rung, found.result) == (Phase.FAILED, Rung.RULES, result)
    assert found.updated_at > found.created_at
    assert not await runs.set_phase("run_none", Phase.WORKING)


async def test_approvals_page_filter_and_belong_to_their_tenant(db: Database) -> None:
    approvals = Approvals(db)
    mine = [await approvals.open(question(n)) for n in range(5)]
    await approvals.open(question(9, tenant="other", run_id="run_2", automation="disk-cleanup"))
    walked = await walk(lambda cursor: approvals.page("acme", cursor=cursor, limit=2))
    assert {row.request.id for row in walked} == {row.request.id for row in mine}
    assert len(walked) == 5
    await approvals.close("run_1.3", ApprovalState.DENIED)
    pending = await approvals.page("acme", state=ApprovalState.PENDING)
    assert {row.request.id for row in pending.items} == {"run_1.0", "run_1.1", "run_1.2", "run_1.4"}
    assert (await approvals.page("acme", run_id="run_2")).items == ()
    assert (await approvals.page("acme", automation="disk-cleanup")).items == ()
    assert len((await approvals.page(None, automation="disk-cleanup")).items) == 1
    assert await approvals.get("acme", "run_2.9") is None
    assert await approvals.get("other", "run_2.9") is not None
    assert await approvals.close("run_9.9", ApprovalState.DENIED) is None
    with pytest.raises(ValueError, match="does not close"):
        await approvals.close("run_1.1", ApprovalState.FROZEN)


async def test_of_many_runs_those_that_ended_are_told(db: Database) -> None:
    runs, made = Runs(db), [run(n, tenant=("acme", "other")[n % 2]) for n in range(1_003)]
    async with db.begin() as conn:
        for each in made:
            await runs.insert(each, conn=conn)
    at = (0, 499, 500, 750, 1_002)
    ends = {made[n].id: phase for n, phase in zip(at, cycle(p for p in Phase if p.final), strict=False)}
    for run_id, phase in ends.items():
        await runs.set_phase(run_id, phase)
    await runs.set_phase(made[1].id, Phase.AWAITING_APPROVAL)
    assert await runs.closed([each.id for each in made] + ["run_unknown"]) == set(ends)
    assert await runs.closed({made[0].id, made[1].id}) == {made[0].id}
    assert await runs.closed([]) == set()


async def test_of_several_runs_those_that_ask_are_told(db: Database) -> None:
    approvals = Approvals(db)
    for run_id in ("run_1", "run_2", "run_3"):
        await approvals.open(question(1, run_id=run_id))
        await approvals.open(question(2, run_id=run_id))
    await approvals.close("run_2.1", ApprovalState.DENIED)
    await approvals.close("run_3.1", ApprovalState.APPROVED)
    await approvals.close("run_3.2", ApprovalState.EXPIRED)
    frozen = FrozenQuestion(approval_id="run_1.1", state=ApprovalState.FROZEN, deadline=START)
    async with db.begin() as conn:
        await approvals.set_clock(frozen, conn=conn)
        await approvals.set_clock(frozen.model_copy(update={"approval_id": "run_1.2"}), conn=conn)
    async with db.read() as conn:
        assert await approvals.asking(["run_1", "run_2", "run_3", "run_4"], conn=conn) == {"run_1", "run_2"}
        assert await approvals.asking(["run_2", "run_3"], conn=conn) == {"run_2"}
        assert await approvals.asking([], conn=conn) == set()


@pytest.mark.parametrize("cursor", ["", "x", "%%%", "bm9uc2Vuc2U", "W10", "🚪", "A" * 500, "WyJydW5zIiwgIngiXQ"])
async def test_a_cursor_we_did_not_make_is_refused(db: Database, cursor: str) -> None:
    with pytest.raises(BadCursor):
        await Runs(db).page("acme", cursor=cursor)


async def test_a_cursor_of_another_list_is_refused(db: Database) -> None:
    runs = Runs(db)
    for n in range(2):
        await runs.insert(run(n))
    page = await runs.page("acme", limit=1)
    with pytest.raises(BadCursor):
        await Approvals(db).page("acme", cursor=page.next_cursor)


@pytest.mark.parametrize("limit", [0, -1, 201])
async def test_a_limit_out_of_range_is_refused(db: Database, limit: int) -> None:
    with pytest.raises(ValueError, match="limit"):
        await Runs(db).page("acme", limit=limit)


@given(at=st.text(max_size=30), item=st.text(max_size=60))
def test_any_position_survives_the_cursor(at: str, item: str) -> None:
    if "\x00" not in at + item:
        encoded = encode_cursor("runs", Position(at, item))
        if len(encoded) <= 400:
            assert decode_cursor("runs", encoded) == Position(at, item)


@given(st.text())
def test_no_text_breaks_the_cursor(text: str) -> None:
    try:
        decode_cursor("runs", text)
    except BadCursor:
        pass


MOMENTS = st.datetimes(timezones=st.sampled_from([UTC, times.from_text("2026-01-01T00:00:00.000000Z").tzinfo]))


@given(MOMENTS, MOMENTS)
def test_times_sort_as_text_and_read_back(one: datetime, other: datetime) -> None:
    assert times.from_text(times.to_text(one)) == one
    assert (times.to_text(one) < times.to_text(other)) == (one < other)
    assert len(times.to_text(one)) == 27


def test_a_time_without_a_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="zone"):
        times.to_text(datetime(2026, 1, 1))  # noqa: DTZ001


def test_ids_sort_in_the_order_made() -> None:
    made = [new_id("run") for _ in range(2000)]
    assert made == sorted(set(made))
    assert all(len(i) == 30 and i.islower() for i in made)
