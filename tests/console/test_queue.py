"""Promises: two people at one queue see the same; what one does the other sees without doing anything; what was
answered in a browser runs exactly as answered; an answer that came too late is said so, humanly, and has no effect."""

import json
from datetime import UTC, datetime, timedelta

from playwright.async_api import Page, expect

from tests.api.running import Json
from tests.api.test_flow import asked, ended
from tests.console.people import Desk, barriers
from workflows.contracts import ApprovalState, Phase


def row(page: Page, question: Json) -> str:
    return f"[id='q-{question['id']}']"


async def test_two_people_one_queue(desk: Desk) -> None:
    """A question appears on both screens by itself, one answers, it is gone on the other; then the run goes on."""
    ruth, rolf = await desk.person("ruth", "approver"), await desk.person("rolf", "approver")
    run_id, question = await asked(desk.api, requester="olga")
    for page in ruth, rolf:
        await expect(page.locator(row(page, question))).to_be_visible()
    await ruth.locator(row(ruth, question)).get_by_role("link").click()
    await expect(ruth.get_by_role("heading", name="delete_files")).to_be_visible()
    await expect(ruth.locator(".values")).to_contain_text("in/a")
    await ruth.get_by_role("button", name="Approve as asked").click()
    await expect(ruth.get_by_text("You approved this.")).to_be_visible()
    await expect(rolf.locator(row(rolf, question))).to_have_count(0)
    run = await ended(desk.api, run_id)
    assert run["outcomes"][-1] == "succeeded"
    (approved,) = await desk.api.records("approval.approved", run_id=run_id)
    assert approved["actor"] == "ruth"


async def test_live_update_in_under_a_second(desk: Desk) -> None:
    """Measured in the page, from the moment the question is stored; the number is printed, the ceiling here only tells
    live from not live."""
    page = await desk.person("ruth", "approver")
    run = await desk.api.put_run(phase=Phase.AWAITING_APPROVAL, requester="olga")
    await expect(page.locator("#queue")).to_be_visible()
    await page.evaluate(
        """id => { window.seen = new Promise(done => new MutationObserver(
            () => document.getElementById(id) && done(Date.now())
        ).observe(document.body, {childList: true, subtree: true})) }""",
        f"q-{run.id}.1",
    )
    stored = await desk.put_question(run)
    seen = await page.evaluate("() => window.seen")
    late_ms = seen - stored.timestamp() * 1000
    print(f"live update after {late_ms:.0f} ms")  # noqa: T201
    assert late_ms < 10_000


async def test_approve_with_edits(desk: Desk) -> None:
    """First compared, then approved; what runs is what was shown, and the change is shown value by value."""
    page = await desk.person("ruth", "approver")
    run_id, question = await asked(desk.api, requester="olga")
    await page.goto(f"/console/questions/{question['id']}")
    await page.keyboard.press("e")
    field = page.get_by_label("Arguments, as JSON")
    await expect(field).to_be_focused()
    await field.fill('{"paths": 5}')
    await page.get_by_role("button", name="Compare").click()
    await expect(page.locator("#refusal")).to_contain_text("does not fit")
    await expect(page.locator("#refusal")).to_contain_text("paths")
    await field.fill('{"paths": ["in/b"')
    await page.get_by_role("button", name="Compare").click()
    await expect(page.locator("#refusal")).to_contain_text("cannot be read")
    assert await field.input_value() == '{"paths": ["in/b"'  # what was typed is kept
    await field.fill('{"paths": ["in/b"]}')
    await page.get_by_role("button", name="Compare").click()
    await expect(page.locator("#changes del")).to_have_text("in/a")
    await expect(page.locator("#changes ins")).to_have_text("in/b")
    await page.get_by_role("button", name="Approve with this edit").click()
    await expect(page.get_by_text("with the edited arguments")).to_be_visible()
    # The edited call is asked about anew when the gate wants so; here the same rule asks again.
    (first,) = await desk.api.records("approval.approved", run_id=run_id)
    assert first["answer"]["edited"]["arguments"] == {"paths": ["in/b"]}


async def test_a_denial_needs_a_reason_and_the_agent_gets_it(desk: Desk) -> None:
    page = await desk.person("ruth", "approver")
    run_id, question = await asked(desk.api, requester="olga")
    await page.goto(f"/console/questions/{question['id']}")
    await page.keyboard.press("r")
    await expect(page.get_by_label("Reason")).to_be_focused()
    await page.keyboard.type("Keep it until Friday <b>please</b>")
    await page.get_by_role("button", name="Deny").click()
    await expect(page.get_by_text("You denied this.")).to_be_visible()
    await expect(page.locator("q")).to_have_text("Keep it until Friday <b>please</b>")
    (denied,) = await desk.api.records("approval.denied", run_id=run_id)
    assert denied["answer"]["reason"] == "Keep it until Friday <b>please</b>"
    run = await ended(desk.api, run_id)
    assert "succeeded" not in run["outcomes"][-1:]


async def test_somebody_was_quicker(desk: Desk) -> None:
    """Two open pages, two answers: the second is told who was first, and the first answer stands."""
    ruth = await desk.person("ruth", "approver", java_script_enabled=False)
    run_id, question = await asked(desk.api, requester="olga")
    await ruth.goto(f"/console/questions/{question['id']}")
    rolf = await desk.api.client("rolf", "approver")
    answer = {"digest": question["digest"], "reason": "not today"}
    assert (await rolf.post(f"/approvals/{question['id']}/deny", json=answer)).status_code == 200
    await ruth.get_by_role("button", name="Approve as asked").click()
    await expect(ruth.locator("#refusal")).to_contain_text("Somebody was quicker")
    await expect(ruth.locator("#verdict")).to_contain_text("rolf")
    await expect(ruth.locator("#verdict")).to_contain_text("not today")
    await expect(ruth.get_by_role("button", name="Approve")).to_have_count(0)
    assert await desk.api.records("approval.approved", run_id=run_id) == []


async def test_conflicts_in_plain_words(desk: Desk) -> None:
    page = await desk.person("ruth", "approver", java_script_enabled=False)
    for change, words in (
        ({"deadline": datetime.now(UTC) + timedelta(seconds=2)}, "Too late"),
        ({}, "The call has changed"),
        ({}, "No longer asked"),
    ):
        run = await desk.api.put_run(phase=Phase.AWAITING_APPROVAL, requester="olga")
        request = await desk.api.put_question(run, **change)
        await page.goto(f"/console/questions/{request.id}")
        if words == "Too late":
            while datetime.now(UTC) <= request.deadline:
                await page.wait_for_timeout(100)
        elif words == "The call has changed":
            await page.locator(".yes input[name=digest]").evaluate("el => el.value = 'f'.repeat(64)")
        else:
            await desk.api.services.approvals.close(request.id, ApprovalState.CANCELLED)
        await page.get_by_role("button", name="Approve as asked").click()
        await expect(page.locator("#refusal")).to_contain_text(words)


async def test_who_may_not_answer_is_told_why(desk: Desk) -> None:
    _, question = await asked(desk.api, requester="both")
    for who, roles, words in (
        ("both", ("operator", "approver"), "You asked for this run"),
        ("vera", ("viewer",), "This takes the role approver"),
    ):
        page = await desk.person(who, *roles)
        await page.goto(f"/console/questions/{question['id']}")
        await expect(page.locator(".decide")).to_contain_text(words)
        await expect(page.get_by_role("button", name="Approve")).to_have_count(0)


async def test_several_at_once_by_keyboard(desk: Desk) -> None:
    """j moves, x marks, r goes to the reason; marks outlive what happens meanwhile."""
    page = await desk.person("ruth", "approver")
    questions = [(await asked(desk.api, requester="olga"))[1] for _ in range(3)]
    await page.goto("/console/queue?automation=tidy")
    for question in questions:
        await expect(page.locator(row(page, question))).to_be_visible()
    await page.keyboard.press("j")
    await expect(page.locator(".question.current")).to_have_count(1)
    for question in questions:
        await page.locator(f"{row(page, question)} [data-open]").focus()
        await page.keyboard.press("x")
    await expect(page.locator("#marked")).to_have_text("3 marked")
    # Something happens meanwhile: marks survive the refresh.
    run = await desk.api.put_run(phase=Phase.AWAITING_APPROVAL, requester="olga")
    await desk.put_question(run)
    await expect(page.locator(f"[id='q-{run.id}.1']")).to_be_visible()
    await expect(page.locator("#marked")).to_have_text("3 marked")
    await page.keyboard.press("r")
    await page.keyboard.type("not today")
    await page.get_by_role("button", name="Deny marked").click()
    await expect(page.get_by_text("3 questions denied")).to_be_visible()
    for question in questions:
        (denied,) = await desk.api.records("approval.denied", run_id=question["run_id"])
        assert (denied["actor"], denied["answer"]["reason"]) == ("ruth", "not today")


async def test_the_very_same_call_in_many_questions(desk: Desk) -> None:
    """One question says how many others are about the same call; these are marked and answered together, no others."""
    page = await desk.person("ruth", "approver")
    same = [(await asked(desk.api, requester="olga", inputs={"path": "in/same"}))[1] for _ in range(3)]
    _, other = await asked(desk.api, requester="olga", inputs={"path": "in/another"})
    await page.goto(f"/console/questions/{same[0]['id']}")
    await expect(page.locator(".decide")).to_contain_text("The very same call waits in 2 other questions")
    await page.get_by_role("link", name="answer them together").click()
    await expect(page.locator(".question")).to_have_count(3)
    await expect(page.get_by_text("one and the same call")).to_contain_text("in/same")
    await expect(page.locator(row(page, other))).to_have_count(0)
    await page.get_by_role("button", name="Mark all").click()
    await expect(page.locator("#marked")).to_have_text("3 marked")
    assert await barriers(page) == []
    await page.get_by_label("Reason").fill("not these")
    await page.get_by_role("button", name="Deny marked").click()
    await expect(page.get_by_text("3 questions denied")).to_be_visible()
    for question in same:
        (denied,) = await desk.api.records("approval.denied", run_id=question["run_id"])
        assert denied["actor"] == "ruth"
    assert await desk.api.records("approval.denied", run_id=other["run_id"]) == []


async def test_every_key_does_what_the_list_of_keys_says(desk: Desk) -> None:
    """Nothing but the keyboard; `?` opens a dialog that Escape closes, and the focus is back where it was."""
    page = await desk.person("ruta@keys", "approver")
    for number in range(3):
        run = await desk.api.put_run("keys", Phase.AWAITING_APPROVAL)
        await desk.api.put_question(run, deadline=datetime.now(UTC) + timedelta(hours=1 + number))
    await page.goto("/console/queue")
    current = page.locator(".question.current")
    rows = await page.locator(".question").evaluate_all("all => all.map(e => e.id)")
    for key, at in ("j", 0), ("j", 1), ("j", 2), ("j", 2), ("k", 1):
        await page.keyboard.press(key)
        await expect(current).to_have_id(rows[at])
        await expect(current.locator("[data-open]")).to_be_focused()
    await page.keyboard.press("Shift+?")
    dialog = page.get_by_role("dialog", name="Keyboard")
    await expect(dialog).to_be_visible()
    assert await dialog.evaluate("d => d.contains(document.activeElement)")
    assert await barriers(page) == []
    await page.keyboard.press("j")  # goes nowhere meanwhile
    await page.keyboard.press("Escape")
    await expect(dialog).to_be_hidden()
    await expect(page.locator(f"[id='{rows[1]}'] [data-open]")).to_be_focused()
    await page.keyboard.press("x")
    await expect(page.locator("#marked")).to_have_text("1 marked")
    await page.keyboard.press("x")
    await page.keyboard.press("a")  # nothing is marked: this question
    await expect(page.get_by_role("button", name="Approve marked")).to_be_focused()
    await expect(page.locator("#marked")).to_have_text("1 marked")
    await page.keyboard.press("r")
    await expect(page.get_by_label("Reason")).to_be_focused()
    await page.keyboard.type("jx?")  # only text here
    await expect(page.get_by_label("Reason")).to_have_value("jx?")
    await page.keyboard.press("Escape")
    await page.locator(f"[id='{rows[1]}'] [data-open]").focus()
    await page.keyboard.press("Enter")
    await page.wait_for_url("**/console/questions/*")
    await page.keyboard.press("a")
    await expect(page.get_by_role("button", name="Approve as asked")).to_be_focused()
    await page.keyboard.press("r")
    await expect(page.get_by_label("Reason")).to_be_focused()
    await page.keyboard.press("Escape")
    await page.keyboard.press("e")
    await expect(page.get_by_label("Arguments, as JSON")).to_be_focused()
    await page.keyboard.press("Escape")
    await page.keyboard.press("j")
    await page.wait_for_url(f"**/console/questions/{rows[2].removeprefix('q-')}")
    await page.keyboard.press("u")
    await page.wait_for_url("**/console/queue")


async def test_filter_and_pages(desk: Desk) -> None:
    """The most urgent first, in pages; a filter shows what fits and says that something is hidden."""
    page = await desk.person("ruta@crowd", "approver")
    base = datetime.now(UTC) + timedelta(hours=2)
    for number in range(60):
        run = await desk.api.put_run("crowd", Phase.AWAITING_APPROVAL)
        await desk.api.put_question(
            run, deadline=base + timedelta(seconds=60 - number), effect="send" if number % 20 == 0 else "destructive"
        )
    await page.goto("/console/queue")
    await expect(page.locator(".question")).to_have_count(50)
    due = await page.locator(".question time[data-countdown]").evaluate_all("all => all.map(e => e.dateTime)")
    await page.get_by_role("link", name="Next page").click()
    await expect(page.locator(".question")).to_have_count(10)
    due += await page.locator(".question time[data-countdown]").evaluate_all("all => all.map(e => e.dateTime)")
    assert (due, len(set(due))) == (sorted(due), 60)
    await page.goto("/console/queue")
    await page.get_by_label("Effect").select_option("send")
    await expect(page.locator(".question")).to_have_count(3)
    await expect(page.locator(".count")).to_contain_text("60 waiting, some hidden")
    await page.goto("/console/queue?age=1h")
    await expect(page.get_by_text("Nothing fits the filter")).to_be_visible()


async def test_what_a_model_wrote_is_only_text(desk: Desk) -> None:
    """Markup in arguments is shown, never taken for the page's own."""
    page = await desk.person("ruth", "approver")
    run = await desk.api.put_run(phase=Phase.AWAITING_APPROVAL, requester="<script>alert(1)</script>")
    evil = "<img src=x onerror=alert(1)>\n</pre><script>alert(2)</script>{{ 7*7 }}"
    request = await desk.api.put_question(run)
    call = request.call.model_copy(update={"arguments": {"paths": [evil]}}) if request.call else None
    other = await desk.api.put_run(phase=Phase.AWAITING_APPROVAL)
    await desk.api.put_question(other, call=call, reason=evil, rule="x")
    page.on("dialog", lambda _: desk.errors.append("a script ran"))
    await page.goto(f"/console/questions/{other.id}.1")
    await expect(page.locator(".values pre")).to_have_text(evil)
    assert json.loads(await page.get_by_label("Arguments, as JSON").input_value()) == {"paths": [evil]}
