"""500 answers race each other, deadlines and cancellations: no call runs without a yes that counted, none is decided
twice, and whoever was told that the answer counts finds it on record."""

import asyncio
import random
from collections import Counter

from temporalio.client import WorkflowFailureError, WorkflowUpdateFailedError
from temporalio.service import RPCError

from policies.decision import Principal
from policies.terms import Terms
from tests.fixtures.provider import answer, calls
from tests.workflows.house import House, Started, automation
from tools.contract import Outcome
from workflows.contracts import AnswerAccepted, ApprovalRequest, ApprovalState, Phase

RUNS, ANSWERS = 20, 25
SPREAD_S = 3.0
ENDS = {"approved", "denied", "expired", "cancelled"}


async def test_answers_race_deadlines_and_cancellations(house: House) -> None:
    house.gate.terms |= {"race": Terms(deadline_s=2), "slow": Terms(needed=2), "kept": Terms()}
    ends = Counter(await asyncio.gather(*(_race(house, n) for n in range(RUNS))))
    assert ends["approved"], ends


async def _race(house: House, n: int) -> str:
    """One run, its people, its deadline and, for some, its cancellation; how its question ended."""
    chance = random.Random(n)
    text = ("race", "slow", "kept", "kept")[n % 4]
    house.provider.script(f"r{n}", calls(("note", {"text": text})), answer(said="done"))
    run = await house.start(automation(f"practice:r{n}"))
    question = await run.question()

    async def one(who: int) -> AnswerAccepted | None:
        await asyncio.sleep(chance.uniform(0, SPREAD_S))
        by = Principal(id=f"p{who}", roles=("approver",))
        try:
            return await house.say(run, question, chance.choice(("approve", "approve", "approve", "deny")), by)
        except (WorkflowUpdateFailedError, RPCError):
            return None

    async def cancel() -> None:
        if n % 4 == 3:
            await asyncio.sleep(chance.uniform(0, SPREAD_S))
            await run.handle.cancel()

    said, _ = await asyncio.gather(asyncio.gather(*map(one, range(ANSWERS))), cancel())
    return await _check(house, run, question, text, [a for a in said if a is not None])


async def _check(
    house: House, run: Started, question: ApprovalRequest, text: str, counted: list[AnswerAccepted]
) -> str:
    """The promises, for one run; how its question ended."""
    try:
        result = await run.result()
        effects = await house.effects(result)
        assert result.phase is Phase.SUCCEEDED
    except WorkflowFailureError:
        effects = None  # cancelled: what it left is gone, so its outcome must say what happened
    deciding = [a for a in counted if a.state is not ApprovalState.PENDING]
    [closed] = [r for r in await house.records(run) if r.event_id.endswith(f"{question.id}/closed")]
    ended = closed.type.removeprefix("approval.")
    row = await house.approvals.get(None, question.id)
    assert row is not None
    assert (row.state.value, ended in ENDS) == (ended, True)
    assert len(deciding) <= 1
    assert [a.state.value for a in deciding] == ([ended] if ended in ("approved", "denied") else [])
    # Whoever was told that the answer counts is on record, and nobody else.
    assert len(row.progress.answers) == len(counted)
    assert len({a.principal.id for a in row.progress.answers}) == len(counted)
    if ended == "approved":
        assert sum(a.verdict == "approve" for a in row.progress.answers) == (2 if text == "slow" else 1)
    [outcome] = (await house.outcomes(run)).values()
    if outcome in (Outcome.SUCCEEDED.value, Outcome.UNKNOWN.value, Outcome.FAILED.value):
        assert ended == "approved"
    if effects is not None:
        assert effects == ([text] if ended == "approved" else [])
    return ended
