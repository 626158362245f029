"""Promises: what could not be delivered is counted on every page of those who may see it, says why, is sent again or
let be by a button (without scripts too), by the same right as over the API, and is nobody else's."""

from datetime import timedelta

from playwright.async_api import expect

from policies.redaction import redact_json
from tests.api.running import question_of
from tests.console.people import LOOKS, Desk, barriers, photograph
from worker.activities.questions import notice
from worker.keeper.delivering import Delivering
from worker.notify.channels import Chosen
from worker.notify.sending import NotDelivered
from worker.store.outbox import Notice
from workflows.contracts import Phase


class Shut:
    """A channel that takes nothing for good, until it is mended."""

    mended = False

    async def send(self, notice: Notice) -> str:
        if not self.mended:
            raise NotDelivered("the receiver says 410 <b>gone</b>", final=True)
        return f"taken {notice.id}"


async def given_up(desk: Desk, tenant: str, *, many: int) -> tuple[Delivering, Shut]:
    """That many messages about questions of a tenant, none of which its one channel took."""
    channel, shut = Chosen(name="pager", events=("*",), tenants=(tenant,)), Shut()
    outbox = desk.api.services.outbox
    duty = Delivering(outbox, lambda: {"pager": (channel, shut)}, pause=lambda _: timedelta())
    for _ in range(many):
        run = await desk.api.put_run(tenant, Phase.AWAITING_APPROVAL)
        async with desk.api.services.database.begin() as conn:
            await outbox.add(conn, notice(question_of(run), "approval.requested", redact_json))
    await duty.look()
    return duty, shut


async def states(desk: Desk, tenant: str) -> list[str]:
    return sorted(made.state for made in (await desk.api.services.outbox.page(tenant)).items)


async def test_sent_again_or_let_be(desk: Desk) -> None:
    """By buttons, without scripts; the number in the navigation follows, and what was sent again arrives."""
    page = await desk.person("ada@told", "admin", java_script_enabled=False)
    await expect(page.locator("#undelivered")).to_have_count(0)
    await page.get_by_role("link", name="Deliveries").click()
    await expect(page.get_by_text("Everything got where it should")).to_be_visible()
    duty, shut = await given_up(desk, "told", many=3)
    await page.goto("/console/queue")
    await page.get_by_role("link", name="Deliveries 3 could not be delivered").click()
    rows = page.locator("tbody tr")
    await expect(rows).to_have_count(3)
    await expect(rows.first).to_contain_text("needs an answer by approver")
    await expect(rows.first).to_contain_text("the receiver says 410 <b>gone</b>")
    await rows.first.get_by_role("button", name="Dismiss").click()
    await expect(page.get_by_text("1 message dismissed")).to_be_visible()
    await expect(page.locator("#undelivered")).to_contain_text("2")
    await rows.first.get_by_role("button", name="Send again").click()
    await expect(page.get_by_text("1 message will be sent again")).to_be_visible()
    assert await states(desk, "told") == ["dead", "dismissed", "pending"]
    shut.mended = True
    await duty.look()
    assert await states(desk, "told") == ["dead", "delivered", "dismissed"]
    await page.get_by_label("State").select_option("delivered")
    await page.get_by_role("button", name="Filter").click()
    await expect(rows).to_have_count(1)
    await expect(rows).to_contain_text("taken")
    await rows.get_by_role("link").click()
    await page.wait_for_url("**/console/questions/run_*")


async def test_all_at_once(desk: Desk) -> None:
    page = await desk.person("ada@flood", "admin")
    duty, shut = await given_up(desk, "flood", many=2)
    for look in sorted(LOOKS):
        await page.set_viewport_size(LOOKS[look]["viewport"])
        await page.emulate_media(color_scheme=LOOKS[look]["color_scheme"])
        await page.goto("/console/deliveries")
        await photograph(page, f"deliveries-{look}")
        assert await barriers(page) == []
    await page.get_by_role("button", name="Send all 2 again").click()
    await expect(page.get_by_text("2 messages will be sent again")).to_be_visible()
    shut.mended = True
    await duty.look()
    assert await states(desk, "flood") == ["delivered", "delivered"]


async def test_nobody_elses(desk: Desk) -> None:
    """Another tenant's neither count nor can be touched; a role without the right sees no such page and no number."""
    await given_up(desk, "mute", many=1)
    (dead,) = (await desk.api.services.outbox.page("mute")).items
    page = await desk.person("eve@prying", "admin")
    await expect(page.locator("#undelivered")).to_have_count(0)
    for action in "retry", "dismiss":
        answer = await page.request.post(
            f"/console/deliveries/{action}", form={"id": dead.id}, headers={"Sec-Fetch-Site": "same-origin"}
        )
        assert answer.status == 404
    ruth = await desk.person("ruth@mute", "approver")
    await expect(ruth.get_by_role("link", name="Deliveries")).to_have_count(0)
    for path in "", "/retry", "/dismiss":
        headers = {"Sec-Fetch-Site": "same-origin"}
        answer = await ruth.request.fetch(
            f"/console/deliveries{path}", method="POST" if path else "GET", form={"id": dead.id}, headers=headers
        )
        assert answer.status == 403, path
    assert await states(desk, "mute") == ["dead"]
