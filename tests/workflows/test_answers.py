"""Whose answer counts: signatures, digests, four eyes, roles, deadlines, and answers that meet their deadline."""

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from temporalio.api.enums.v1 import EventType
from temporalio.client import WorkflowUpdateFailedError
from temporalio.exceptions import ApplicationError
from temporalio.testing import TimeSkipper

from policies.decision import Principal
from tests.fixtures.provider import answer, calls
from tests.workflows.house import RUTH, House, Started, automation, signed_by_another, until, workers
from worker.store.signing import AnswerKey
from workflows.contracts import ApprovalAnswer, ApprovalRequest, ApprovalState, Phase

Change = Callable[[House, ApprovalRequest], ApprovalAnswer]


@pytest.fixture(scope="module")
async def asked(house: House) -> AsyncIterator[tuple[Started, ApprovalRequest]]:
    """A run that waits for a human; wrong answers must leave it waiting."""
    house.provider.script("asked", calls(("erase", {"text": "old"})), answer(said="gone"))
    run = await house.start(automation("practice:asked"))
    question = await run.question()

    async def clock_runs() -> bool:
        events = (await run.handle.fetch_history()).events
        return any(e.event_type == EventType.EVENT_TYPE_TIMER_STARTED for e in events)

    await until(clock_runs)
    yield run, question
    await house.say(run, question, "deny")
    await run.result()


def _forged(house: House, question: ApprovalRequest) -> ApprovalAnswer:
    return signed_by_another(house.signed(question, "approve"), AnswerKey(Ed25519PrivateKey.generate()))


def _changed(**changes: Any) -> Change:
    """Signed, then changed: the signature no longer covers it."""
    return lambda house, question: house.signed(question, "approve").model_copy(update=changes)


def _as(principal: Principal, **changes: Any) -> Change:
    return lambda house, question: house.signed(question, "approve", principal, **changes)


BOTH = Principal(id="olga", roles=("operator", "approver", "admin"))
WRONG: dict[str, tuple[Change, str]] = {
    "forged signature": (_forged, "bad_signature"),
    "no signature": (_changed(signature=""), "bad_signature"),
    "verdict changed after signing": (_changed(verdict="deny"), "bad_signature"),
    "edit added after signing": (_changed(edited_arguments={"text": "new"}), "bad_signature"),
    "requester approves": (_as(BOTH), "self_approval"),
    "requester approves as Olga": (_as(BOTH.model_copy(update={"id": "OLGA"})), "self_approval"),
    "role missing": (_as(Principal(id="vera", roles=("viewer",))), "not_an_approver"),
    "another tenant": (_as(RUTH.model_copy(update={"tenant": "other"})), "not_an_approver"),
    "other arguments": (_as(RUTH, digest="0" * 64), "args_changed"),
    "another version of the tool": (_as(RUTH, tool_version="0.0.1"), "args_changed"),
    "another policy": (_as(RUTH, policy_version="of yesterday"), "policy_changed"),
    "answer expired": (_as(RUTH, expires_at=datetime(2020, 1, 1, tzinfo=UTC)), "expired"),
    "edit does not fit": (_as(RUTH, edited_arguments={"text": 1}), "invalid_arguments"),
    "unknown question, moved there after signing": (_changed(approval_id="run_x.9"), "bad_signature"),
    "unknown question": (_as(RUTH, approval_id="run_x.9"), "not_found"),
}


@pytest.mark.parametrize("change", WRONG)
async def test_a_wrong_answer_is_refused_and_leaves_no_event(
    house: House, asked: tuple[Started, ApprovalRequest], change: str
) -> None:
    run, question = asked
    make, reason = WRONG[change]
    before = len((await run.handle.fetch_history()).events)
    with pytest.raises(WorkflowUpdateFailedError) as refused:
        await house.send(run, make(house, question))
    assert isinstance(refused.value.cause, ApplicationError)
    assert refused.value.cause.type == reason
    assert [q.id for q in (await run.state()).waiting] == [question.id]
    assert len((await run.handle.fetch_history()).events) == before


async def test_the_first_answer_stands(house: House) -> None:
    house.provider.script("first", calls(("erase", {"text": "old"})), answer(said="gone"))
    run = await house.start(automation("practice:first"))
    question = await run.question()
    accepted = await house.say(run, question, "deny")
    assert accepted.state is ApprovalState.DENIED
    with pytest.raises(WorkflowUpdateFailedError) as refused:
        await house.say(run, question, "approve")
    assert isinstance(refused.value.cause, ApplicationError)
    assert refused.value.cause.type == "already_decided"
    assert await house.effects(await run.result()) == []


async def test_an_answer_sent_twice_under_one_id_is_taken_once(house: House) -> None:
    house.provider.script("twice", calls(("erase", {"text": "old"})), answer(said="gone"))
    run = await house.start(automation("practice:twice"))
    signed = house.signed(await run.question(), "approve")
    results = [await house.send(run, signed, id="once") for _ in range(2)]
    assert results[0] == results[1]
    assert await house.effects(await run.result()) == ["old"]


# ---------------------------------------------------------------- deadlines


@pytest.fixture
def skipper(house: House) -> TimeSkipper:
    """Forwards the clock of single workflows of the real server."""
    return TimeSkipper(house.client)


async def test_the_deadline_denies(house: House, skipper: TimeSkipper) -> None:
    house.provider.script("late", calls(("erase", {"text": "old"})), answer(said="kept"))
    run = await house.start(automation("practice:late"))
    question = await run.question()
    await skipper.fast_forward(run.handle, timedelta(hours=25))
    result = await run.result()
    assert await house.effects(result) == []
    assert await house.outcomes(run) == {"c1-1": "expired"}
    assert "Nobody approved" in house.provider.told("late")[0]
    [row] = await house.records(run, "approval.expired")
    assert question.id in row.event_id


async def test_an_answer_before_the_deadline_counts_days_later(house: House, skipper: TimeSkipper) -> None:
    house.provider.script("days", calls(("erase", {"text": "old"})), answer(said="gone"))
    spec = automation("practice:days", approvals={"deadline_s": 10 * 86400})
    run = await house.start(spec)
    question = await run.question()
    await skipper.fast_forward(run.handle, timedelta(days=9, hours=23))
    assert (await run.state()).phase is Phase.AWAITING_APPROVAL
    await house.say(run, question, "approve")
    assert await house.effects(await run.result()) == ["old"]


async def test_waiting_for_humans_is_not_working_time(house: House, skipper: TimeSkipper) -> None:
    house.provider.script("patient", calls(("erase", {"text": "old"})), answer(said="gone"))
    run = await house.start(automation("practice:patient", budgets={"wall_time_s": 60}))
    question = await run.question()
    await skipper.fast_forward(run.handle, timedelta(hours=2))
    await house.say(run, question, "approve")
    assert (await run.result()).phase is Phase.SUCCEEDED


async def test_an_answer_that_arrives_after_the_deadline_is_refused_whenever_it_was_sent(lone_house: House) -> None:
    """Sent in time, but no worker was there to take it before the timer fired: deadline and answer meet in one task."""
    lone_house.provider.script("race", calls(("erase", {"text": "old"})), answer(said="kept"))
    async with workers(lone_house):
        run = await lone_house.start(automation("practice:race", approvals={"deadline_s": 8}))
        signed = lone_house.signed(await run.question(), "approve")
    sent = asyncio.create_task(lone_house.send(run, signed))
    await asyncio.sleep(9)
    async with workers(lone_house):
        with pytest.raises(WorkflowUpdateFailedError) as refused:
            await sent
        result = await run.result()
    assert isinstance(refused.value.cause, ApplicationError)
    assert refused.value.cause.type == "expired"
    assert await lone_house.effects(result) == []
    assert await lone_house.outcomes(run) == {"c1-1": "expired"}
