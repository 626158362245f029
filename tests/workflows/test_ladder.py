"""The degrade ladder: what makes a model give up, what the next one takes over, rules, and the human at the end."""

import itertools
from typing import Any

import pytest
from temporalio.testing import TimeSkipper

from tests.fixtures.provider import Broken, Calls, Drop, Says, Silence, Status, Turn, answer, calls
from tests.workflows.house import House, Started, automation
from workflows.contracts import Phase, Question, Rung

DEAD = (Status(500), Status(500), Status(500))
FAULTS: dict[str, tuple[tuple[Turn, ...], str]] = {
    "server error": (DEAD, "server error (HTTP 500)"),
    "overloaded": ((Status(503), Status(503), Status(503)), "HTTP 503"),
    "rate limited": ((Status(429), Status(429), Status(429)), "rate limited (HTTP 429)"),
    "told to wait for an hour": ((Status(429, {"retry-after": "3600"}),), "asks to wait 3600 s"),
    "time-out": ((Silence(30),), "timed out"),
    "broken JSON": ((Broken(), Broken(), Broken()), "could not be read"),
    "dropped connection": ((Drop(), Drop(), Drop()), "could not be read"),
    "bad credentials": ((Status(401),), "credentials refused (HTTP 401)"),
    "no such model": ((Status(404),), "no such model (HTTP 404)"),
    "text only, thrice": ((Says("hm"), Says("hm"), Says("hm")), "unusable answer"),
}


PROTOCOLS = ("openai", "anthropic")


@pytest.fixture(scope="module")
async def faulty(house: House) -> dict[tuple[str, str], Started]:
    """One run for each fault in each protocol, all at once: most of their time they wait for retries."""
    runs: dict[tuple[str, str], Started] = {}
    for protocol, fault in itertools.product(PROTOCOLS, FAULTS):
        first, second = f"{protocol}-{fault}-1", f"{protocol}-{fault}-2"
        house.provider.script(first, calls(("note", {"text": "once"})), *FAULTS[fault][0])
        house.provider.script(second, answer(said="by the second"))
        runs[protocol, fault] = await house.start(automation(f"{protocol}:{first}", f"practice:{second}"))
    return runs


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_each_fault_hands_over_to_the_next_model_and_no_effect_repeats(
    house: House, faulty: dict[tuple[str, str], Started], protocol: str, fault: str
) -> None:
    reason, second = FAULTS[fault][1], f"{protocol}-{fault}-2"
    run = faulty[protocol, fault]
    result = await run.result()
    assert (result.rung, result.output) == (Rung.FALLBACK_MODEL, {"said": "by the second"}), result.failure
    assert await house.effects(result) == ["once"]
    assert '"did": "once"' in house.provider.told(second)[0], "the second model knows what the first one did"
    assert len(result.degraded) == 1
    assert reason in result.degraded[0]
    [failed] = [r for r in await house.records(run, "model.requested") if r.body["outcome"] == "failed"] or [None]
    assert fault.startswith("text") or (failed is not None and reason in str(failed.body["failure"]))


async def test_a_short_retry_after_is_honoured_by_the_same_model(house: House) -> None:
    house.provider.script("patience", Status(429, {"retry-after": "1"}), answer(said="after a second"))
    run = await house.start(automation("anthropic:patience", "practice:unused"))
    result = await run.result()
    assert (result.rung, result.model, result.degraded) == (Rung.MODEL, "anthropic:patience", ())
    assert len(house.provider.asked["patience"]) == 2


async def test_the_anthropic_protocol_carries_parallel_calls_and_repeated_ids(house: House) -> None:
    twice = calls(("note", {"text": "a"}), ("note", {"text": "b"}), ids=("toolu_1", "toolu_1"))
    house.provider.script("claude", twice, answer(said="done"))
    run = await house.start(automation("anthropic:claude"))
    result = await run.result()
    assert result.output == {"said": "done"}
    assert sorted(await house.effects(result)) == ["a", "b"]
    assert ['"did": "a"' in told for told in house.provider.told("claude")] == [True, False]


async def test_an_unconfigured_or_unknown_model_is_skipped_with_the_reason(house: House) -> None:
    house.provider.script("there", answer(said="here"))
    run = await house.start(automation("mistral:x", "practice:there"))
    result = await run.result()
    assert result.rung is Rung.FALLBACK_MODEL
    assert result.degraded == ("mistral:x: not configured: known are openai:<name>, anthropic:<name>, practice:<name>",)
    [record] = await house.records(run, "model.requested")
    assert record.body["model"] == "practice:there", "nothing was requested of the first"


async def test_a_model_that_only_asks_for_nonsense_is_given_up(house: House) -> None:
    house.provider.script("nonsense", *[calls(("note", {"nope": 1}))] * 3)
    house.provider.script("sane", answer(said="done"))
    run = await house.start(automation("practice:nonsense", "practice:sane"))
    result = await run.result()
    assert result.degraded == ("practice:nonsense: nothing valid in 3 turns",)


async def test_an_answer_that_does_not_fit_is_asked_for_again(house: House) -> None:
    house.provider.script("misfit-answer", answer(wrong=1), answer(said="right"))
    run = await house.start(automation("practice:misfit-answer"))
    assert (await run.result()).output == {"said": "right"}
    assert "answer: 'said' is a required property" in str(house.provider.asked["misfit-answer"][-1]["messages"][-1])


# ---------------------------------------------------------------- budgets


BUDGETS: dict[str, tuple[dict[str, Any], tuple[Turn, ...], str]] = {
    "steps": ({"steps": 2}, (), "budget of 2 model requests used up"),
    "tool calls": ({"tool_calls": 1}, (), "budget of 1 tool calls does not cover 1 more (1 made)"),
    "tokens": ({"tokens": 200}, (), "budget of 200 tokens used up (240)"),
    "money": ({"money_usd": 0.001}, (Calls((("note", {"text": "n"}),), usage=(10_000, 10)),), "budget of $0.001 used"),
    "working time": ({"wall_time_s": 1}, (calls(("note", {"text": "n", "seconds": 1.2})),), "1 s working time used up"),
}


@pytest.mark.parametrize("budget", BUDGETS)
async def test_a_used_up_budget_ends_the_model_rung_at_once(house: House, budget: str) -> None:
    budgets, turns, reason = BUDGETS[budget]
    # Prices are known by real names only; the scripts of the others are apart by name.
    name = "gpt-5.2" if budget == "money" else f"budget-{budget}"
    house.provider.script(name, *turns, *[calls(("note", {"text": "n"}))] * 4)
    spec = automation(f"openai:{name}", "practice:never-asked", budgets=budgets, rules=[RULE])
    run = await house.start(spec)
    result = await run.result()
    assert (result.rung, result.output) == (Rung.RULES, {"said": "by rule"})
    assert reason in result.degraded[0]
    assert "never-asked" not in house.provider.asked
    assert (result.cost_microusd is not None) == (budget == "money"), "an unknown price is not zero"


# ---------------------------------------------------------------- rules and humans

RULE = {
    "id": "by-hand",
    "when": "true",
    "then": {
        "calls": [{"id": "written", "tool": "note", "args": {"text": "rule"}}],
        "answer": {"said": "by rule"},
    },
}


async def test_rules_make_their_calls_through_the_same_gate(house: House) -> None:
    house.provider.script("dead-1", *DEAD)
    rule = {
        **RULE,
        "then": {"calls": [{"id": "gone", "tool": "erase", "args": {"text": "r"}}], "answer": {"said": "ok"}},
    }
    run = await house.start(automation("practice:dead-1", rules=[rule]))
    await house.say(run, await run.question(), "approve")
    result = await run.result()
    assert (result.rung, result.output, result.model) == (Rung.RULES, {"said": "ok"}, None)
    assert await house.effects(result) == ["r"]
    [intent] = await house.records(run, "call.intent")
    assert intent.body["asked_by"] == "rules"


async def test_without_a_model_and_a_rule_a_human_finishes_the_job(house: House) -> None:
    house.provider.script("dead-2", *DEAD)
    run = await house.start(automation("practice:dead-2"))
    question = await run.question()
    assert question.question is Question.HANDOVER
    assert "dead-2: server error" in question.reason
    assert (await run.state()).phase is Phase.AWAITING_HUMAN
    await house.say(run, question, "approve", output={"said": "by hand"})
    result = await run.result()
    assert (result.phase, result.rung, result.output) == (Phase.SUCCEEDED, Rung.HUMAN, {"said": "by hand"})
    steps = [(r.body["from_rung"], r.body["to_rung"]) for r in await house.records(run, "run.degraded")]
    assert steps == [("model", "rules"), ("rules", "human")]


async def test_a_human_may_give_the_job_up(house: House) -> None:
    run = await house.start(automation())
    await house.say(run, await run.question(), "deny", reason="not worth it")
    result = await run.result()
    assert (result.phase, result.failure) == (Phase.FAILED, "given up by ruth: not worth it")


async def test_nobody_takes_over(house: House) -> None:
    run = await house.start(automation())
    await run.question()
    await TimeSkipper(house.client).fast_forward(run.handle, 8 * 86400.0)
    assert (await run.result()).phase is Phase.FAILED
