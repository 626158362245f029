"""Promises: what arrives is signed, carries the same id at each attempt and no argument; nothing inside is reached by a
name or a redirect; a receiver that is slow, gone or broken is told apart from one that took it."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from tests.fixtures.receivers import mail_server, receiver
from tests.fixtures.temporal import free_port
from worker.notify.channels import EmailChannel, NotifyFile
from worker.notify.mail import MailSender
from worker.notify.sending import NotDelivered
from worker.notify.slack import SlackSender
from worker.notify.tokens import Tokens
from worker.notify.webhook import WebhookSender
from worker.sandbox.addresses import public_targets
from worker.store.outbox import Notice

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
HERE = ("127.0.0.1/32",)


def asked(**changes: Any) -> Notice:
    body = {
        "approval_id": "run_1.1", "automation": "log-triage", "tool": "delete_files", "approvers": "approver",
        "reason": "<!channel> & co", "deadline": "2026-01-02T00:00:00Z",
        "question": "call", "digest": "d" * 64,
    }  # fmt: skip
    now = datetime(2026, 1, 1, tzinfo=UTC)
    values = {"id": "run_1.1/requested", "type": "approval.requested", "tenant": "default", "run_id": "run_1"}
    return Notice.model_validate({**values, "body": body, "created_at": now, **changes})


def known(**changes: Any) -> NotifyFile:
    return NotifyFile.model_validate({"apiVersion": "gatehouse/v1", **changes})


class Names:
    """A resolver that answers in turn, the last answer for ever, and counts."""

    def __init__(self, *answers: Sequence[str]) -> None:
        self.answers = [list(a) for a in answers]
        self.asked = 0

    async def __call__(self, _host: str) -> Sequence[str]:
        self.asked += 1
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


def here(names: Names | None = None) -> Any:
    return public_targets(names or Names(["127.0.0.1"]), HERE)


async def test_a_webhook_is_signed_and_keeps_its_id() -> None:
    async with receiver(answers=["500 Oops"]) as server:
        sender = WebhookSender(server.url, SECRET, here())
        with pytest.raises(NotDelivered) as first:
            await sender.send(asked())
        assert not first.value.final
        assert (await sender.send(asked())).startswith("200")
    assert [g.headers["webhook-id"] for g in server.got] == ["run_1.1/requested"] * 2
    got = server.got[1]
    assert got.headers["host"] == f"hooks.test:{server.port}"
    told: Any = Webhook(SECRET).verify(got.body, got.headers)
    assert told["type"] == "approval.requested"
    assert told["data"]["approval_id"] == "run_1.1"
    assert "d" * 64 not in got.body.decode()
    with pytest.raises(WebhookVerificationError):
        Webhook(SECRET).verify(got.body.replace(b"run_1.1", b"run_2.1"), got.headers)


async def test_the_connection_goes_where_the_check_looked() -> None:
    """A name that means something else at the second look is only looked up once."""
    names = Names(["127.0.0.1"], ["10.0.0.1"])
    async with receiver() as server:
        await WebhookSender(server.url, SECRET, here(names)).send(asked())
    assert names.asked == 1
    assert len(server.got) == 1


@pytest.mark.parametrize(
    "addresses",
    [["127.0.0.1"], ["169.254.169.254"], ["10.1.2.3"], ["::1"], ["::ffff:127.0.0.1"], ["93.184.216.34", "127.0.0.1"]],
)
async def test_what_is_not_public_is_not_reached(addresses: list[str]) -> None:
    async with receiver() as server:
        sender = WebhookSender(server.url, SECRET, public_targets(Names(addresses)))
        with pytest.raises(NotDelivered) as refused:
            await sender.send(asked())
    assert refused.value.final
    assert server.got == []


async def test_a_network_that_was_opened_opens_no_other() -> None:
    sender = WebhookSender("http://x.test/", SECRET, public_targets(Names(["127.0.0.1"]), ("10.0.0.0/8",)))
    with pytest.raises(NotDelivered):
        await sender.send(asked())


async def test_redirects_are_not_followed() -> None:
    async with receiver() as inside:
        async with receiver(answers=[f"302 Found\r\nLocation: http://127.0.0.1:{inside.port}/"]) as server:
            with pytest.raises(NotDelivered) as refused:
                await WebhookSender(server.url, SECRET, here()).send(asked())
        assert refused.value.final
        assert inside.got == []


async def test_faults_are_told_apart() -> None:
    async with receiver(answers=["410 Gone"]) as gone:
        with pytest.raises(NotDelivered) as over:
            await WebhookSender(gone.url, SECRET, here()).send(asked())
    assert over.value.final
    async with receiver(slow_s=5) as slow:
        with pytest.raises(NotDelivered) as late:
            await WebhookSender(slow.url, SECRET, here(), within_s=0.5).send(asked())
    assert not late.value.final
    with pytest.raises(NotDelivered) as nobody:
        await WebhookSender(gone.url, SECRET, here()).send(asked())
    assert not nobody.value.final


async def test_slack_gets_a_link_and_nobody_s_text_becomes_markup() -> None:
    async with receiver() as server:
        sender = SlackSender(server.url, known(console="https://gate.example.org/"), here())
        await sender.send(asked(body={**asked().body, "automation": "<!channel>"}))
    told = json.loads(server.got[0].body)
    assert "<" not in told["text"]
    section, detail, actions = told["blocks"]
    assert "<!channel>" not in section["text"]["text"]
    assert detail["text"]["type"] == "plain_text"
    assert actions["elements"][0]["url"] == "https://gate.example.org/console/questions/run_1.1"


def mail_channel(port: int, **changes: Any) -> EmailChannel:
    values = {
        "name": "ops", "kind": "email", "host": "127.0.0.1", "port": port, "tls": "none", "sender": "gate@example.org",
        "to": ("ruth@example.org", "lea@example.org"), **changes,
    }  # fmt: skip
    return EmailChannel.model_validate(values)


async def test_a_mail_arrives_once_known_by_its_id(tmp_path: Path) -> None:
    with mail_server(port := free_port()) as box:
        sender = MailSender(mail_channel(port), None, known(console="https://gate.example.org"), Tokens(tmp_path))
        for _ in range(2):
            assert "taken" in await sender.send(asked())
    first, other, second, _ = box.mails
    assert first["Message-ID"] == second["Message-ID"] != other["Message-ID"]
    assert (first["To"], other["To"]) == ("ruth@example.org", "lea@example.org")
    assert first.get_payload() == second.get_payload(), "one link, however often it is told"
    assert first.get_payload() != other.get_payload(), "each their own"
    assert "delete_files of log-triage needs an answer by approver" in first["Subject"]
    assert "https://gate.example.org/console/links/g1~open~run_1.1~" in str(first.get_payload(decode=True))


async def test_what_is_for_one_person_goes_to_them(tmp_path: Path) -> None:
    """To the address we know of them; to everybody where we know none."""
    found = known(people=({"principal": "olga", "mail": "olga@example.org", "slack": "U0OLGA"},))
    reply = asked(type="approval.asked_back", body={**asked().body, "to": "olga", "by": "ruth"})
    stranger = asked(type="approval.delegated", body={**asked().body, "to": "nobody", "by": "ruth"})
    with mail_server(port := free_port()) as box:
        for notice in (reply, stranger):
            await MailSender(mail_channel(port), None, found, Tokens(tmp_path)).send(notice)
    assert [mail["To"] for mail in box.mails] == ["olga@example.org", "ruth@example.org", "lea@example.org"]
    assert "ruth asks olga about delete_files of log-triage" in box.mails[0]["Subject"]
    async with receiver() as server:
        await SlackSender(server.url, found, here()).send(reply)
    assert "<@U0OLGA>" in server.got[0].body.decode()


async def test_a_line_break_makes_no_header(tmp_path: Path) -> None:
    with mail_server(port := free_port()) as box:
        body = {**asked().body, "automation": "x\r\nBcc: eve@example.org"}
        await MailSender(mail_channel(port), None, known(), Tokens(tmp_path)).send(asked(body=body))
    assert box.mails[0]["Bcc"] is None


async def test_mail_is_never_sent_without_the_tls_that_was_asked_for(tmp_path: Path) -> None:
    with mail_server(port := free_port()) as box, pytest.raises(NotDelivered):
        await MailSender(mail_channel(port, tls="starttls"), None, known(), Tokens(tmp_path)).send(asked())
    assert box.mails == []


async def test_recipients_that_do_not_exist_are_final_and_busy_ones_are_not(tmp_path: Path) -> None:
    with mail_server(port := free_port()) as box:
        for answer, final in (("550 nobody", True), ("451 later", False)):
            box.refuse = answer
            with pytest.raises(NotDelivered) as refused:
                await MailSender(mail_channel(port), None, known(), Tokens(tmp_path)).send(asked())
            assert refused.value.final is final
