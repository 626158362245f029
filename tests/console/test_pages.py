"""Promises: a run's page follows it; runs are cancelled, switches set and released, keys made and withdrawn by the same
code as over the API, for those who may; the policy explains itself; the audit log is searched, verified, exported."""

import json
from contextlib import aclosing
from pathlib import Path

import httpx
import pytest
from playwright.async_api import expect

from api.console import assets
from api.console.guard import POLICY
from tests.api.running import Api
from tests.api.test_flow import answer, asked, ended
from tests.console.people import Desk
from tests.console.test_sessions import browser_of, key_of
from worker.store.audit import AuditEvent


async def test_a_run_followed_live(desk: Desk) -> None:
    """Somebody else answers; the page of the run shows it, to the end."""
    page = await desk.person("olga", "operator")
    run_id, question = await asked(desk.api, requester="olga")
    await page.goto("/console/runs")
    await page.locator(f"[id='r-{run_id}'] a").click()
    await expect(page.locator("#run")).to_have_attribute("data-phase", "awaiting_approval")
    await expect(page.get_by_text("Question to people")).to_be_visible()
    await answer(desk.api, await desk.api.client("approver"), question)
    await expect(page.locator("#run")).to_have_attribute("data-phase", "succeeded")
    await expect(page.locator(".steps-list")).to_contain_text("The run ended")
    await page.locator(".steps-list summary").first.click()
    await expect(page.locator(".steps-list .pairs").first).to_be_visible()


async def test_cancel(desk: Desk) -> None:
    page = await desk.person("olga", "operator")
    run_id, _ = await asked(desk.api, requester="olga")
    await page.goto(f"/console/runs/{run_id}")
    await page.get_by_role("button", name="Cancel the run").click()
    assert (await ended(desk.api, run_id))["phase"] == "cancelled"
    await expect(page.locator("#run")).to_have_attribute("data-phase", "cancelled")
    await expect(page.get_by_role("button", name="Cancel the run")).to_have_count(0)


async def test_policy(house: Api) -> None:
    _, key = await key_of(house, "pia", "auditor", "operator")
    async with aclosing(await browser_of(house, key)) as client:
        shown = (await client.get("/console/policy")).text
        assert "tidying-needs-approval" in shown
        question = {
            "automation": "tidy",
            "tool": "delete_files",
            "arguments": '{"paths": ["in/a"]}',
            "roles": "operator",
        }
        explained = (await client.post("/console/policy/explain", data=question)).text
        assert 'state-ask">ask</span> by rule <code>' in explained
        wrong = await client.post("/console/policy/explain", data=question | {"arguments": "{"})
        assert (wrong.status_code, "cannot be read" in wrong.text) == (422, True)
        unfit = await client.post("/console/policy/explain", data=question | {"arguments": '{"paths": 1}'})
        assert unfit.status_code == 422
        await asked(house, requester="olga")
        none = "apiVersion: gatehouse/v1\nrules:\n  - {id: drill, roles: ['*'], verdict: deny, reason: drill}\n"
        simulated = await client.post("/console/policy/simulate", data={"text": none})
        assert 'id="simulated"' in simulated.text, simulated.text
        assert "Would be" in simulated.text  # every recorded call would be denied
        broken = await client.post("/console/policy/simulate", data={"text": "apiVersion: nope"})
        assert broken.status_code == 422


async def test_audit(house: Api) -> None:
    _, key = await key_of(house, "arno", "auditor")
    run_id, _ = await asked(house, requester="olga")
    async with aclosing(await browser_of(house, key)) as client:
        found = (await client.get("/console/audit", params={"type": "approval.requested", "run": run_id})).text
        assert found.count('id="n-') == 1
        assert "The chain holds" in (await client.get("/console/audit/verify")).text
        response = await client.get("/console/audit/export", params={"run": run_id})
        lines = [json.loads(line) for line in response.text.splitlines()]
        assert [line["run_seq"] for line in lines] == list(range(1, len(lines) + 1))
        assert response.headers["content-disposition"].startswith("attachment")
        everything = (await client.get("/console/audit/export")).text.splitlines()
        assert len(everything) > len(lines)
        assert {json.loads(line)["tenant"] for line in everything} == {"default"}
        for wrong in {"since": "yesterday"}, {"type": "run.nothing"}, {"until": "0001-01-01T00:00+14:00"}:
            refused = await client.get("/console/audit", params=wrong)
            assert (refused.status_code, 'role="alert"' in refused.text) == (422, True)
            assert next(iter(wrong.values())) in refused.text.replace("&#43;", "+")  # what was typed is still there
            assert (await client.get("/console/audit/export", params=wrong)).status_code == 422


async def test_the_audit_log_is_searched(desk: Desk) -> None:
    """By form, without scripts: who, when, what it says; the address keeps it, and the export holds just that."""
    page = await desk.person("aude", "admin", java_script_enabled=False)
    marks = [f"mark {n} zwölf" for n in range(3)]
    for n, mark in enumerate(marks):
        who = "petra" if n else "paul"
        await desk.api.services.audit.append(
            AuditEvent(f"mark/{n}", "access.denied", "default", None, who, {"path": mark})
        )
    await page.goto("/console/audit")
    await page.get_by_label("Who").fill("petra")
    await page.get_by_label("Text").fill("zwölf")
    await page.get_by_label("From (UTC)").fill("2026-01-01T00:00")
    await page.get_by_role("button", name="Search").click()
    rows = page.locator("tbody tr")
    await expect(rows).to_have_count(2)
    await expect(rows.first).to_contain_text(marks[2])  # the newest first
    for field, value in ("Who", "petra"), ("Text", "zwölf"), ("From (UTC)", "2026-01-01T00:00"):
        assert await page.get_by_label(field).input_value() == value
    await page.reload()
    await expect(rows).to_have_count(2)
    await page.get_by_role("button", name="Verify the log").click()
    await expect(page.get_by_text("The chain holds")).to_be_visible()
    await expect(rows).to_have_count(2)
    href = await page.get_by_role("link", name="Export what fits").get_attribute("href")
    exported = await page.request.get(href or "")
    assert [json.loads(line)["body"]["path"] for line in (await exported.text()).splitlines()] == marks[1:]
    await page.get_by_label("Until (UTC)").fill("2026-01-02T00:00")
    await page.get_by_role("button", name="Search").click()
    await expect(page.get_by_text("No record fits")).to_be_visible()


async def test_an_open_log_says_that_it_grew(desk: Desk) -> None:
    """What fits the search is counted; what somebody reads stays where it is until they ask."""
    page = await desk.person("aude", "admin")
    await page.goto("/console/audit?actor=nora")
    await expect(page.get_by_text("No record fits")).to_be_visible()
    for n in range(2):
        await desk.api.services.audit.append(
            AuditEvent(f"news/{n}", "access.denied", "default", None, "nora", {"path": f"news {n}"})
        )
    await page.get_by_role("link", name="2 new records: show").click()
    await expect(page.locator("tbody tr")).to_have_count(2)
    await expect(page.get_by_role("link", name="new record")).to_have_count(0)


async def test_switches(house: Api) -> None:
    _, key = await key_of(house, "sven", "admin")
    async with aclosing(await browser_of(house, key)) as client:
        asked_ = {"scope": "automation", "target": "none-such", "kind": "stop", "running": "pause", "reason": "drill"}
        assert (await client.post("/console/switches", data=asked_ | {"reason": " "})).status_code == 422
        assert (await client.post("/console/switches", data=asked_)).status_code == 303
        (switch,) = (await (await house.client("sven", "admin")).get("/switches", params={"active": True})).json()[
            "items"
        ]
        shown = (await client.get("/console/switches")).text
        assert "Automation none-such" in shown
        path = f"/console/switches/{switch['id']}/release"
        assert (
            await client.post(path, data={"state": "safe_mode", "reason": "x"})
        ).status_code == 409  # not what it is
        assert (await client.post(path, data={"state": "stop", "reason": "over"})).status_code == 303
        assert "safe mode" in (await client.get("/console/switches")).text
        assert (await client.post(path, data={"state": "safe_mode", "reason": "over"})).status_code == 303
        assert "Nothing is stopped" not in (await client.get("/console/switches")).text  # what was stays to be seen


async def test_switches_followed_live(desk: Desk) -> None:
    """What somebody else sets and releases is seen by itself; what is being typed meanwhile stays."""
    page, api = await desk.person("sven", "admin"), await desk.api.client("sven", "admin")
    await page.goto("/console/switches")
    await page.get_by_label("Reason").fill("half a thou")
    body = {"scope": "automation", "target": "nobody-runs-it", "kind": "stop", "running": "pause", "reason": "drill"}
    first = (await api.post("/switches", json=body)).json()["id"]
    shown = page.locator("section.switch").filter(has_text="nobody-runs-it")
    await expect(shown).to_contain_text("stopped")
    await shown.get_by_label("Why it is released").fill("half a rea")
    await api.post("/switches", json=body | {"target": "nobody-runs-that"})
    await expect(page.locator("section.switch").filter(has_text="nobody-runs-that")).to_be_visible()
    await expect(shown.get_by_label("Why it is released")).to_have_value("half a rea")
    await expect(page.get_by_label("Reason")).to_have_value("half a thou")
    for state in "stop", "safe_mode":
        await api.post(f"/switches/{first}/release", json={"state": state, "reason": "over"})
    await expect(shown).to_contain_text("released")


async def test_keys(house: Api) -> None:
    """Shown once; a session opened with it ends when it is revoked."""
    _, key = await key_of(house, "kim", "admin")
    async with aclosing(await browser_of(house, key)) as client:
        made = await client.post(
            "/console/keys", data={"name": "fresh", "principal": "fred", "role": ["viewer"], "days": "1"}
        )
        fresh = made.text.split('id="made">')[1].split("<")[0]
        assert fresh not in (await client.get("/console/keys")).text
        async with aclosing(await browser_of(house, fresh)) as fred:
            assert (await fred.get("/console/queue")).status_code == 200
            key_id = fresh.split("_")[1]
            assert (await client.post(f"/console/keys/{key_id}/revoke")).status_code == 303
            assert (await fred.get("/console/queue")).status_code == 303
        wrong = await client.post(
            "/console/keys", data={"name": "x", "principal": "no spaces allowed", "role": ["viewer"]}
        )
        assert (wrong.status_code, "Correct the field principal" in wrong.text) == (422, True)


async def test_a_fault_of_ours_is_a_page_too(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawn like all others, under the same rules, and without a word of the fault's inside."""
    page = await desk.person("vera", "viewer")

    async def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("secret inside")

    monkeypatch.setattr(desk.api.services.runs, "page", broken)
    answer = await page.goto("/console/runs")
    assert answer is not None
    assert (answer.status, answer.headers["content-security-policy"]) == (500, POLICY)
    await expect(page.get_by_text("a fault of ours")).to_be_visible()
    assert "secret" not in await page.content()
    assert await page.locator(".bar").evaluate("bar => getComputedStyle(bar).display") == "flex"
    desk.errors[:] = [said for said in desk.errors if "status of 500" not in said]


async def test_keys_followed_live(desk: Desk) -> None:
    """A key that somebody else makes is there by itself; what is being typed stays."""
    page = await desk.person("kim", "admin")
    await page.goto("/console/keys")
    await page.get_by_label("Stands for").fill("half a na")
    await key_of(desk.api, "brand-new", "viewer")
    await expect(page.get_by_role("row").filter(has_text="brand-new")).to_be_visible()
    await expect(page.get_by_label("Stands for")).to_have_value("half a na")


async def test_missing_assets_are_said(house: Api, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where set-up could not fetch them, pages say what is missing and how to repair it, ask for none, and work."""
    _, key = await key_of(house, "plain-looks", "viewer")
    monkeypatch.setattr(assets, "FETCHED", tmp_path)
    async with aclosing(await browser_of(house, key)) as client:
        text = (await client.get("/console/queue")).text
        for name in assets.NEEDED:
            assert text.count(name) == 1  # in the banner
        assert "make setup" in text
        assert (await client.get("/console/runs")).status_code == 200


async def test_each_role_sees_what_it_may(house: Api) -> None:
    """The navigation offers it, and the route behind it asks again."""
    everybody = {"viewer", "operator", "approver", "auditor", "admin"}
    pages = {
        "queue": everybody, "runs": everybody, "policy": {"auditor", "admin"}, "audit": {"auditor", "admin"},
        "keys": {"admin"},
    }  # fmt: skip
    for role in sorted(everybody):
        _, key = await key_of(house, f"role-{role}", role)
        async with aclosing(await browser_of(house, key)) as client:
            queue = (await client.get("/console/queue")).text
            for page, roles in pages.items():
                response = await client.get(f"/console/{page}")
                assert (response.status_code == 200) is (role in roles), (role, page)
                assert (f'href="/console/{page}"' in queue) is (role in roles), (role, page)


async def test_another_tenants_pages_do_not_exist(house: Api) -> None:
    run_id, question = await asked(house, requester="olga")
    await house.client("mallory@walled", "admin")
    async with aclosing(await browser_of(house, house.keys["mallory@walled"])) as client:
        for method, path, data in (
            ("GET", f"/console/questions/{question['id']}", None),
            (
                "POST",
                f"/console/questions/{question['id']}/answer",
                {"verdict": "approve", "digest": question["digest"]},
            ),
            ("GET", f"/console/runs/{run_id}", None),
            ("POST", f"/console/runs/{run_id}/cancel", {}),
            ("GET", f"/console/runs/{run_id}/artifacts/x", None),
        ):
            response: httpx.Response = await client.request(method, path, data=data)
            assert response.status_code == 404, path
        assert run_id not in (await client.get("/console/audit/export")).text
        assert run_id not in (await client.get("/console/runs")).text
