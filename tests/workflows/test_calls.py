"""One tool call, from the gate to its outcome, on every way it can end."""

from tests.fixtures.provider import answer, calls
from tests.workflows.house import RUTH, House, automation
from tools.contract import arguments_digest
from workflows.contracts import Phase, Rung


async def test_allowed_calls_run_once_each_and_their_results_reach_the_agent(house: House) -> None:
    house.provider.script("happy", calls(("note", {"text": "a"}), ("note", {"text": "b"})), answer(said="done"))
    run = await house.start(automation("practice:happy"))
    result = await run.result()
    assert (result.phase, result.rung, result.output) == (Phase.SUCCEEDED, Rung.MODEL, {"said": "done"})
    assert sorted(await house.effects(result)) == ["a", "b"]
    assert await house.outcomes(run) == {"c1-1": "succeeded", "c1-2": "succeeded"}
    assert ['"did": "a"' in told for told in house.provider.told("happy")] == [True, False]


async def test_the_order_of_records_is_intent_gate_outcome(house: House) -> None:
    house.provider.script("order", calls(("note", {"text": "a"})), answer(said="done"))
    run = await house.start(automation("practice:order"))
    await run.result()
    types = [r.type for r in await house.records(run)]
    expected = ["run.opened", "model.requested", "call.intent", "gate.decided", "call.outcome", "model.requested"]
    assert types == [*expected, "artifact.stored", "run.closed"]


async def test_a_denied_call_never_runs_and_the_agent_is_told_why(house: House) -> None:
    house.provider.script("denied", calls(("grant", {"text": "root"})), answer(said="was denied"))
    run = await house.start(automation("practice:denied"))
    result = await run.result()
    assert await house.effects(result) == []
    assert await house.outcomes(run) == {"c1-1": "denied"}
    assert "denied" in house.provider.told("denied")[0]
    assert "access-denied" in house.provider.told("denied")[0]


async def test_an_approved_call_runs_exactly_once_and_its_result_reaches_the_agent(house: House) -> None:
    house.provider.script("approved", calls(("erase", {"text": "old"})), answer(said="gone"))
    run = await house.start(automation("practice:approved"))
    question = await run.question()
    assert (await run.state()).phase is Phase.AWAITING_APPROVAL
    await house.say(run, question, "approve", reason="fine")
    result = await run.result()
    assert await house.effects(result) == ["old"]
    assert '"did": "old"' in house.provider.told("approved")[0]
    passes = [r.body["gate_pass"] for r in await house.records(run, "gate.decided")]
    assert passes == [0, 1], "gated again right before running"
    assert [r.actor for r in await house.records(run, "approval.approved")] == ["ruth"]


async def test_an_edited_call_is_gated_and_run_under_its_new_value(house: House) -> None:
    house.provider.script("edited", calls(("erase", {"text": "all"})), answer(said="gone"))
    run = await house.start(automation("practice:edited"))
    await house.say(run, await run.question(), "approve", edited_arguments={"text": "one"})
    result = await run.result()
    assert await house.effects(result) == ["one"]
    gated = [r.body["digest"] for r in await house.records(run, "gate.decided")]
    assert gated == [arguments_digest("erase", {"text": "all"}), arguments_digest("erase", {"text": "one"})]


async def test_an_edit_that_policy_denies_does_not_run(house: House) -> None:
    house.provider.script("edit-denied", calls(("erase", {"text": "all"})), answer(said="no"))
    run = await house.start(automation("practice:edit-denied"))
    await house.say(run, await run.question(), "approve", edited_arguments={"text": "never: this"})
    result = await run.result()
    assert await house.effects(result) == []
    assert await house.outcomes(run) == {"c1-1": "denied"}


async def test_an_edit_that_needs_other_approvers_is_asked_again(house: House) -> None:
    house.provider.script("edit-again", calls(("erase", {"text": "all"})), answer(said="gone"))
    run = await house.start(automation("practice:edit-again"))
    await house.say(run, await run.question(), "approve", edited_arguments={"text": "lead: more"})
    second = await run.question(2)
    assert (second.approvers, second.call and second.call.arguments) == ("lead", {"text": "lead: more"})
    await house.say(run, second, "approve", RUTH.model_copy(update={"id": "lea", "roles": ("lead",)}))
    assert await house.effects(await run.result()) == ["lead: more"]


async def test_a_denial_by_a_human_reaches_the_agent_with_its_reason(house: House) -> None:
    house.provider.script("refused", calls(("erase", {"text": "old"})), answer(said="kept"))
    run = await house.start(automation("practice:refused"))
    await house.say(run, await run.question(), "deny", reason="auditors need it")
    result = await run.result()
    assert await house.effects(result) == []
    assert "auditors need it" in house.provider.told("refused")[0]
    assert await house.outcomes(run) == {"c1-1": "denied"}


async def test_parallel_calls_each_hold_on_their_own(house: House) -> None:
    wanted = (("erase", {"text": "x"}), ("note", {"text": "y"}), ("erase", {"text": "z"}))
    house.provider.script("parallel", calls(*wanted), answer(said="mixed"))
    run = await house.start(automation("practice:parallel"))
    first, second = await run.questions(f"{run.id}.1", f"{run.id}.2")
    by_text = {str(q.call.arguments["text"]): q for q in (first, second) if q.call}
    await house.say(run, by_text["z"], "approve")
    await house.say(run, by_text["x"], "deny", reason="no")
    result = await run.result()
    assert sorted(await house.effects(result)) == ["y", "z"]
    assert await house.outcomes(run) == {"c1-1": "denied", "c1-2": "succeeded", "c1-3": "succeeded"}


async def test_arguments_that_do_not_fit_go_back_naming_the_field_and_leave_no_intent(house: House) -> None:
    bad = calls(("note", {"text": 7}), ("note", {"txt": "a"}), ("note", '{"text": "cut o'))
    house.provider.script("misfit", bad, calls(("note", {"text": "ok"})), answer(said="done"))
    run = await house.start(automation("practice:misfit"))
    result = await run.result()
    told = house.provider.told("misfit")
    assert "arguments.text: 7 is not of type 'string'" in told[0]
    assert "'txt' was unexpected" in told[1]
    assert "unparsed_arguments" in told[2]
    assert await house.effects(result) == ["ok"]
    assert await house.outcomes(run) == {"c2-1": "succeeded"}


async def test_repeated_ids_of_a_provider_do_not_mix_calls_up(house: House) -> None:
    twice = calls(("note", {"text": "a"}), ("note", {"text": "b"}), ids=("same", "same"))
    again = calls(("note", {"text": "c"}), ids=("same",))
    house.provider.script("repeats", twice, again, answer(said="done"))
    run = await house.start(automation("practice:repeats"))
    result = await run.result()
    lines = await house.effect_lines(result)
    assert sorted((e["text"], e["call"]) for e in lines) == [("a", "c1-1"), ("b", "c1-2"), ("c", "c2-1")]
    assert len({e["key"] for e in lines}) == 3


async def test_a_failing_tool_is_a_result_not_a_fault(house: House) -> None:
    house.provider.script("failing", calls(("note", {"text": "a", "fail": True})), answer(said="failed"))
    run = await house.start(automation("practice:failing"))
    result = await run.result()
    assert result.phase is Phase.SUCCEEDED
    assert "asked to fail" in house.provider.told("failing")[0]
    assert await house.outcomes(run) == {"c1-1": "failed"}


async def test_the_idempotency_key_names_the_first_execution(house: House) -> None:
    house.provider.script("key", calls(("note", {"text": "a"})), answer(said="done"))
    run = await house.start(automation("practice:key"))
    [line] = await house.effect_lines(await run.result())
    assert line["key"] == f"{run.id}/{run.handle.first_execution_run_id}/c1-1"
