"""One tool call, from the gate to its outcome, on every way it can end."""

from tests.fixtures.provider import answer, calls
from tests.workflows.house import House, automation
from workflows.contracts import Phase, Rung


async def test_allowed_calls_run_once_each_and_their_results_reach_the_agent(house: House) -> None:
    house.provider.script("happy", calls(("note", {"text": "a"}), ("note", {"text": "b"})), answer(said="done"))
    run = await house.start(automation("practice:happy"))
    result = await run.result()
    assert (result.phase, result.rung, result.output) == (Phase.SUCCEEDED, Rung.MODEL, {"said": "done"})
    assert sorted(await house.effects(result)) == ["a", "b"]
    assert await house.outcomes(run) == {"c1-1": "succeeded", "c1-2": "succeeded"}
    assert ['"did": "a"' in told for told in house.provider.told("happy")] == [True, False]
