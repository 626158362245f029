"""Promises: a yes is for one call and one execution, a no is not worn down by asking again, an edit leaves no yes for
what it replaced; no deadline says yes to anything, and that of an answered question ends nothing later."""

from datetime import timedelta
from typing import Any

import pytest
from temporalio.testing import TimeSkipper

from policies.terms import Terms
from tests.fixtures.provider import answer, calls
from tests.workflows.house import House, automation
from tests.workflows.test_endings import lost_call
from workflows.contracts import Phase, Question

FIRST: dict[str, tuple[str, dict[str, Any], list[str]]] = {
    "approved": ("approve", {}, ["all"]),
    "edited": ("approve", {"edited_arguments": {"text": "one"}}, ["one"]),
    "denied": ("deny", {"reason": "not that"}, []),
}


@pytest.mark.parametrize("first", FIRST)
async def test_the_same_call_again_is_asked_about_again(house: House, first: str) -> None:
    verdict, said, effects = FIRST[first]
    again = calls(("erase", {"text": "all"}))
    house.provider.script(f"again-{first}", again, again, answer(said="done"))
    run = await house.start(automation(f"practice:again-{first}"))
    asked = await run.question()
    await house.say(run, asked, verdict, **said)
    second = await run.question(2)
    assert (second.digest, second.because, second.follows) == (asked.digest, "", None), "asked anew, not gone on with"
    await house.say(run, second, "deny", reason="once is enough")
    assert await house.effects(await run.result()) == effects
    assert await house.outcomes(run) == {"c1-1": "succeeded" if effects else "denied", "c2-1": "denied"}
    told = house.provider.told(f"again-{first}")
    assert f'"did": "{effects[0]}"' in told[0] if effects else "not that" in told[0]
    assert "once is enough" in told[1]


async def test_whatever_is_asked_names_the_rule_that_asks(house: House) -> None:
    """Nobody is asked at random: the question, the gate's decision and the log say the same rule."""
    house.provider.script("why", calls(("note", {"text": "a"}), ("erase", {"text": "b"})), answer(said="done"))
    run = await house.start(automation("practice:why"))
    asked = await run.question()
    decided = await house.records(run, "gate.decided")
    gated: dict[str, Any] = {str(r.body["call_id"]): r.body["decision"] for r in decided}
    assert {call: decision["verdict"] for call, decision in gated.items()} == {"c1-1": "allow", "c1-2": "ask"}
    assert asked.rule == gated["c1-2"]["rule"] == "destructive-needs-approval"
    assert (await run.state()).waiting == (asked,), "what is allowed is not asked about"
    await house.say(run, asked, "deny")
    await run.result()


# ---------------------------------------------------------------- time


@pytest.fixture
def skipper(house: House) -> TimeSkipper:
    """Forwards the clock of single workflows of the real server."""
    return TimeSkipper(house.client)


async def test_the_deadline_of_an_answered_question_ends_nothing(house: House, skipper: TimeSkipper) -> None:
    house.gate.terms |= {"soon": Terms(deadline_s=3600), "later": Terms(deadline_s=10 * 86400)}
    wanted = (("note", {"text": "soon"}), ("note", {"text": "later"}))
    house.provider.script("late-timer", calls(*wanted), answer(said="done"))
    run = await house.start(automation("practice:late-timer"))
    first, second = await run.questions(f"{run.id}.1", f"{run.id}.2")
    soon, later = (first, second) if first.deadline < second.deadline else (second, first)
    await house.say(run, soon, "approve")
    await skipper.fast_forward(run.handle, timedelta(hours=2))
    assert (await run.state()).phase is Phase.AWAITING_APPROVAL
    await house.say(run, later, "approve")
    result = await run.result()
    assert result.phase is Phase.SUCCEEDED
    assert sorted(await house.effects(result)) == ["later", "soon"]
    assert await house.records(run, "approval.expired") == []


async def test_silence_never_repeats_a_call_of_unknown_outcome(house: House, skipper: TimeSkipper) -> None:
    run = await lost_call(house, "lost-silent")
    assert (await run.question(2)).question is Question.UNKNOWN_OUTCOME
    await skipper.fast_forward(run.handle, timedelta(days=8))
    assert await house.effects(await run.result()) == ["once"]
    assert await house.outcomes(run) == {"c1-1": "unknown"}
    assert len(await house.records(run, "approval.expired")) == 1
