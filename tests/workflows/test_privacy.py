"""A private value goes through a whole run: the provider never sees it, the tool gets it, the answer has it."""

import json

from tests.fixtures.provider import Copies, answer, calls
from tests.workflows.house import House, automation
from tools.contract import arguments_digest

MAIL = "jo.doe@corp.example"
TOKEN = "npm_" + "a1B2c3D4e5" * 3 + "a1B2c3"


async def test_a_tool_runs_with_a_value_its_model_never_saw(house: House) -> None:
    house.provider.script("private", Copies("note", "<email_[a-z2-7]+>"), Copies("note", "<secret_[a-z2-7]+>"),
                          Copies("final-answer", "<email_[a-z2-7]+>", ("said",)))  # fmt: skip
    run = await house.start(automation("practice:private"), inputs={"to": MAIL, "npm": TOKEN})
    result = await run.result()
    assert sorted(await house.effects(result)) == [MAIL, TOKEN], "the true values ran"
    assert result.output == {"said": MAIL}
    sent = json.dumps(house.provider.asked["private"])
    assert MAIL not in sent
    assert TOKEN not in sent
    assert sent.count("<email_") > 2


async def test_a_placeholder_the_model_made_up_is_only_text(house: House) -> None:
    house.provider.script("made-up", calls(("note", {"text": "<email_aaaaaaaa>"})), answer(said="ok"))
    run = await house.start(automation("practice:made-up"), inputs={"to": MAIL})
    assert await house.effects(await run.result()) == ["<email_aaaaaaaa>"]


async def test_the_gate_judges_the_value_and_not_its_placeholder(house: House) -> None:
    """What the operator named may be erased unasked: the gate must see that it is just that."""
    house.provider.script("gated", Copies("erase", "<email_[a-z2-7]+>"), answer(said="ok"))
    run = await house.start(automation("practice:gated"), inputs={"to": MAIL})
    assert await house.effects(await run.result()) == [MAIL]
    [decided] = await house.records(run, "gate.decided")
    assert decided.body["digest"] == arguments_digest("erase", {"text": MAIL})
