"""500 answers race each other, deadlines and cancellations: no call runs without a yes that counted, none is decided
twice, and whoever was told that the answer counts finds it on record."""

import asyncio
import random
from collections import Counter

from temporalio.client import WorkflowFailureError, WorkflowUpdateFailedError
from temporalio.service import RPCError

from policies.decision import Principal
from policies.terms import Terms
from tests.workflows.house import House, Started, automation, one_call
from tools.contract import Outcome
from workflows.contracts import AnswerAccepted, ApprovalRequest, ApprovalState, Phase

RUNS, ANSWERS = 20, 25
SPREAD_S = 2.0
AT_ONCE = 5
ENDS = {"approved", "denied", "expired", "cancelled"}


async def test_answers_race_deadlines_and_cancellations(house: House) -> None:
    house.gate.terms |= {"race soon": Terms(deadline_s=1), "race two": Terms(needed=2), "race kept": Terms()}
    room = asyncio.Semaphore(AT_ONCE)
    ends = Counter(await asyncio.gather(*(_race(house, n, room) for n in range(RUNS))))
    assert ends["approved"], ends


async def _race(house: House, n: int, room: asyncio.Semaphore) -> str:
    async with room:
        return await _one_run(house, n)


async def _one_run(house: House, n: int) -> str:
    """One run, its people, its deadline and, for some, its cancellation; how its question ended."""
    chance = random.Random(n)
    text = ("race soon", "race two", "race kept", "race kept")[n % 4]
    run = await house.start(automation(rules=one_call(text)))
    question = await run.question()

    async def one(who: int) -> tuple[str, AnswerAccepted] | None:
        await asyncio.sleep(chance.uniform(0, SPREAD_S))
        by = Principal(id=f"p{who}", roles=("approver",))
        try:
            verdict = chance.choice(("approve", "approve", "approve", "deny"))
            return by.id, await house.say(run, question, verdict, by)
        except (WorkflowUpdateFailedError, RPCError):
            return None

    async def cancel() -> None:
        if n % 4 == 3:
            await asyncio.sleep(chance.uniform(0, SPREAD_S))
            await run.handle.cancel()

    said, _ = await asyncio.gather(asyncio.gather(*map(one, range(ANSWERS))), cancel())
    return await _check(house, run, question, text, [a for a in said if a is not None])


async def _check(
    house: House, run: Started, question: ApprovalRequest, text: str, counted: list[tuple[str, AnswerAccepted]]
) -> str:
    """The promises, for one run; how its question ended."""
    try:
        result = await run.result()
        effects = await house.effects(result)
        assert result.phase is Phase.SUCCEEDED
    except WorkflowFailureError:
        effects = None  # cancelled: what it left is gone, so its outcome must say what happened
    deciding = [a for _, a in counted if a.state is not ApprovalState.PENDING]
    [closed] = [r for r in await house.records(run) if r.event_id.endswith(f"{question.id}/closed")]
    ended = closed.type.removeprefix("approval.")
    row = await house.approvals.get(None, question.id)
    assert row is not None
    assert (row.state.value, ended in ENDS) == (ended, True)
    assert len(deciding) <= 1
    heard = [a.principal.id for a in row.progress.answers]
    assert len(set(heard)) == len(heard)
    assert {name for name, _ in counted} <= set(heard)
    if ended == "approved":
        assert sum(a.verdict == "approve" for a in row.progress.answers) == (2 if text == "race two" else 1)
    [outcome] = (await house.outcomes(run)).values()
    if outcome in (Outcome.SUCCEEDED.value, Outcome.UNKNOWN.value, Outcome.FAILED.value):
        assert ended == "approved"
    if effects is not None:
        assert effects == ([text] if ended == "approved" else [])
    return ended
