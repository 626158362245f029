"""Promises: asking back, replying, handing on, asking the next group, grants, stand-ins and emergencies work from the
page as over the API, without scripts too, and what somebody typed is still there when it is refused."""

import re
from typing import Any

from playwright.async_api import Page, expect

from policies.terms import Group, Step, Terms
from tests.api.running import Api
from tests.api.test_flow import asked, ended
from tests.console.people import Desk, photograph
from workflows.contracts import Phase


async def opened(page: Page, question_id: str) -> None:
    await page.goto(f"/console/questions/{question_id}")
    await expect(page.locator("#verdict")).to_have_attribute("data-state", "pending")


async def stored(desk: Desk, **changes: Any) -> str:
    """A question of a run without a workflow: whoever answers it is told that the run is gone."""
    run = await desk.api.put_run(phase=Phase.AWAITING_APPROVAL, requester="olga")
    await desk.put_question(run, **changes)
    return f"{run.id}.1"


async def test_ask_and_reply(desk: Desk) -> None:
    """The requester is asked and replies, without scripts; the reviewer then sees both, and denies."""
    ruth = await desk.person("ruth", "approver")
    olga = await desk.person("olga", "operator", java_script_enabled=False)
    run_id, question = await asked(desk.api, requester="olga")
    await opened(ruth, question["id"])
    await ruth.get_by_text("Ask olga something").click()
    await ruth.get_by_label("Your question").fill("Is <b>in/a</b> still needed?")
    await ruth.get_by_role("button", name="Ask", exact=True).click()
    await expect(ruth.locator("#conversation")).to_contain_text("Is <b>in/a</b> still needed?")
    await opened(olga, question["id"])
    await expect(olga.get_by_role("button", name=re.compile("Approve|Deny"))).to_have_count(0)
    await olga.get_by_label("Your reply to ruth").fill("No, it is a copy.")
    await olga.get_by_role("button", name="Reply").click()
    await expect(olga.locator("#conversation .reply")).to_contain_text("No, it is a copy.")
    # By itself: ruth's page was open all the time.
    await expect(ruth.locator("#conversation .reply")).to_contain_text("olga")
    await photograph(ruth, "question-conversation-light")
    await ruth.get_by_label("Reason").fill("then I do it myself")
    await ruth.get_by_role("button", name="Deny").click()
    await expect(ruth.get_by_text("You denied this.")).to_be_visible()
    run = await ended(desk.api, run_id)
    assert run["outcomes"] == ["denied"]


async def test_handed_on(desk: Desk) -> None:
    """Nobody hands a question to its requester; whoever it was handed to may answer, with a word of who handed it."""
    ruth, bea = await desk.person("ruth", "approver"), await desk.person("bea", "operator", "approver")
    run_id, question = await asked(desk.api, requester="olga")
    await opened(ruth, question["id"])
    await ruth.get_by_text("Let somebody else answer").click()
    await ruth.get_by_label("Who", exact=True).fill("Olga")
    await ruth.get_by_label("Why").last.fill("knows the disk")
    await ruth.get_by_role("button", name="Hand it on").click()
    await expect(ruth.locator("#refusal")).to_contain_text("somebody else has to answer")
    assert await ruth.get_by_label("Who", exact=True).input_value() == "Olga"
    await ruth.get_by_label("Who", exact=True).fill("bea")
    await ruth.get_by_role("button", name="Hand it on").click()
    await expect(ruth.locator(".facts")).to_contain_text("bea by ruth")
    await opened(bea, question["id"])
    await expect(bea.locator(".facts")).to_contain_text("knows the disk")
    await bea.get_by_role("button", name="Approve as asked").click()
    await expect(bea.get_by_text("You approved this.")).to_be_visible()
    assert (await ended(desk.api, run_id))["outcomes"] == ["succeeded"]


async def test_approve_and_stop_asking(desk: Desk) -> None:
    """A grant comes with the approval, is listed, spares the next run its question, and ends by a button."""
    ruth = await desk.person("ruth", "approver")
    run_id, question = await asked(desk.api, requester="olga")
    await opened(ruth, question["id"])
    await ruth.locator("#remember summary").click()
    await ruth.get_by_label("Calls", exact=True).fill("2")
    await ruth.get_by_label("Days", exact=True).fill("99")
    await ruth.get_by_label("Arguments empty").fill('{"paths": "*"}')
    await ruth.get_by_role("button", name="Approve and stop asking").click()
    await expect(ruth.locator("#refusal")).to_contain_text("90 days")
    assert await ruth.get_by_label("Arguments empty").input_value() == '{"paths": "*"}'
    await ruth.get_by_label("Days", exact=True).fill("9")
    await ruth.get_by_role("button", name="Approve and stop asking").click()
    await expect(ruth.get_by_text("You approved this.")).to_be_visible()
    await ended(desk.api, run_id)
    second = await unasked(desk.api)
    assert "approval.requested" not in second["events"]
    await ruth.goto("/console/standing")
    row = ruth.get_by_role("row").filter(has_text="delete_files").first
    await expect(row).to_contain_text("1 of 2")
    await expect(row).to_contain_text("in force")
    await row.get_by_role("button", name="End the grant").click()
    await expect(ruth.get_by_role("row").filter(has_text="revoked").first).to_contain_text("by ruth")
    _, again = await asked(desk.api, requester="olga")
    assert again["state"] == "pending"


async def unasked(api: Api) -> dict[str, Any]:
    """A run like that of `asked`, to its end."""
    client = await api.client("olga", "operator")
    made = (await client.post("/files", params={"name": "a"}, content=b"a")).json()["id"]
    body = {"automation": "tidy", "inputs": {"path": "in/a"}, "files": [made]}
    return await ended(api, (await client.post("/runs", json=body)).json()["id"])


async def test_a_stand_in_answers_for_the_absent(desk: Desk) -> None:
    """Said on the page of the one who goes; the other's page offers the voice, and names it."""
    ruth, sam = await desk.person("ruth-away", "approver"), await desk.person("sam", "viewer", "tester")
    await ruth.goto("/console/standing")
    await ruth.get_by_label("Somebody else answers for you").fill("ruth-away")
    await ruth.get_by_role("button", name="Let them answer").click()
    await expect(ruth.get_by_role("alert")).to_contain_text("Nobody stands in for themselves")
    await ruth.get_by_label("Somebody else answers for you").fill("sam")
    await ruth.get_by_role("button", name="Let them answer").click()
    row = ruth.get_by_role("row").filter(has_text="ruth-away").first
    await expect(row).to_contain_text("in force")
    await row.get_by_role("button", name="End that sam").click()
    await expect(ruth.get_by_role("row").filter(has_text="ruth-away").first).to_contain_text("revoked")
    await sam.goto("/console/standing")
    await expect(sam.get_by_role("button", name=re.compile("End|Let"))).to_have_count(0)


async def test_several_people_groups_and_an_emergency(desk: Desk) -> None:
    """Who may answer is said by the group's name, the next group can be asked at once, and an emergency needs a reason
    and the role for it. The run of this question is gone: each is told so, and what was typed stays."""
    chain = Terms(
        groups=(Group(name="board", people=("bea",)),), needed=2,
        escalation=(Step(after_s=600, to=Group(name="directors", roles=("director",))),),
    )  # fmt: skip
    question = await stored(desk, terms=chain)
    bea, gus = await desk.person("bea", "operator", "approver"), await desk.person("gus", "approver", "break-glass")
    await opened(bea, question)
    await expect(bea.locator(".facts")).to_contain_text("0 of 2")
    await expect(bea.locator(".facts")).to_contain_text("then directors is asked, too")
    await expect(bea.get_by_text("Approve and stop asking")).to_have_count(0)
    await expect(bea.get_by_text("break the glass")).to_have_count(0)
    await bea.get_by_role("button", name="Ask directors now, too").click()
    await expect(bea.locator("#refusal")).to_contain_text("nothing left to answer")
    await opened(gus, question)
    await expect(gus.locator(".decide")).to_contain_text("member of board")
    await gus.get_by_text("break the glass").click()
    await gus.get_by_label("Why it cannot wait").fill("the disk is full")
    await photograph(gus, "question-emergency-light")
    await gus.get_by_role("button", name="Approve in an emergency").click()
    await expect(gus.locator("#refusal")).to_contain_text("nothing left to answer")
    assert await gus.get_by_label("Why it cannot wait").input_value() == "the disk is full"
