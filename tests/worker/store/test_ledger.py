"""One key, one effect: whatever claims and settles at once, a call is handed out once and ends once."""

import asyncio

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tools.contract import Outcome, ToolResult
from worker.store.audit import AuditEvent, AuditLog
from worker.store.database import Database
from worker.store.events import outcome_body, outcome_id
from worker.store.ids import new_id
from worker.store.ledger import Claim, ClaimLost, ClaimState, Ledger, LedgerConflict


@pytest.fixture
def ledger(db: Database) -> Ledger:
    return Ledger(db)


def result(words: str, outcome: Outcome = Outcome.SUCCEEDED) -> ToolResult:
    return ToolResult(outcome=outcome, content=words, duration_ms=12)


def event(key: str, what: ToolResult) -> AuditEvent:
    body = outcome_body(call_id=key, tool="write_file", key=key, result=what)
    return AuditEvent(outcome_id(f"run_{key}", key), "call.outcome", "default", f"run_{key}", "system:sandbox", body)


async def claim(
    ledger: Ledger, key: str, *, generation: int = 1, attempt: int = 1, owner: str = "w1", instead_of: str | None = None
) -> Claim:
    return await ledger.claim(
        key, generation=generation, tool="write_file", attempt=attempt, owner=owner, instead_of=instead_of
    )


async def settle(ledger: Ledger, key: str, words: str, outcome: Outcome = Outcome.SUCCEEDED) -> ToolResult:
    what = result(words, outcome)
    return await ledger.settle(key, what, event(key, what))


async def test_claim_then_settle_then_read_back(ledger: Ledger, audit: AuditLog) -> None:
    assert (await claim(ledger, "k")).state is ClaimState.NEW
    assert (await ledger.get("k")) is not None
    assert await settle(ledger, "k", "done") == result("done")
    again = await claim(ledger, "k", attempt=2)
    assert (again.state, again.result) == (ClaimState.SETTLED, result("done"))
    [record] = await audit.page(tenant="default", type="call.outcome")
    assert record.body["content_bytes"] == 4
    assert record.body["content_head"] == "done"


async def test_a_second_attempt_learns_who_held_the_key(ledger: Ledger) -> None:
    await claim(ledger, "k", attempt=1, owner="w1")
    second = await claim(ledger, "k", attempt=2, owner="w2")
    assert (second.state, second.attempt, second.owner) == (ClaimState.HELD, 1, "w1")
    over = await claim(ledger, "k", attempt=2, owner="w2", instead_of="w1")
    assert (over.state, over.owner) == (ClaimState.NEW, "w2")
    third = await claim(ledger, "k", attempt=3, owner="w3", instead_of="w1")
    assert (third.state, third.attempt, third.owner) == (ClaimState.HELD, 2, "w2")


async def test_of_many_who_replace_a_holder_one_gets_the_key(ledger: Ledger) -> None:
    await claim(ledger, "k", owner="gone")
    found = await asyncio.gather(*(claim(ledger, "k", owner=f"w{n}", instead_of="gone") for n in range(8)))
    assert [c.state for c in found].count(ClaimState.NEW) == 1


async def test_who_lost_the_key_settles_nothing(ledger: Ledger, audit: AuditLog) -> None:
    await claim(ledger, "k", owner="cut off")
    await claim(ledger, "k", owner="w2", instead_of="cut off")
    what = result("late")
    with pytest.raises(ClaimLost):
        await ledger.settle("k", what, event("k", what), owner="cut off")
    assert await audit.page(tenant=None) == []
    mine = result("done")
    assert await ledger.settle("k", mine, event("k", mine), owner="w2") == mine
    assert await ledger.settle("k", what, event("k", what), owner="cut off") == mine


async def test_the_same_claimer_asking_twice_is_not_given_the_key_twice(ledger: Ledger) -> None:
    """A claim whose commit was in doubt may have got through, and the call may have been run."""
    assert (await claim(ledger, "k")).state is ClaimState.NEW
    assert (await claim(ledger, "k")).state is ClaimState.HELD


async def test_a_human_order_opens_one_new_generation(ledger: Ledger) -> None:
    await claim(ledger, "k")
    assert (await claim(ledger, "k", generation=2)).state is ClaimState.NEW
    assert (await claim(ledger, "k", generation=2, attempt=2)).state is ClaimState.HELD
    late = await claim(ledger, "k", generation=1, attempt=3, owner="zombie")
    assert (late.state, late.generation) == (ClaimState.HELD, 2)
    assert (await claim(ledger, "k", generation=2)).owner == "w1"


async def test_a_refused_call_can_never_be_claimed(ledger: Ledger) -> None:
    await settle(ledger, "k", "denied by rule", Outcome.DENIED)
    for generation in (1, 2, 3):
        found = await claim(ledger, "k", generation=generation)
        assert (found.state, found.result) == (ClaimState.SETTLED, result("denied by rule", Outcome.DENIED))


async def test_what_is_settled_first_stays(ledger: Ledger, audit: AuditLog) -> None:
    await claim(ledger, "k")
    assert await settle(ledger, "k", "nobody knows", Outcome.UNKNOWN) == result("nobody knows", Outcome.UNKNOWN)
    assert await settle(ledger, "k", "late") == result("nobody knows", Outcome.UNKNOWN)
    assert len(await audit.page(tenant=None)) == 1


async def test_result_and_record_stand_or_fall_together(ledger: Ledger, audit: AuditLog) -> None:
    what = result("done")
    broken = AuditEvent("run_k/x", "no.such.type", "default", "run_k", "system:sandbox", {})
    with pytest.raises(ValueError, match="not an audit event"):
        await ledger.settle("k", what, broken)
    assert await ledger.get("k") is None
    assert await audit.page(tenant=None) == []


async def test_one_call_under_two_keys_is_refused(ledger: Ledger) -> None:
    await settle(ledger, "k", "done")
    other = result("done again")
    with pytest.raises(LedgerConflict):
        await ledger.settle("k2", other, event("k", other))
    assert await ledger.get("k2") is None


async def test_of_many_claims_at_once_one_gets_the_key(ledger: Ledger) -> None:
    for turn in range(5):
        found = await asyncio.gather(*(claim(ledger, f"k{turn}", attempt=n) for n in range(8)))
        assert sorted(c.state for c in found) == [ClaimState.HELD] * 7 + [ClaimState.NEW]


async def test_of_many_claims_of_a_new_generation_at_once_one_gets_the_key(ledger: Ledger) -> None:
    await claim(ledger, "k")
    found = await asyncio.gather(*(claim(ledger, "k", generation=2, attempt=n) for n in range(8)))
    assert [c.state for c in found].count(ClaimState.NEW) == 1


async def test_of_many_settles_at_once_one_result_stands(ledger: Ledger, audit: AuditLog) -> None:
    for turn in range(5):
        found = await asyncio.gather(*(settle(ledger, f"k{turn}", f"from {n}") for n in range(8)))
        assert len(set(found)) == 1
    assert len(await audit.page(tenant=None)) == 5
    assert (await audit.verify()).ok


async def test_a_refusal_racing_a_claim_leaves_one_story(ledger: Ledger) -> None:
    for turn in range(8):
        key = f"k{turn}"
        refused, taken = await asyncio.gather(settle(ledger, key, "no", Outcome.DENIED), claim(ledger, key))
        if taken.state is ClaimState.SETTLED:
            assert taken.result == refused
        else:
            assert taken.state is ClaimState.NEW
        assert (await claim(ledger, key, attempt=2)).result == refused


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("claim"), st.integers(1, 3), st.sampled_from(["w1", "w2"])),
        st.tuples(st.just("replace w1"), st.integers(1, 3), st.just("w2")),
        st.tuples(st.just("settle"), st.integers(0, 2), st.sampled_from(list(Outcome))),
    ),
    max_size=8,
)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
async def test_any_sequence_follows_the_state_machine(ledger: Ledger, steps: list[tuple[str, int, str]]) -> None:
    key = new_id("key")
    generation, holder, settled = 0, None, None
    for what, number, who in steps:
        if what == "settle":
            found = await settle(ledger, key, str(number), Outcome(who))
            settled = settled or result(str(number), Outcome(who))
            assert found == settled
            continue
        replaced = "w1" if what == "replace w1" else None
        got = await claim(ledger, key, generation=number, owner=who, instead_of=replaced)
        if settled is not None:
            assert (got.state, got.result) == (ClaimState.SETTLED, settled)
        elif number > generation or (number == generation and replaced is not None and replaced == holder):
            assert got.state is ClaimState.NEW
            generation, holder = number, who
        else:
            assert (got.state, got.owner, got.generation) == (ClaimState.HELD, holder, generation)
