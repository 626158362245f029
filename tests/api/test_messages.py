"""Promises about answers by way of messages: only what Slack signed lately counts, only people we know, each button and
each link once, and every rule of an answer holds here as everywhere; a link of a mail opens a question and no more."""

import asyncio
import hashlib
import hmac
import json
import shutil
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest

from policies.redaction import redact_json
from tests.api.running import HOME, Api, Json, staffed
from tests.api.test_flow import asked, ended
from tests.fixtures.receivers import Receiver, receiver
from tests.worker.notify.test_senders import here
from worker.activities.questions import notice
from worker.notify.slack import Buttons, SlackSender
from worker.store.approvals import ApprovalRow

SECRET = "8f742231b10e8888abcd99yyyzzz85a5"
PEOPLE = {"ruth": "U0RUTH", "ray": "U0RAY", "operator": "U0OPER", "vera": "U0VERA"}


@dataclass
class Chat:
    """An installation and its Slack, which keeps what it is told."""

    api: Api
    slack: Receiver

    async def message(self, approval_id: str) -> Json:
        """The message about a question as it comes to the channel."""
        row = await self.row(approval_id)
        told = notice(row.request, "approval.requested", redact_json)
        sender = SlackSender(
            self.slack.url, self.api.services.notify.now, here(), Buttons(self.api.services.tokens, "chat")
        )
        await sender.send(told)
        return json.loads(self.slack.got[-1].body)

    async def row(self, approval_id: str) -> ApprovalRow:
        found = await self.api.services.approvals.get(None, approval_id)
        assert found is not None
        return found

    async def told(self, who: str, verb: str, message: Json, *, reason: str | None = None, most: int = 1) -> list[Json]:
        """What Slack is told after somebody pressed."""
        before = len(self.slack.got)
        response = await self.send(press(self, PEOPLE.get(who, who), button(message, verb), reason))
        assert (response.status_code, response.content) == (200, b"")
        async with asyncio.timeout(60):
            while len(self.slack.got) < before + most:  # noqa: ASYNC110  (another process's doing)
                await asyncio.sleep(0.02)
        return [json.loads(got.body) for got in self.slack.got[before:]]

    async def send(self, body: bytes, **headers: str) -> httpx.Response:
        return await self.api.anonymous().post("/slack/actions", content=body, headers=signed(body) | headers)


@pytest.fixture(scope="module")
async def chat(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Chat]:
    async with receiver() as slack:
        home = known_people(tmp_path_factory.mktemp("home"), slack)
        data = tmp_path_factory.mktemp("messages")
        async with staffed(data, home=home, slack_signing_secret=SECRET) as api:
            yield Chat(api, slack)


def known_people(home: Path, slack: Receiver) -> Path:
    """The home, where PEOPLE are known and Slack is the receiver."""
    shutil.copytree(HOME, home, dirs_exist_ok=True)
    people: list[Json] = [
        {"principal": name, "slack": member, "mail": f"{name}@example.org",
         "roles": ["viewer" if name == "vera" else "approver"]}
        for name, member in PEOPLE.items()
    ]  # fmt: skip
    channels = {
        "apiVersion": "gatehouse/v1", "networks": ["127.0.0.0/8"], "people": people,
        "slack": {"team": "T0HOUSE", "responses": f"http://127.0.0.1:{slack.port}"},
    }  # fmt: skip
    (home / "notify.yaml").write_text(json.dumps(channels))
    return home


def signed(body: bytes, at: float | None = None, secret: str = SECRET) -> dict[str, str]:
    stamp = str(int(time.time() if at is None else at))
    mac = hmac.new(secret.encode(), f"v0:{stamp}:".encode() + body, hashlib.sha256).hexdigest()
    return {"X-Slack-Request-Timestamp": stamp, "X-Slack-Signature": f"v0={mac}"}


def press(chat: Chat, member: str, token: str, reason: str | None = None, **changes: Any) -> bytes:
    payload: Json = {
        "type": "block_actions", "user": {"id": member}, "team": {"id": "T0HOUSE"}, "channel": {"id": "C0OPS"},
        "actions": [{"type": "button", "action_id": "x", "value": token}],
        "state": {"values": {"reason": {"reason": {"type": "plain_text_input", "value": reason}}}},
        "response_url": f"http://127.0.0.1:{chat.slack.port}/actions/T0HOUSE/1", **changes,
    }  # fmt: skip
    return urlencode({"payload": json.dumps(payload)}).encode()


def button(message: Json, verb: str) -> str:
    elements = [e for b in message["blocks"] if b["type"] == "actions" for e in b["elements"]]
    return next(e["value"] for e in elements if e.get("action_id") == verb)


async def test_approved_in_slack_it_runs_once_and_the_message_says_by_whom(chat: Chat) -> None:
    run_id, question = await asked(chat.api)
    message = await chat.message(question["id"])
    assert "in/a" not in json.dumps(message), "no argument is told"
    assert question["digest"] not in json.dumps(message)
    [update] = await chat.told("ruth", "approve", message)
    assert update["replace_original"] is True
    assert "was approved by ruth" in update["text"]
    assert not [b for b in update["blocks"] if b["type"] == "input"], "nothing is left to press"
    assert (await ended(chat.api, run_id))["outcomes"][-1] == "succeeded"
    (approved,) = await chat.api.records("approval.approved", run_id=run_id)
    assert approved["actor"] == "ruth"
    again = await chat.told("ruth", "approve", message)
    assert any("used already by ruth" in told["text"] for told in again)
    late = await chat.told("ruth", "deny", message, reason="no", most=2)
    assert any("Somebody was quicker" in told["text"] for told in late)
    used = [r for r in await chat.api.records("message.used") if r["approval_id"] == question["id"]]
    assert [(r["actor"], r["way"], r["verb"]) for r in used][:1] == [("ruth", "slack", "approve")]


async def test_two_people_in_slack_are_two_voices_and_one_is_one(chat: Chat) -> None:
    run_id, question = await asked(chat.api, "tidy-two")
    message = await chat.message(question["id"])
    [first] = await chat.told("ruth", "approve", message)
    assert "approved so far: ruth" in json.dumps(first)
    [again] = await chat.told("ruth", "approve", first)  # the buttons that the message has by now
    assert "have answered already" in again["text"]
    assert [r["kind"] for r in await chat.api.records("answer.refused", run_id=run_id)] == ["already_answered"]
    row = await chat.row(question["id"])
    assert (row.state.value, [a.principal.id for a in row.progress.answers]) == ("pending", ["ruth"])
    [last] = await chat.told("ray", "approve", first)
    assert "was approved by ray" in last["text"], "a refused press used no button up"
    assert (await ended(chat.api, run_id))["outcomes"] == ["succeeded"]
    [approved] = await chat.api.records("approval.approved", run_id=run_id)
    assert [a["principal"] for a in approved["answers"]] == ["ruth", "ray"]


async def test_a_denial_says_why(chat: Chat) -> None:
    run_id, question = await asked(chat.api)
    message = await chat.message(question["id"])
    [told] = await chat.told("ruth", "deny", message)
    assert "needs a reason" in told["text"]
    assert (await chat.row(question["id"])).state.value == "pending"
    [update] = await chat.told("ruth", "deny", message, reason="not this one")
    assert "was denied by ruth" in update["text"]
    (denied,) = await chat.api.records("approval.denied", run_id=run_id)
    assert denied["answer"]["reason"] == "not this one"


async def test_two_presses_at_once_are_one_answer(chat: Chat) -> None:
    run_id, question = await asked(chat.api)
    body = press(chat, PEOPLE["ruth"], button(await chat.message(question["id"]), "approve"))
    before = len(chat.slack.got)
    await asyncio.gather(*(chat.send(body) for _ in range(5)))
    async with asyncio.timeout(60):
        while len(chat.slack.got) < before + 5:  # noqa: ASYNC110  (another process's doing)
            await asyncio.sleep(0.02)
    texts = [json.loads(got.body)["text"] for got in chat.slack.got[before:]]
    assert len([text for text in texts if "used already" in text]) == 4, texts
    assert len(await chat.api.records("approval.approved", run_id=run_id)) == 1


UNTRUE: dict[str, Callable[[bytes], tuple[bytes, dict[str, str]]]] = {
    "forged": lambda body: (body, signed(body, secret="another")),
    "old": lambda body: (body, signed(body, time.time() - 301)),
    "ahead": lambda body: (body, signed(body, time.time() + 400)),
    "other body": lambda body: (body + b"&x=1", signed(body)),
    "other time": lambda body: (body, signed(body) | {"X-Slack-Request-Timestamp": str(int(time.time()) - 5)}),
    "no time": lambda body: (body, signed(body) | {"X-Slack-Request-Timestamp": "now"}),
    "not ascii": lambda body: (body, signed(body) | {"X-Slack-Signature": "v0=\xe9"}),
    "empty": lambda body: (body, {"X-Slack-Request-Timestamp": "", "X-Slack-Signature": ""}),
}


@pytest.mark.parametrize("how", UNTRUE)
async def test_what_slack_did_not_sign_lately_is_not_heard(chat: Chat, how: str) -> None:
    question = await chat.api.put_question(await chat.api.put_run())
    body = press(chat, PEOPLE["ruth"], button(await chat.message(question.id), "approve"))
    content, headers = UNTRUE[how](body)
    before = len(chat.slack.got)
    raw = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
    response = await chat.api.anonymous().post("/slack/actions", content=content, headers=raw)
    assert response.status_code == 401
    assert len(chat.slack.got) == before
    assert [r for r in await chat.api.records("message.used") if r["approval_id"] == question.id] == []


async def test_the_rules_of_answers_hold_in_slack(chat: Chat) -> None:
    """A stranger, somebody of another workspace, a viewer and the requester change nothing, and use up no button."""
    question = await chat.api.put_question(await chat.api.put_run(requester="operator"))
    message = await chat.message(question.id)
    for who, answer in (("U0EVE", "does not know you"), ("vera", "do not let you"), ("operator", "Not your own")):
        [told] = await chat.told(who, "approve", message)
        assert answer in told["text"]
        assert told["response_type"] == "ephemeral"
    before = len(chat.slack.got)
    await chat.send(press(chat, PEOPLE["ruth"], button(message, "approve"), team={"id": "T0OTHER"}))
    assert "does not know you" in json.loads((await grown(chat, before)).body)["text"]
    assert (await chat.row(question.id)).state.value == "pending"
    assert [r["kind"] for r in await chat.api.records("answer.refused", run_id=question.run_id)] == ["self_approval"]
    assert {r["reason"] for r in await chat.api.records("access.denied")} >= {"slack_unknown", "role"}
    assert await chat.api.services.spent.used_by(button_id(message, "approve")) is None


async def test_a_button_is_for_its_question_and_its_time(chat: Chat) -> None:
    question = await chat.api.put_question(await chat.api.put_run())
    other = await chat.api.put_question(await chat.api.put_run())
    made = chat.api.services.tokens
    ends = datetime.now(UTC) + timedelta(hours=1)
    token = button(await chat.message(question.id), "approve")
    tried = {
        "not one of ours": [
            token.replace(question.id, other.id), token.replace("approve", "deny"),
            made.make("approve", question.id, "0" * 64, "chat", ends), token[:-1] + ("0" if token[-1] != "0" else "1"),
        ],
        "too old": [made.make("approve", question.id, question.digest, "chat", datetime.now(UTC))],
        "no question of yours": [
            made.make("open", question.id, question.digest, "chat", ends), "approve", token.replace("run_", "run_0"),
        ],
    }  # fmt: skip
    for answer, tokens in tried.items():
        for value in tokens:
            before = len(chat.slack.got)
            await chat.send(press(chat, PEOPLE["ruth"], value, "because"))
            assert answer in json.loads((await grown(chat, before)).body)["text"], value
    assert await chat.api.records("answer.refused", run_id=question.run_id) == []


async def test_only_slack_is_told(chat: Chat) -> None:
    """Whatever address a request names, no other host is spoken to."""
    question = await chat.api.put_question(await chat.api.put_run())
    token = button(await chat.message(question.id), "approve")
    async with receiver() as inside:
        for address in (
            f"http://127.0.0.1:{inside.port}/", f"http://127.0.0.1:{chat.slack.port}@127.0.0.1:{inside.port}/", "",
            f"http://localhost:{chat.slack.port}/", f"file://127.0.0.1:{chat.slack.port}/etc",
        ):  # fmt: skip
            before = len(chat.slack.got)
            assert (await chat.send(press(chat, "U0EVE", token, response_url=address))).status_code == 200
            # The next press is worked on after it: what comes of it shows that nothing came of the one before.
            await chat.told("U0EVE", "approve", {"blocks": [{"type": "actions", "elements": [
                {"action_id": "approve", "value": token}]}]})  # fmt: skip
            assert len(chat.slack.got) == before + 1
        assert inside.got == []


async def test_what_is_no_press_changes_nothing(chat: Chat) -> None:
    assert (await chat.send(press(chat, "U0RUTH", ""))).status_code == 200
    assert (await chat.send(press(chat, "U0RUTH", "x", type="view_submission"))).status_code == 200
    for body in (b"payload=%7B", b"x=1", b"", b"payload=1&payload=2", b"\xff"):
        assert (await chat.send(body)).status_code == 400


async def grown(chat: Chat, before: int) -> Any:
    async with asyncio.timeout(60):
        while len(chat.slack.got) <= before:  # noqa: ASYNC110  (another process's doing)
            await asyncio.sleep(0.02)
    return chat.slack.got[-1]


def button_id(message: Json, verb: str) -> str:
    return hashlib.sha256(button(message, verb).encode()).hexdigest()


# Links of mails.


async def browser(chat: Chat, who: str, *roles: str) -> httpx.AsyncClient:
    """Signed in to the console."""
    await chat.api.client(who, *roles)
    client = httpx.AsyncClient(base_url=chat.api.url, timeout=30)
    form = {"key": chat.api.keys[who]}
    response = await client.post("/console/sign-in", data=form, headers={"Origin": chat.api.url})
    assert response.status_code == 303
    return client


async def test_a_link_opens_its_question_once_for_its_recipient(chat: Chat) -> None:
    question = await chat.api.put_question(await chat.api.put_run())
    ends = datetime.now(UTC) + timedelta(hours=1)
    make = chat.api.services.tokens.make
    link = f"/console/links/{make('open', question.id, question.digest, 'ruth@example.org', ends)}"
    async with httpx.AsyncClient(base_url=chat.api.url, timeout=30) as scanner:
        for _ in range(2):  # what looks through mail uses nothing up and is shown nothing
            seen = await scanner.get(link)
            assert (seen.status_code, seen.headers["location"][:16]) == (303, "/console/sign-in")
    ruth, rolf = await browser(chat, "ruth", "approver"), await browser(chat, "rolf", "approver")
    assert (await rolf.get(link)).status_code == 403
    opened = await ruth.get(link)
    assert (opened.status_code, opened.headers["location"]) == (303, f"/console/questions/{question.id}")
    assert (await ruth.get(link)).status_code == 410
    assert (await chat.row(question.id)).state.value == "pending", "a link answers nothing"
    old = make("open", question.id, question.digest, "ruth@example.org", datetime.now(UTC))
    assert (await ruth.get(f"/console/links/{old}")).status_code == 410
    forged = f"/console/links/{make('open', question.id, '0' * 64, 'ruth@example.org', ends)}"
    for wrong in (link.replace("open", "approve"), link[:-2] + "zz", forged, "/console/links/x"):
        assert (await ruth.get(wrong)).status_code == 404
    press_token = make("approve", question.id, question.digest, "ruth@example.org", ends)
    assert (await ruth.get(f"/console/links/{press_token}")).status_code == 404
    (used,) = [r for r in await chat.api.records("message.used") if r["approval_id"] == question.id]
    assert (used["actor"], used["way"], used["verb"]) == ("ruth", "mail", "open")
    for client in (ruth, rolf):
        await client.aclose()


async def test_who_asked_opens_their_link_and_still_may_not_answer(chat: Chat) -> None:
    question = await chat.api.put_question(await chat.api.put_run(requester="olga"))
    ends = datetime.now(UTC) + timedelta(hours=1)
    token = chat.api.services.tokens.make("open", question.id, question.digest, "olga@example.org", ends)
    olga = await browser(chat, "olga", "operator", "approver")
    landed = await olga.get(f"/console/links/{token}", follow_redirects=True)
    assert landed.status_code == 200
    form = {"digest": question.digest, "verdict": "approve"}
    answered = await olga.post(f"{landed.url.path}/answer", data=form, headers={"Origin": chat.api.url})
    assert answered.status_code == 403
    assert [r["kind"] for r in await chat.api.records("answer.refused", run_id=question.run_id)] == ["self_approval"]
    await olga.aclose()
