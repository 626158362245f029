"""Promises: whoever asked for a run answers nothing about it, and nobody has two voices, whichever way they come. Each
way to answer is here, by construction, and each refuses with the same kind, on record, and changes nothing.

What the run itself refuses, whatever the API let through, is in tests/workflows/test_answers.py and test_quorum.py.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from typer.main import get_command

from api.cli import app
from api.commands.session import CommandError
from policies.decision import Principal
from policies.terms import Group, Terms
from tests.api.running import Json, running
from tests.api.test_messages import SECRET, Chat, browser, known_people
from tests.api.ways import reached, signers
from tests.fixtures.receivers import receiver
from tests.fixtures.temporal import TemporalServer
from workflows.contracts import ApprovalAnswer, ApprovalProgress, ApprovalRequest, Question

MAY = ("operator", "approver", "break-glass")
SOON = timedelta(days=1)
WORDS = {
    "self_approval": ("self_approval", "Not your own", "Not to the requester", "you asked for this run"),
    "already_answered": ("already_answered", "have answered already"),
}
BEA = "bea"
"""Stands in for both of those who may not answer."""


@dataclass
class Asked:
    """A question, and somebody who comes to answer it and must not."""

    chat: Chat
    question: ApprovalRequest
    who: str
    mean: str
    """The one whose voice may not count (again): `who`, or whom they stand in for."""

    @property
    def digest(self) -> Json:
        return {"digest": self.question.digest}

    async def http(self, verb: str, **more: object) -> str:
        client = await self.chat.api.client(self.who, *MAY)
        response = await client.post(f"/approvals/{self.question.id}/{verb}", json={**self.digest, **more})
        assert response.status_code in (403, 409), response.text
        return response.text

    async def batch(self) -> str:
        client = await self.chat.api.client(self.who, *MAY)
        items = [{"id": self.question.id, **self.digest}]
        return (await client.post("/approvals/answers", json={"verdict": "approve", "items": items})).text

    async def page(self, at: str, **form: str) -> str:
        visitor = await browser(self.chat, self.who, *MAY)
        response = await visitor.post(f"/console/{at}", data=form, headers={"Origin": self.chat.api.url})
        await visitor.aclose()
        assert response.status_code in (403, 409), response.text
        return response.text

    async def form(self, at: str, /, **more: str) -> str:
        return await self.page(f"questions/{self.question.id}/{at}", digest=self.question.digest, **more)

    async def cli(self, *arguments: str) -> str:
        """In this process: a program of its own takes a second to start."""
        api = self.chat.api
        await api.client(self.who, *MAY)
        given = ["--url", api.url, "--key", api.keys[self.who], "approvals", *arguments]
        with pytest.raises(CommandError) as refused:
            await asyncio.to_thread(get_command(app).main, given, standalone_mode=False)
        return f"{refused.value.problem} {refused.value.remedy}"

    async def slack(self, verb: str) -> str:
        person = self.who.partition("@")[0]
        [told] = await self.chat.told(person, verb, await self.chat.message(self.question.id), reason="because")
        return str(told["text"])

    async def mail(self) -> str:
        """The link opens the question; the form there is that of the console."""
        person, ends = self.who.partition("@")[0], datetime.now(UTC) + SOON
        make = self.chat.api.services.tokens.make
        token = make("open", self.question.id, self.question.digest, f"{person}@example.org", ends)
        visitor = await browser(self.chat, self.who, *MAY)
        landed = await visitor.get(f"/console/links/{token}", follow_redirects=True)
        assert landed.status_code == 200, landed.text
        form = {**self.digest, "verdict": "approve"}
        answered = await visitor.post(
            f"{landed.url.path}/answer", data=form, headers={"Origin": self.chat.api.url}
        )  # fmt: skip
        await visitor.aclose()
        return answered.text


Go = Callable[[Asked], Awaitable[str]]
GLASS = {"break_glass": True, "reason": "fire"}
HTTP, PAGE, COMMAND = "api.routes.approvals", "api.console.routes", "api.commands"
WAYS: dict[str, tuple[str, Go]] = {
    "approve": (f"{HTTP}.approve", lambda a: a.http("approve")),
    "approve edited": (f"{HTTP}.approve", lambda a: a.http("approve", edited_arguments={"paths": ["in/b"]})),
    "approve with the result": (f"{HTTP}.approve", lambda a: a.http("approve", output={"outcome": "done"})),
    "break the glass": (f"{HTTP}.approve", lambda a: a.http("approve", **GLASS)),
    "for somebody absent": (f"{HTTP}.approve", lambda a: a.http("approve", on_behalf_of="paula")),
    "a stand-in": (f"{HTTP}.approve", lambda a: a.http("approve", on_behalf_of=a.mean)),
    "deny": (f"{HTTP}.deny", lambda a: a.http("deny", reason="no")),
    "a stand-in denies": (f"{HTTP}.deny", lambda a: a.http("deny", reason="no", on_behalf_of=a.mean)),
    "many": (f"{HTTP}.answer_many", lambda a: a.batch()),
    "delegate": (f"{HTTP}.delegate", lambda a: a.http("delegate", to=BEA)),
    "in Slack": ("api.routes.slack.slack_actions", lambda a: a.slack("approve")),
    "no in Slack": ("api.routes.slack.slack_actions", lambda a: a.slack("deny")),
    "by a link of a mail": (f"{PAGE}.questions.answer", lambda a: a.mail()),
    "in the console": (f"{PAGE}.questions.answer", lambda a: a.form("answer", verdict="approve")),
    "no in the console": (f"{PAGE}.questions.answer", lambda a: a.form("answer", verdict="deny", reason="no")),
    "glass in the console": (
        f"{PAGE}.questions.answer",
        lambda a: a.form("answer", verdict="approve", glass="1", reason="x"),
    ),
    "edited in the console": (
        f"{PAGE}.questions.edit",
        lambda a: a.form("edit", step="approve", arguments='{"paths": ["in/b"]}'),
    ),
    "many in the console": (
        f"{PAGE}.queue.answer_many",
        lambda a: a.page("queue/answer", verdict="approve", pick=f"{a.question.id}:{a.question.digest}"),
    ),
    "delegate in the console": (f"{PAGE}.asides.delegate", lambda a: a.form("delegate", to=BEA)),
    "by command": (f"{COMMAND}.approvals.approve", lambda a: a.cli("approve", a.question.id, "--yes")),
    "edited by command": (
        f"{COMMAND}.approvals.approve",
        lambda a: a.cli("approve", a.question.id, "--yes", "--set", 'paths=["in/b"]'),
    ),
    "glass by command": (
        f"{COMMAND}.approvals.approve",
        lambda a: a.cli("approve", a.question.id, "--yes", "--break-glass", "--reason", "fire"),
    ),
    "no by command": (f"{COMMAND}.approvals.deny", lambda a: a.cli("deny", a.question.id, "--yes", "--reason", "no")),
    "many by command": (
        f"{COMMAND}.answering.answer_many",
        lambda a: a.cli("answer-many", "approve", a.question.id, "--yes"),
    ),
    "delegate by command": (f"{COMMAND}.answering.delegate", lambda a: a.cli("delegate", a.question.id, BEA)),
}
BY_BEA = {"a stand-in", "a stand-in denies"}
HANDED_ON = {"delegate", "delegate in the console", "delegate by command"}
"""Whoever answered may still hand on; the two have one voice (tests/policies/test_voices.py)."""
TALK = {f"{HTTP}.{name}" for name in ("ask_back", "reply", "escalate")} | {
    f"{place}.{name}" for place in (f"{PAGE}.asides", f"{COMMAND}.answering") for name in ("ask", "reply", "escalate")
}
"""What is said there decides nothing."""


def test_every_way_is_here() -> None:
    """Whoever adds a route or a command that comes to an answer adds it to WAYS."""
    assert signers() == {"api.answers.give_answer", "api.actions.give_action"}, "nothing else signs"
    found = reached()
    assert found - TALK == {enters for enters, _ in WAYS.values()}
    assert found >= TALK


@pytest.fixture(scope="module")
async def chat(tmp_path_factory: pytest.TempPathFactory, temporal_server: TemporalServer) -> AsyncIterator[Chat]:
    """Without workers: what is refused needs none, and what were not would end otherwise."""
    async with receiver() as slack:
        home = known_people(tmp_path_factory.mktemp("home"), slack)
        data = tmp_path_factory.mktemp("voices")
        async with running(data, temporal_server.address, home=home, slack_signing_secret=SECRET) as api:
            admin = await api.client("admin")
            for absent, stand_in in (("paula", "ruth"), ("paula", "operator"), ("ruth", BEA), ("operator", BEA)):
                body: Json = {"stand_in": stand_in, "until": (datetime.now(UTC) + SOON).isoformat()}
                body["absent"] = {"id": absent, "roles": list(MAY)}
                assert (await admin.post("/delegations", json=body)).status_code == 201
            yield Chat(api, slack)


async def question(chat: Chat, way: str, requester: str) -> ApprovalRequest:
    """A question to those who would like to answer it, and not to Bea."""
    kind = Question.HANDOVER if way == "approve with the result" else Question.CALL
    terms = Terms(groups=(Group(name="some", people=("ruth", "operator", "paula")),), needed=2)
    return await chat.api.put_question(await chat.api.put_run(requester=requester), question=kind, terms=terms)


async def refused(asked: Asked, go: Go, kind: str) -> None:
    """With that kind, said and on record, and nothing has changed."""
    before = await asked.chat.row(asked.question.id)
    told = await go(asked)
    assert any(words in told for words in WORDS[kind]), told[-2000:]
    [record] = await asked.chat.api.records("answer.refused", run_id=asked.question.run_id)
    assert (record["kind"], record["actor"]) == (kind, asked.who.partition("@")[0])
    assert await asked.chat.row(asked.question.id) == before


@pytest.mark.parametrize("way", WAYS)
async def test_refused_on_every_way(chat: Chat, way: str) -> None:
    _, go = WAYS[way]
    for requester, who in (("operator", "operator"), ("OPERATOR", "operator@default")):  # the second by another key
        asked = await question(chat, way, requester)
        await refused(Asked(chat, asked, BEA if way in BY_BEA else who, "operator"), go, "self_approval")
    if way not in HANDED_ON:
        asked = await question(chat, way, "olga")
        await answered(chat, asked, "Ruth")
        await refused(Asked(chat, asked, BEA if way in BY_BEA else "ruth", "ruth"), go, "already_answered")


async def answered(chat: Chat, asked: ApprovalRequest, who: str) -> None:
    """Somebody has approved it already."""
    now = datetime.now(UTC)
    given = ApprovalAnswer(
        approval_id=asked.id, run_id=asked.run_id, verdict="approve", digest=asked.digest, answered_at=now,
        principal=Principal(id=who, roles=MAY), expires_at=now + SOON, key_id="k",
    )  # fmt: skip
    async with chat.api.services.database.begin() as conn:
        await chat.api.services.approvals.note(asked.id, ApprovalProgress(seq=1, answers=(given,)), conn=conn)


async def test_the_way_back_is_no_way_in(chat: Chat) -> None:
    """Nobody makes the requester answer: not by handing it to them."""
    ruth: httpx.AsyncClient = await chat.api.client("ruth", *MAY)
    asked = await question(chat, "delegate", "operator")
    response = await ruth.post(f"/approvals/{asked.id}/delegate", json={"digest": asked.digest, "to": "Operator"})
    assert (response.status_code, response.json()["kind"]) == (403, "self_approval")
