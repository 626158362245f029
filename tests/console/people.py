"""People at their browsers: each has a context of their own, is signed in with their own key, and looks at pages."""

import re
import shutil
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from playwright.async_api import Browser, BrowserContext, Page, async_playwright, expect

from deploy.assets import FOLDER
from policies.redaction import redact_json
from tests.api.running import Api, question_of
from worker.activities.questions import requested
from worker.store.runs import Run

ROOT = Path(__file__).resolve().parents[2]
SHOTS = ROOT / "test-output" / "console"
AXE = FOLDER / "axe.min.js"
PATIENCE_MS = 30_000
"""Ceiling of every wait for something a page shows; on a loaded machine a browser may be slow."""
expect.set_options(timeout=PATIENCE_MS)

Scheme = Literal["light", "dark"]
LOOKS: dict[str, dict[str, Any]] = {
    "light": {"color_scheme": "light", "viewport": {"width": 1280, "height": 800}},
    "dark": {"color_scheme": "dark", "viewport": {"width": 1280, "height": 800}},
    "phone": {"color_scheme": "light", "viewport": {"width": 390, "height": 844}},
}


@asynccontextmanager
async def chromium() -> AsyncGenerator[Browser]:
    """Debian's Chromium; nothing is downloaded."""
    found = shutil.which("chromium")
    assert found, "run: make setup-dev"
    async with async_playwright() as driver:
        # Its own sandbox needs rights that root in a container does not have; pages here are ours.
        browser = await driver.chromium.launch(executable_path=found, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        await browser.close()


class Desk:
    """One installation and a browser; makes people."""

    def __init__(self, api: Api, browser: Browser) -> None:
        self.api = api
        self.browser = browser
        self.contexts: list[BrowserContext] = []

    async def person(self, who: str, *roles: str, look: str = "light", signed_in: bool = True, **more: Any) -> Page:
        """A page of somebody with a context (cookies, cache) of their own; errors of its scripts fail the test."""
        await self.api.client(who, *roles)
        context = await self.browser.new_context(base_url=self.api.url, **(LOOKS[look] | more))
        context.set_default_timeout(PATIENCE_MS)
        self.contexts.append(context)
        page = await context.new_page()
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", lambda m: self.errors.append(m.text) if _bad(m.type, m.text) else None)
        if signed_in:
            await self.sign_in(page, who)
        return page

    errors: list[str] = []  # noqa: RUF012  (emptied by the fixture)

    async def sign_in(self, page: Page, who: str) -> None:
        """Through the form, as anybody does."""
        await page.goto("/console/sign-in")
        await page.get_by_label("API key").fill(self.api.keys[who])
        await page.get_by_role("button", name="Sign in").click()
        await page.wait_for_url("**/console/queue")

    async def put_question(self, run: Run, **changes: Any) -> datetime:
        """A pending question and its record, stored in one transaction as a run's worker does; returns when it was."""
        request = question_of(run, **changes)
        services = self.api.services
        async with services.database.begin() as conn:
            await services.approvals.open(request, conn=conn)
            await services.audit.append(requested(request, redact_json), conn=conn)
        return datetime.now(UTC)

    async def close(self) -> None:
        """Everybody goes home."""
        for context in self.contexts:
            await context.close()


def _bad(kind: str, text: str) -> bool:
    """What a page should never say on the browser's console; answers such as 409 are said there too, and are fine."""
    return kind == "error" and not re.search(r"status of (4\d\d|503)", text)


async def photograph(page: Page, name: str) -> None:
    """A picture of the whole page, kept under test-output."""
    SHOTS.mkdir(parents=True, exist_ok=True)
    await page.screenshot(path=SHOTS / f"{name}.png", full_page=True)


async def barriers(page: Page) -> list[str]:
    """What axe finds that keeps people out (WCAG 2.2 A and AA; serious or critical)."""
    # Through the driver, not the page: the page's own policy lets no foreign script in.
    await page.evaluate(AXE.read_text())
    found: dict[str, Any] = await page.evaluate(
        "() => axe.run({runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa']})"
    )
    return [
        f"{v['impact']} {v['id']}: {v['help']} {[n['target'] for n in v['nodes']][:4]} "
        f"{v['nodes'][0].get('failureSummary', '')[:300]}"
        for v in found["violations"]
        if v["impact"] in ("serious", "critical")
    ]
