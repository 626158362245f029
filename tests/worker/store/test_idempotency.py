"""A repeated request gets the first answer, and the work is done once."""

import asyncio
from datetime import timedelta

import pytest

from policies.decision import Principal
from worker.store import times
from worker.store.database import Database
from worker.store.idempotency import BUSY_FOR, KEPT_FOR, Idempotency, Reservation, ReserveState, StoredResponse

ALICE = Principal(id="alice", tenant="acme")
ANSWER = StoredResponse(status=202, headers={"location": "/api/v1/runs/run_1"}, body={"id": "run_1"})


@pytest.fixture
def keys(db: Database) -> Idempotency:
    return Idempotency(db)


async def reserve(
    keys: Idempotency, resource: str = "run_1", *, who: Principal = ALICE, fingerprint: str = "f",
    late: timedelta = timedelta(),
) -> Reservation:  # fmt: skip
    return await keys.reserve(who, "key", fingerprint, resource_id=resource, now=times.now() + late)


async def test_a_repeat_gets_the_first_answer(keys: Idempotency) -> None:
    first = await reserve(keys)
    assert (first.state, first.resource_id) == (ReserveState.NEW, "run_1")
    assert (await reserve(keys, "run_2")).state is ReserveState.IN_PROGRESS
    assert await keys.complete(first, ANSWER)
    again = await reserve(keys, "run_2")
    assert (again.state, again.response, again.resource_id) == (ReserveState.REPLAY, ANSWER, "run_1")


async def test_another_request_under_the_key_is_a_conflict(keys: Idempotency) -> None:
    first = await reserve(keys)
    assert (await reserve(keys, fingerprint="g")).state is ReserveState.CONFLICT
    await keys.complete(first, ANSWER)
    assert (await reserve(keys, fingerprint="g")).state is ReserveState.CONFLICT


@pytest.mark.parametrize("who", [Principal(id="bob", tenant="acme"), Principal(id="alice", tenant="other")])
async def test_a_key_belongs_to_its_principal(keys: Idempotency, who: Principal) -> None:
    await keys.complete(await reserve(keys), ANSWER)
    assert (await reserve(keys, "run_2", who=who)).state is ReserveState.NEW


async def test_of_many_equal_requests_at_once_one_works(keys: Idempotency) -> None:
    found = await asyncio.gather(*(reserve(keys, f"run_{n}") for n in range(8)))
    assert [r.state for r in found].count(ReserveState.NEW) == 1
    assert [r.state for r in found].count(ReserveState.IN_PROGRESS) == 7
    assert len({r.resource_id for r in found}) == 1


async def test_a_dead_request_is_taken_over_under_its_resource_id(keys: Idempotency) -> None:
    dead = await reserve(keys)
    assert (await reserve(keys, "run_2", late=BUSY_FOR - timedelta(seconds=5))).state is ReserveState.IN_PROGRESS
    heir = await reserve(keys, "run_2", late=BUSY_FOR + timedelta(seconds=1))
    assert (heir.state, heir.resource_id) == (ReserveState.NEW, "run_1")
    assert not await keys.complete(dead, ANSWER.model_copy(update={"status": 500}))
    assert await keys.complete(heir, ANSWER)
    assert (await reserve(keys)).response == ANSWER


async def test_a_failed_request_may_be_repeated_at_once(keys: Idempotency) -> None:
    failed = await reserve(keys)
    await keys.release(failed)
    again = await reserve(keys, "run_2")
    assert (again.state, again.resource_id) == (ReserveState.NEW, "run_1")
    await keys.release(failed)  # no longer its key: changes nothing
    assert (await reserve(keys)).state is ReserveState.IN_PROGRESS


async def test_an_old_key_may_be_used_anew(keys: Idempotency) -> None:
    await keys.complete(await reserve(keys), ANSWER)
    assert (await reserve(keys, late=KEPT_FOR - timedelta(minutes=1))).state is ReserveState.REPLAY
    fresh = await reserve(keys, "run_2", fingerprint="g", late=KEPT_FOR + timedelta(seconds=1))
    assert (fresh.state, fresh.resource_id) == (ReserveState.NEW, "run_2")


async def test_long_forgotten_keys_are_swept(keys: Idempotency) -> None:
    await keys.complete(await reserve(keys), ANSWER)
    await keys.reserve(ALICE, "other", "f", resource_id="r", now=times.now() + 3 * KEPT_FOR)
    assert (await reserve(keys, "run_2", fingerprint="g")).state is ReserveState.NEW


async def test_a_claim_in_a_transaction_that_fails_was_never_made(keys: Idempotency, db: Database) -> None:
    with pytest.raises(RuntimeError, match="crash"):
        await _reserve_and_crash(keys, db)
    assert (await reserve(keys, "run_2")).resource_id == "run_2"


async def _reserve_and_crash(keys: Idempotency, db: Database) -> None:
    async with db.begin() as conn:
        await keys.reserve(ALICE, "key", "f", resource_id="run_1", conn=conn)
        raise RuntimeError("crash")
