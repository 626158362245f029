"""Promises: every page can be used by everybody (axe finds nothing serious: light, dark, phone), and is drawn
without a fault of its scripts. The pictures are kept under test-output/console, to be looked at."""

import pytest

from tests.api.running import Api
from tests.api.test_flow import answer, asked, ended
from tests.console.people import LOOKS, Desk, barriers, photograph

PAGES = {
    "queue": "/console/queue",
    "queue-empty": "/console/queue?automation=none-such",
    "question": "/console/questions/{open}",
    "question-closed": "/console/questions/{closed}",
    "runs": "/console/runs",
    "run": "/console/runs/{run}",
    "automations": "/console/automations",
    "automation": "/console/automations/tidy",
    "tools": "/console/tools",
    "tool": "/console/tools/delete_files",
    "standing": "/console/standing",
    "policy": "/console/policy",
    "audit": "/console/audit",
    "switches": "/console/switches",
    "deliveries-empty": "/console/deliveries",
    "keys": "/console/keys",
    "not-found": "/console/nowhere",
    "sign-in": "/console/sign-in?ended=1",
}


@pytest.fixture(scope="module")
async def places(house: Api) -> dict[str, str]:
    """One run that has ended after a denial, one that waits."""
    run_id, closed = await asked(house, requester="olga")
    await answer(house, await house.client("adam", "admin"), closed, "deny")
    await ended(house, run_id)
    _, waiting = await asked(house, requester="olga")
    return {"run": run_id, "closed": closed["id"], "open": waiting["id"]}


@pytest.mark.parametrize("look", sorted(LOOKS))
async def test_nothing_keeps_people_out(desk: Desk, places: dict[str, str], look: str) -> None:
    page = await desk.person("adam", "admin", look=look)
    found: dict[str, list[str]] = {}
    for name, path in PAGES.items():
        await page.goto(path.format(**places))
        await photograph(page, f"{name}-{look}")
        if problems := await barriers(page):
            found[name] = problems
    assert found == {}
