"""Grants at the gate and keys that change: what was said beforehand counts as far as it says, and no further."""

import asyncio
import functools
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest
import sqlalchemy as sa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from temporalio.api.enums.v1 import EventType
from temporalio.client import WorkflowUpdateFailedError

from policies.decision import Principal
from policies.signatures import ANSWER, DELEGATION, SUCCESSION, Succession
from policies.standing import Delegation
from policies.terms import Terms
from tests.fixtures.provider import answer, calls
from tests.workflows.house import OLGA, RUTH, House, Started, automation, put_grant, until
from tools.contract import Outcome, arguments_digest
from worker.store.ids import new_id
from worker.store.signing import AnswerKey, public_keys, revoke, rotate
from worker.store.tables import delegation
from workflows.contracts import Phase, RunState


async def run_erase(house: House, *texts: str, by: Principal = OLGA) -> Started:
    name = new_id("model")
    house.provider.script(name, calls(*[("erase", {"text": text}) for text in texts]), answer(said="done"))
    return await house.start(automation(f"practice:{name}"), by=by)


async def asked_about(run: Started, house: House) -> None:
    """The run waits for a human; deny it."""
    question = await run.question()
    await house.say(run, question, "deny")
    await run.result()


async def test_a_grant_lets_like_calls_run_as_often_as_it_says(house: House) -> None:
    grant = await put_grant(house, uses=2)
    run = await run_erase(house, "old one", "old two", "old three")
    question = await run.question()
    await house.say(run, question, "deny")
    result = await run.result()
    assert len(await house.effects(result)) == 2
    used = await house.records(run, "grant.used")
    assert [r.body["grant_id"] for r in used] == [grant.id] * 2
    decisions = [cast("dict[str, Any]", r.body["decision"]) for r in await house.records(run, "gate.decided")]
    assert [d["verdict"] for d in decisions if d["grant"] == grant.id] == ["allow"] * 2
    [row] = [g for g in await house.standing.grants("default") if g.grant.id == grant.id]
    assert row.used == 2
    await house.standing.revoke_grant("default", grant.id, "ada")


@pytest.mark.parametrize(
    "changes",
    [
        {"until": datetime(2020, 1, 1, tzinfo=UTC)},
        {"created_by": "OLGA"},
        {"tenant": "other"},
        {"automation": "another"},
        {"tool": "note"},
        {"rule": "another-rule"},
        {"arguments": {"text": "older*"}},
        {"arguments": {"text": "old*", "seconds": "*"}},
        {"arguments": None},
        {"arguments": None, "digest": arguments_digest("erase", {"text": "other"})},
    ],
    ids=",".join,
)
async def test_a_grant_that_does_not_fit_counts_for_nothing(house: House, changes: dict[str, Any]) -> None:
    grant = await put_grant(house, **changes)
    await asked_about(await run_erase(house, "old thing"), house)
    await house.standing.revoke_grant(grant.tenant, grant.id, "ada")


async def test_a_grant_nobody_signed_or_that_was_revoked_counts_for_nothing(house: House) -> None:
    forged = await put_grant(house)
    wider = forged.model_copy(update={"id": new_id("grant"), "uses": 1000})
    await house.standing.add_grant(wider)
    await house.standing.revoke_grant("default", forged.id, "ada")
    await asked_about(await run_erase(house, "old thing"), house)
    await house.standing.revoke_grant("default", wider.id, "ada")


async def test_a_grant_never_stands_for_several_people_nor_against_a_deny(house: House) -> None:
    house.gate.terms["old pair"] = Terms(needed=2)
    grant = await put_grant(house, uses=9)
    denied = await put_grant(house, uses=9, arguments={"text": "never*"})
    await asked_about(await run_erase(house, "old pair"), house)
    refused = await run_erase(house, "never: this")
    assert await house.effects(await refused.result()) == []
    for made in (grant, denied):
        await house.standing.revoke_grant("default", made.id, "ada")


async def test_many_calls_at_once_use_a_grant_no_more_often_than_it_says(house: House) -> None:
    grant = await put_grant(house, uses=3)
    runs = await asyncio.gather(*(run_erase(house, f"old {n}") for n in range(6)))
    for run in runs:
        [state] = await until(functools.partial(settled, run))
        if state.waiting:
            await house.say(run, state.waiting[0], "deny")
    effects = [await house.effects(await run.result()) for run in runs]
    assert sum(map(len, effects)) == 3
    [row] = [g for g in await house.standing.grants("default") if g.grant.id == grant.id]
    assert row.used == 3


async def settled(run: Started) -> list[RunState]:
    state = await run.state()
    return [state] if state.waiting or state.phase.final else []


async def test_a_delegation_needs_its_signature_and_ends(house: House) -> None:
    now = datetime.now(UTC)
    bea = Principal(id="bea", roles=("viewer",))
    made = Delegation(
        id=new_id("dlg"), absent=RUTH, stand_in="Bea", until=now + timedelta(hours=1), created_by="ruth", created_at=now
    )
    signed = house.key.sign(made, DELEGATION)
    await house.standing.add_delegation(signed.model_copy(update={"id": new_id("dlg"), "stand_in": "eve"}))
    await house.standing.add_delegation(signed)
    others = [
        {
            "id": new_id("dlg"), "tenant": "default", "absent": f"other-{n}", "stand_in": "bea", "content": "{}",
            "until": now + timedelta(hours=1), "created_at": now + timedelta(seconds=1),
        }
        for n in range(501)
    ]  # fmt: skip
    async with house.db.begin() as conn:
        await conn.execute(sa.insert(delegation), others)
    assert await house.standing.absent(bea, "ruth", now) == RUTH, "however many are newer"
    async with house.db.begin() as conn:
        await conn.execute(sa.delete(delegation).where(delegation.c.absent.like("other-%")))
    assert await house.standing.absent(bea, "ruth", now + timedelta(hours=1)) is None
    assert await house.standing.absent(bea, "ray", now) is None
    assert await house.standing.absent(bea.model_copy(update={"tenant": "other"}), "ruth", now) is None
    assert await house.standing.absent(Principal(id="eve"), "ruth", now) is None
    await house.standing.revoke_delegation("default", signed.id, "ruth")
    assert await house.standing.absent(bea, "ruth", now) is None


# ---------------------------------------------------------------- keys


async def refused(sending: Any) -> str:
    with pytest.raises(WorkflowUpdateFailedError) as error:
        await sending
    return str(getattr(error.value.cause, "type", None))


async def test_a_rotated_key_answers_questions_that_were_put_before(house: House) -> None:
    run = await run_erase(house, "kept waiting")
    question = await run.question()
    before = house.key
    between, after = rotate(house.settings.keys, _unrecorded), rotate(house.settings.keys, _unrecorded)
    assert len({before.key_id, between.key_id, after.key_id}) == 3  # the run follows a chain
    signed = after.sign_answer(house.signed(question, "approve"))
    assert await refused(house.send(run, signed.model_copy(update={"succession": None}))) == "bad_signature"
    stranger = AnswerKey(Ed25519PrivateKey.generate())
    link = stranger.sign(Succession(public_key=stranger.public_base64, key_id=""), SUCCESSION)
    claimed = signed.model_copy(update={"succession": (link.model_copy(update={"key_id": before.key_id}), link)})
    assert await refused(house.send(run, stranger.sign(claimed, ANSWER))) == "bad_signature"
    await house.send(run, signed)
    assert await house.effects(await run.result()) == ["kept waiting"]


async def test_what_a_revoked_key_signed_runs_nothing(house: House) -> None:
    run = await run_erase(house, "stolen")
    question = await run.question()
    stolen = house.key
    rotate(house.settings.keys, _unrecorded)
    revoke(house.settings.keys, stolen.key_id, _unrecorded)
    assert stolen.key_id not in public_keys(house.settings.keys)
    try:
        with pytest.raises(WorkflowUpdateFailedError) as unrecorded:
            await house.send(run, stolen.sign_answer(house.signed(question, "approve")))
        assert "could not be recorded" in str(unrecorded.value.cause)
        result = await run.result()
    finally:
        (house.settings.keys / f"answer-{stolen.key_id}.revoked").unlink()
    assert result.phase is Phase.FAILED
    assert await house.effects(result) == []
    assert set((await house.outcomes(run)).values()) <= {Outcome.FAILED.value, Outcome.CANCELLED.value}


async def test_a_later_word_on_record_does_not_vouch_for_an_earlier_one(house: House) -> None:
    """Two are told of the same question while the first cannot be recorded: neither hears that it was."""
    run = await run_erase(house, "two words")
    question = await run.question()
    house.doors.shut(run.id, "run.commit")
    stolen, reply = house.key, house.action(question, "reply", OLGA, text="it is full")
    early = asyncio.create_task(house.act(run, question, "ask", text="why?"))
    await until(lambda: house.doors.waiting(run.id, "run.commit"))
    fresh = rotate(house.settings.keys, _unrecorded)
    revoke(house.settings.keys, stolen.key_id, _unrecorded)
    try:
        late = asyncio.create_task(house.send_action(run, fresh.sign_action(reply)))
        await until(functools.partial(updates_taken, run, 2))
        house.doors.open(run.id, "run.commit")
        for word in (early, late):
            with pytest.raises(WorkflowUpdateFailedError) as unrecorded:
                await word
            assert "could not be recorded" in str(unrecorded.value.cause)
        assert (await run.result()).phase is Phase.FAILED
    finally:
        (house.settings.keys / f"answer-{stolen.key_id}.revoked").unlink()
    assert [r.actor for r in await house.records(run, "approval.replied")] == ["olga"]
    assert await house.records(run, "approval.asked_back") == []


async def updates_taken(run: Started, count: int) -> bool:
    accepted = EventType.EVENT_TYPE_WORKFLOW_EXECUTION_UPDATE_ACCEPTED
    return [event.event_type for event in (await run.handle.fetch_history()).events].count(accepted) == count


def _unrecorded(*_: str) -> None:
    """The log has its own tests."""
