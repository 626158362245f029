"""Promises: two people at one queue see the same; what one does the other sees without doing anything; what was answered
in a browser runs exactly as answered, and an answer that came too late is said so, humanly."""

from playwright.async_api import expect

from tests.api.test_flow import asked, ended
from tests.console.people import Desk, photograph


async def test_two_people_one_queue(desk: Desk) -> None:
    """A question appears on both screens by itself, one answers, it is gone on the other; then the run goes on."""
    ruth, rolf = await desk.person("ruth", "approver"), await desk.person("rolf", "approver")
    run_id, question = await asked(desk.api, requester="olga-two")
    for page in ruth, rolf:
        await expect(page.locator(f"[id='q-{question['id']}']")).to_be_visible()
    await photograph(ruth, "queue-first")
    await ruth.locator(f"[id='q-{question['id']}'] a").click()
    await photograph(ruth, "question-first")
    await ruth.get_by_role("button", name="Approve as asked").click()
    await expect(ruth.get_by_text("You approved this.")).to_be_visible()
    await expect(rolf.locator(f"[id='q-{question['id']}']")).to_have_count(0)
    assert (await ended(desk.api, run_id))["outcomes"].count("succeeded") >= 1
