"""Promises: a session ends when its key is revoked, when it was idle too long, at its fixed end and by signing out;
nothing changes at the request of another site; pages allow no foreign script and no inline code."""

import json
import re
from datetime import timedelta

import httpx
import pytest
import sqlalchemy as sa
from playwright.async_api import expect

from policies.decision import Principal
from tests.api.running import Api
from tests.api.test_flow import asked
from tests.console.people import Desk, barriers, photograph
from worker.store import times
from worker.store.tables import console_session

OURS = {"Sec-Fetch-Site": "same-origin"}


async def browser_of(api: Api, key: str) -> httpx.AsyncClient:
    """A signed-in browser without a window."""
    client = httpx.AsyncClient(base_url=api.url, headers=OURS, timeout=60)
    response = await client.post("/console/sign-in", data={"key": key})
    assert (response.status_code, response.headers["location"]) == (303, "/console/queue"), response.text
    return client


async def key_of(api: Api, name: str, *roles: str) -> tuple[str, str]:
    key, plaintext = await api.services.keys.create(name, Principal(id=name, roles=roles or ("approver",)))
    return key.id, plaintext


async def test_no_session_no_page(house: Api) -> None:
    async with httpx.AsyncClient(base_url=house.url, timeout=60) as nobody:
        for path in "/console/queue?effect=send", "/console/questions/run_x.1", "/console/live?after=0":
            response = await nobody.get(path)
            assert response.status_code == 303
            assert response.headers["location"].startswith("/console/sign-in?next=%2Fconsole%2F")
        assert (await nobody.get("/console", follow_redirects=True)).url.path == "/console/sign-in"
        wrong = await nobody.post("/console/sign-in", data={"key": "gh_wrong"}, headers=OURS)
        assert wrong.status_code == 401
        assert "unknown, expired or revoked" in wrong.text
        assert "set-cookie" not in wrong.headers


async def test_the_cookie(house: Api) -> None:
    _, key = await key_of(house, "cookie")
    async with httpx.AsyncClient(base_url=house.url, headers=OURS, timeout=60) as client:
        response = await client.post("/console/sign-in", data={"key": key})
    cookie = response.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=lax" in cookie
    assert "Path=/" in cookie
    assert "Max-Age" not in cookie  # gone with the browser
    assert key not in cookie
    token = cookie.partition("=")[2].partition(";")[0]
    async with house.services.database.read() as conn:
        stored = (await conn.execute(sa.select(console_session))).all()
    assert token not in str(stored)


@pytest.mark.parametrize("end", ["revoked", "signed out", "idle", "at its end", "key expired"])
async def test_every_session_ends(house: Api, end: str) -> None:
    key_id, key = await key_of(house, f"ends {end}".replace(" ", "-"))
    client = await browser_of(house, key)
    assert (await client.get("/console/queue")).status_code == 200
    row = {"idle": {"seen_at": times.now() - timedelta(hours=2)}, "at its end": {"expires_at": times.now()}}
    if end == "revoked":
        await house.services.keys.revoke(None, key_id)
    elif end == "signed out":
        kept = dict(client.cookies)
        assert (await client.post("/console/sign-out")).status_code == 303
        client.cookies.update(kept)  # a copy of the cookie is worth nothing
    elif end == "key expired":
        async with house.services.database.begin() as conn:
            past = {"at": times.to_text(times.now()), "id": key_id}
            await conn.execute(sa.text("UPDATE api_key SET expires_at = :at WHERE id = :id"), past)
    else:
        async with house.services.database.begin() as conn:
            await conn.execute(sa.update(console_session).where(console_session.c.key_id == key_id).values(**row[end]))
    response = await client.get("/console/queue")
    assert (response.status_code, "ended=1" in response.headers["location"]) == (303, True)
    await client.aclose()


async def test_roles_count_as_they_are_now(house: Api) -> None:
    """What the key stands for decides, not what it stood for when somebody signed in."""
    key_id, key = await key_of(house, "demoted")
    client = await browser_of(house, key)
    run = await house.put_run()
    asked_ = await house.put_question(run)
    async with house.services.database.begin() as conn:
        less = Principal(id="demoted", roles=("viewer",)).model_dump_json()
        await conn.execute(sa.text("UPDATE api_key SET principal = :p WHERE id = :id"), {"p": less, "id": key_id})
    answer = {"verdict": "approve", "digest": asked_.digest}
    response = await client.post(f"/console/questions/{asked_.id}/answer", data=answer)
    assert response.status_code == 403
    assert "needs the role approver" in response.text
    assert await house.records("access.denied", run_id=None)
    await client.aclose()


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example"},
        {"Sec-Fetch-Site": "same-site", "Origin": "https://other.example.org"},
        {"Sec-Fetch-Site": "none"},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "same-origin", "Origin": "https://evil.example"},
        {},
    ],
)
async def test_other_sites_change_nothing(house: Api, headers: dict[str, str]) -> None:
    _, key = await key_of(house, "victim")
    client = await browser_of(house, key)
    del client.headers["Sec-Fetch-Site"]
    run = await house.put_run()
    asked_ = await house.put_question(run)
    for path, data in (
        (f"/console/questions/{asked_.id}/answer", {"verdict": "approve", "digest": asked_.digest}),
        ("/console/queue/answer", {"verdict": "approve", "pick": f"{asked_.id}:{asked_.digest}"}),
        ("/console/sign-out", {}),
        ("/console/sign-in", {"key": key}),
    ):
        response = await client.post(path, data=data, headers=headers)
        assert (response.status_code, "did not come from a page of the console" in response.text) == (403, True), path
    assert await house.records("answer.refused", run_id=run.id) == []  # it never got as far as an answer
    assert (await client.get("/console/queue")).status_code == 200  # still signed in
    await client.aclose()


async def test_our_own_pages_by_origin_alone(house: Api) -> None:
    """Browsers leave Sec-Fetch-Site out on plain HTTP."""
    _, key = await key_of(house, "plain")
    async with httpx.AsyncClient(base_url=house.url, headers={"Origin": house.url}, timeout=60) as client:
        assert (await client.post("/console/sign-in", data={"key": key})).status_code == 303


async def test_headers_and_no_inline_code(house: Api) -> None:
    _, key = await key_of(house, "strict")
    client = await browser_of(house, key)
    _, question = await asked(house, requester="olga")
    for path in "/console/queue", f"/console/questions/{question['id']}", "/console/sign-in", "/console/nowhere":
        response = await client.get(path)
        policy = response.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert response.headers["x-content-type-options"] == "nosniff"
        assert response.headers["cache-control"] == "no-store"
        inline = r"<script(?![^>]* src=)|<style|<[^>]*\s(style|on[a-z]+|(href|action)=.?javascript)[=:]"
        assert not re.search(inline, response.text), path
    await client.aclose()


@pytest.mark.parametrize("there", ["https://evil.example/", "//evil.example", "/console//evil", "/api/v1/keys", "x"])
async def test_signing_in_leads_nowhere_else(house: Api, there: str) -> None:
    _, key = await key_of(house, "next")
    async with httpx.AsyncClient(base_url=house.url, headers=OURS, timeout=60) as client:
        response = await client.post("/console/sign-in", data={"key": key, "next": there})
    assert response.headers["location"] == "/console/queue"


async def test_a_session_that_ends_while_answering(desk: Desk) -> None:
    """The answer is not lost silently: the page says that it was not given, and leads back to the question."""
    page = await desk.person("short", "approver")
    _, question = await asked(desk.api, requester="olga")
    await page.goto(f"/console/questions/{question['id']}")
    async with desk.api.services.database.begin() as conn:
        await conn.execute(sa.update(console_session).values(closed_at=times.now()))
    await page.get_by_role("button", name="Approve as asked").click()
    await expect(page.get_by_text("was not done")).to_be_visible()
    await page.get_by_label("API key").fill(desk.api.keys["short"])
    await page.get_by_role("button", name="Sign in").click()
    await expect(page.get_by_role("button", name="Approve as asked")).to_be_visible()
    found = await (await desk.api.client("short")).get(f"/approvals/{question['id']}")
    assert found.json()["state"] == "pending"


async def end_all(api: Api) -> None:
    async with api.services.database.begin() as conn:
        await conn.execute(sa.update(console_session).values(closed_at=times.now()))


async def test_what_was_typed_outlives_the_session(desk: Desk) -> None:
    """A wrong key first, then the right one: the words are in the form again, and count once they are sent again."""
    page = await desk.person("wordy", "approver")
    run_id, question = await asked(desk.api, requester="olga")
    await page.goto(f"/console/questions/{question['id']}")
    words = 'Keep it <b>until</b> Friday,\nthen "ask" again.'
    await page.get_by_label("Reason").fill(words)
    await end_all(desk.api)
    await page.get_by_role("button", name="Deny").click()
    await expect(page.get_by_role("alert")).to_contain_text("What you typed is kept")
    await expect(page.locator(".kept pre")).to_have_text(words)
    await page.get_by_label("API key").fill("gh_wrong")
    await page.get_by_role("button", name="Sign in").click()
    await expect(page.locator(".kept pre")).to_have_text(words)
    await page.get_by_label("API key").fill(desk.api.keys["wordy"])
    await page.get_by_role("button", name="Sign in").click()
    await expect(page.get_by_label("Reason")).to_have_value(words)
    await expect(page.get_by_role("heading", name="Not sent yet")).to_be_visible()
    assert await barriers(page) == []
    await photograph(page, "resume-light")
    assert "Friday" not in page.url + str(await page.context.cookies())
    assert await desk.api.records("approval.denied", run_id=run_id) == []
    await page.get_by_role("button", name="Deny").click()
    await expect(page.get_by_text("You denied this.")).to_be_visible()
    (denied,) = await desk.api.records("approval.denied", run_id=run_id)
    assert denied["answer"]["reason"].replace("\r\n", "\n") == words  # forms send lines so


async def test_what_was_typed_leads_nowhere_else(house: Api) -> None:
    """Only to forms of the console; and it may wait while somebody signs in in another tab."""
    _, key = await key_of(house, "keeper")
    client = await browser_of(house, key)
    fields = [{"name": "reason", "value": "because"}]

    def kept(path: str) -> dict[str, str]:
        return {"kept": json.dumps({"path": path, "fields": fields}), "next": "/console/runs"}

    for path in (
        "https://evil.example/", "//evil.example/x", "/api/v1/keys", "/console/../api/v1/keys", "/console/sign-in",
        "/console/resume", "/console//evil", "javascript:alert(1)", "/console/queue?x=/console/",
    ):  # fmt: skip
        for there, more in ("/console/sign-in", {"key": key}), ("/console/resume", {}):
            response = await client.post(there, data=kept(path) | more)
            assert (response.status_code, response.headers["location"]) == (303, "/console/runs"), path
    for nonsense in "", "[]", "{", '{"path": 1}', '{"path": "/console/queue/answer", "fields": []}':
        response = await client.post("/console/resume", data={"kept": nonsense})
        assert (response.status_code, response.headers["location"]) == (303, "/console/queue"), nonsense
    await end_all(house)
    there = kept("/console/queue/answer")
    waiting = await client.post("/console/resume", data=there)
    assert (waiting.status_code, "because" in waiting.text) == (401, True)
    assert "not</strong> done" in waiting.text
    client.cookies = (await browser_of(house, key)).cookies
    resumed = await client.post("/console/resume", data=there)
    assert (resumed.status_code, 'action="/console/queue/answer"' in resumed.text) == (200, True)
    # Whoever only wanted to leave has left.
    await end_all(house)
    assert (await client.post("/console/sign-out")).status_code == 303
    await client.aclose()


async def test_everything_without_scripts(desk: Desk) -> None:
    """Sign in, filter, read, edit, compare, approve: plain forms and links."""
    page = await desk.person("noscript", "approver", java_script_enabled=False)
    _, question = await asked(desk.api, requester="olga")
    await page.get_by_label("Effect").select_option("destructive")
    await page.get_by_role("button", name="Filter").click()
    await page.locator(f"[id='q-{question['id']}'] a").click()
    await page.get_by_text("Approve with other arguments").click()
    await page.get_by_label("Arguments, as JSON").fill('{"paths": ["in/b"]}')
    await page.get_by_role("button", name="Compare").click()
    await expect(page.locator("#changes ins")).to_have_text("in/b")
    await page.get_by_role("button", name="Approve with this edit").click()
    await expect(page.get_by_text("You approved this.")).to_be_visible()
    await page.get_by_role("button", name="Dark").click()
    await expect(page.locator("html")).to_have_attribute("data-theme", "dark")
