"""Several people, other people, no people: quorum, edits among many, escalation, delegation, emergencies, freezes."""

from datetime import timedelta
from typing import Any, cast

import pytest
from temporalio.client import WorkflowUpdateFailedError
from temporalio.exceptions import ApplicationError
from temporalio.testing import TimeSkipper

from policies.decision import Principal
from policies.terms import Group, Step, Terms
from tests.fixtures.provider import answer, calls
from tests.workflows.house import OLGA, RUTH, House, Started, automation, until
from worker.store.approvals import ApprovalRow
from workflows.contracts import ApprovalRequest, ApprovalState, Phase, Rung

RAY = Principal(id="ray", roles=("approver",))
BEA = Principal(id="bea", roles=("viewer",))
EVE = Principal(id="eve", roles=("break-glass",))
IVO = Principal(id="ivo", roles=("break-glass",))
TWO = Terms(needed=2)


async def asking(house: House, name: str, terms: Terms, **changes: Any) -> tuple[Started, ApprovalRequest]:
    """A run whose one call is asked about on these terms."""
    house.gate.terms[name] = terms
    house.provider.script(name, calls(("note", {"text": name})), answer(said="done"))
    run = await house.start(automation(f"practice:{name}", **changes))
    return run, await run.question()


async def refused(sending: Any) -> str:
    with pytest.raises(WorkflowUpdateFailedError) as error:
        await sending
    assert isinstance(error.value.cause, ApplicationError)
    return str(error.value.cause.type)


async def row(house: House, question: ApprovalRequest, seq: int) -> ApprovalRow:
    """The row once it shows that many changes."""

    async def shown() -> list[ApprovalRow]:
        found = await house.approvals.get(None, question.id)
        return [found] if found and found.progress.seq >= seq else []

    return (await until(shown))[0]


async def test_two_of_two(house: House) -> None:
    run, question = await asking(house, "two", TWO)
    first = await house.say(run, question, "approve")
    assert (first.state, first.seq) == (ApprovalState.PENDING, 1)
    assert await refused(house.say(run, question, "approve")) == "already_answered"
    assert (
        await refused(house.say(run, question, "deny", RUTH.model_copy(update={"id": "RUTH "}))) == "already_answered"
    )
    seen = await row(house, question, 1)
    assert [a.principal.id for a in seen.progress.answers] == ["ruth"]
    assert (await run.state()).phase is Phase.AWAITING_APPROVAL
    assert (await house.say(run, question, "approve", RAY)).state is ApprovalState.APPROVED
    assert await house.effects(await run.result()) == ["two"]
    [closed] = await house.records(run, "approval.approved")
    assert [a["principal"] for a in cast("list[dict[str, Any]]", closed.body["answers"])] == ["ruth", "ray"]
    [partial] = await house.records(run, "approval.answered")
    assert (partial.actor, partial.body["signature"] != "") == ("ruth", True)


async def test_one_denial_of_many_denies_and_the_agent_reads_why(house: House) -> None:
    run, question = await asking(house, "veto", TWO)
    await house.say(run, question, "approve")
    await house.say(run, question, "deny", RAY, reason="not on a Friday")
    assert await house.effects(await run.result()) == []
    assert "not on a Friday" in house.provider.told("veto")[0]


async def test_an_edit_among_many_is_put_to_the_others_as_it_now_stands(house: House) -> None:
    house.gate.terms["edited by one"] = TWO
    run, question = await asking(house, "edit", TWO)
    await house.say(run, question, "approve", RAY)
    await house.say(run, question, "approve", edited_arguments={"text": "edited by one"})
    again = await run.question(2)
    assert (again.because, again.follows) == ("edited", question.id)
    assert again.call is not None
    assert again.call.arguments == {"text": "edited by one"}
    # Ray approved something else; Ruth wrote this.
    assert await refused(house.say(run, question, "approve", RAY)) == "args_changed"
    assert await refused(house.say(run, again, "approve")) == "already_answered"
    await house.say(run, again, "approve", RAY)
    assert await house.effects(await run.result()) == ["edited by one"]
    [void] = await house.records(run, "approval.cancelled")
    assert void.body["void"] == "args_changed"


async def test_an_edit_that_asks_other_people_leaves_its_editor_to_be_heard_again(house: House) -> None:
    house.gate.terms["edited for two"] = Terms(groups=(Group(name="leads", roles=("approver",)),), needed=2)
    run, question = await asking(house, "other-people", TWO)
    await house.say(run, question, "approve", edited_arguments={"text": "edited for two"})
    again = await run.question(2)
    assert (await house.say(run, again, "approve", RAY)).state is ApprovalState.PENDING
    assert (await house.say(run, again, "approve")).state is ApprovalState.APPROVED
    assert await house.effects(await run.result()) == ["edited for two"]


async def test_an_edit_that_changes_nothing_is_a_yes_like_any_other(house: House) -> None:
    run, question = await asking(house, "unedited", TWO)
    first = await house.say(run, question, "approve", RAY, edited_arguments={"text": "unedited"})
    assert first.state is ApprovalState.PENDING
    assert (await house.say(run, question, "approve")).state is ApprovalState.APPROVED
    assert await house.effects(await run.result()) == ["unedited"]


async def test_a_group_by_role_and_by_name_and_nobody_else(house: House) -> None:
    lead = Group(name="leads", roles=("lead",), people=("bea",))
    run, question = await asking(house, "group", Terms(groups=(lead,), needed=2))
    assert await refused(house.say(run, question, "approve")) == "not_an_approver"
    assert await refused(house.say(run, question, "approve", OLGA)) == "self_approval"
    robot = Principal(id="bot", roles=("lead",), kind="service")
    assert await refused(house.say(run, question, "approve", robot)) == "not_an_approver"
    await house.say(run, question, "approve", BEA)
    await house.say(run, question, "approve", RUTH.model_copy(update={"roles": ("lead",)}))
    assert await house.effects(await run.result()) == ["group"]


async def test_a_service_answers_only_where_the_rule_says_so(house: House) -> None:
    run, question = await asking(house, "service", Terms(services=True))
    robot = Principal(id="bot", roles=("approver",), kind="service")
    await house.say(run, question, "approve", robot)
    assert await house.effects(await run.result()) == ["service"]


async def test_the_absent_have_one_voice_whoever_uses_it(house: House) -> None:
    run, question = await asking(house, "stand-in", TWO)
    assert await refused(house.say(run, question, "approve", BEA)) == "not_an_approver"
    assert await refused(house.say(run, question, "approve", BEA, on_behalf_of=OLGA)) == "self_approval"
    await house.say(run, question, "approve", BEA, on_behalf_of=RUTH)
    assert await refused(house.say(run, question, "approve", RUTH)) == "already_answered"
    await house.say(run, question, "approve", RAY)
    assert (await run.result()).phase is Phase.SUCCEEDED


async def test_ask_back_reply_and_delegate(house: House) -> None:
    run, question = await asking(house, "talk", Terms())
    assert await refused(house.act(run, question, "ask", BEA, text="what?")) == "not_an_approver"
    assert await refused(house.act(run, question, "ask", text=" ")) == "invalid_arguments"
    unknown = question.model_copy(update={"id": "run_x.9"})
    assert await refused(house.act(run, unknown, "ask", text="what?")) == "not_found"
    await house.act(run, question, "ask", text="Which customer?")
    assert await refused(house.act(run, question, "reply", RAY, text="me")) == "not_an_approver"
    await house.act(run, question, "reply", OLGA, text="ACME")
    assert await refused(house.act(run, question, "delegate", to="olga")) == "self_approval"
    assert await refused(house.act(run, question, "delegate", BEA, to="ray")) == "not_an_approver"
    assert await refused(house.act(run, question, "escalate")) == "invalid_arguments"
    await house.act(run, question, "delegate", to="bea", text="you know them")
    seen = await row(house, question, 3)
    assert [(r.kind, r.by, r.text) for r in seen.progress.conversation] == [
        ("ask", "ruth", "Which customer?"),
        ("reply", "olga", "ACME"),
    ]
    assert [(d.by, d.to) for d in seen.progress.delegated] == [("ruth", "bea")]
    await house.say(run, question, "approve", BEA)
    assert await house.effects(await run.result()) == ["talk"]
    types = [r.type for r in await house.records(run) if r.type.startswith("approval.")]
    told = ["asked_back", "replied", "delegated"]
    assert types == ["approval.requested", *(f"approval.{t}" for t in told), "approval.approved"]


async def test_an_action_is_signed_for_what_it_is(house: House) -> None:
    run, question = await asking(house, "forged", Terms())
    signed = house.action(question, "delegate", to="bea")
    for forged in (signed.model_copy(update={"to": "eve"}), signed.model_copy(update={"signature": ""})):
        assert await refused(house.send_action(run, forged)) == "bad_signature"
    await house.say(run, question, "deny")
    await run.result()


async def test_breaking_the_glass_takes_two_people_with_the_right_and_a_reason(house: House) -> None:
    board = Terms(groups=(Group(name="board", people=("nobody",)),))
    run, question = await asking(house, "glass", board)
    emergency: dict[str, Any] = {"break_glass": True, "reason": "the shop is down"}
    assert await refused(house.say(run, question, "approve", RUTH, **emergency)) == "not_an_approver"
    admin = Principal(id="ada", roles=("admin",))
    assert await refused(house.say(run, question, "approve", admin, **emergency)) == "not_an_approver"
    olga = OLGA.model_copy(update={"roles": ("break-glass",)})
    assert await refused(house.say(run, question, "approve", olga, **emergency)) == "self_approval"
    assert await refused(house.say(run, question, "approve", EVE, break_glass=True)) == "invalid_arguments"
    assert await refused(house.say(run, question, "deny", EVE, **emergency)) == "invalid_arguments"
    edit = {"edited_arguments": {"text": "x"}}
    assert await refused(house.say(run, question, "approve", EVE, **emergency, **edit)) == "invalid_arguments"
    assert await refused(house.say(run, question, "approve", EVE)) == "not_an_approver"
    assert (await house.say(run, question, "approve", EVE, **emergency)).state is ApprovalState.PENDING
    assert await refused(house.say(run, question, "approve", EVE, **emergency)) == "already_answered"
    await house.say(run, question, "approve", IVO, **emergency)
    assert await house.effects(await run.result()) == ["glass"]
    loud = await house.records(run, "approval.break_glass")
    assert [(r.actor, r.body["reason"]) for r in loud] == [("eve", "the shop is down"), ("ivo", "the shop is down")]


# ---------------------------------------------------------------- time


@pytest.fixture
def skipper(house: House) -> TimeSkipper:
    """Forwards the clock of single workflows of the real server."""
    return TimeSkipper(house.client)


async def test_reminders_then_escalation_then_the_new_group_answers(house: House, skipper: TimeSkipper) -> None:
    chain = (Step(after_s=40 * 3600, to=Group(name="board", people=("bea",))),)
    run, question = await asking(house, "chain", Terms(deadline_s=80 * 3600, escalation=chain, reminders=(0.25, 0.9)))
    await skipper.fast_forward(run.handle, timedelta(hours=21))
    assert len((await row(house, question, 1)).progress.reminded_at) == 1
    assert await refused(house.say(run, question, "approve", BEA)) == "not_an_approver"
    await skipper.fast_forward(run.handle, timedelta(hours=20))
    seen = await row(house, question, 2)
    assert [e.to.name for e in seen.progress.escalated] == ["board"]
    await house.say(run, question, "approve", BEA)
    assert await house.effects(await run.result()) == ["chain"]
    assert len(await house.records(run, "approval.reminder")) == 1


async def test_a_person_may_escalate_before_its_time(house: House, skipper: TimeSkipper) -> None:
    board, owner = Group(name="board", people=("bea",)), Group(name="owner", people=("ivo",))
    chain = (Step(after_s=3600, to=board), Step(after_s=7200, to=owner))
    run, question = await asking(house, "push", Terms(deadline_s=10800, escalation=chain))
    await house.act(run, question, "escalate", OLGA, text="it burns")
    await skipper.fast_forward(run.handle, timedelta(seconds=4000))
    assert await refused(house.say(run, question, "approve", IVO)) == "not_an_approver", "its time comes later"
    await house.act(run, question, "escalate", OLGA, text="still")
    assert await refused(house.act(run, question, "escalate", RUTH)) == "invalid_arguments"
    await house.say(run, question, "approve", BEA)
    assert await house.effects(await run.result()) == ["push"]


async def test_an_expiry_may_send_the_run_to_its_rules(house: House, skipper: TimeSkipper) -> None:
    rules = [{"id": "quiet", "when": "true", "then": {"answer": {"said": "by rule"}}}]
    run, _ = await asking(house, "rules", Terms(deadline_s=3600, on_expiry="fallback"), rules=rules)
    await skipper.fast_forward(run.handle, timedelta(hours=2))
    result = await run.result()
    assert (result.rung, result.output) == (Rung.RULES, {"said": "by rule"})
    assert "nobody answered" in result.degraded[0]
    assert await house.outcomes(run) == {"c1-1": "expired"}
