"""Notices by e-mail, over SMTP with TLS."""

import asyncio
import hashlib
from datetime import datetime
from email.message import EmailMessage
from email.utils import format_datetime

import aiosmtplib

from worker.notify import words
from worker.notify.channels import EmailChannel, NotifyFile
from worker.notify.sending import SEND_S, NotDelivered
from worker.notify.tokens import Tokens, expiry
from worker.store.outbox import Notice


class MailSender:
    """One mail channel. Each recipient gets a mail of their own, with a link of their own."""

    def __init__(self, channel: EmailChannel, password: str | None, found: NotifyFile, tokens: Tokens) -> None:
        self._channel = channel
        self._password = password
        self._found = found
        self._tokens = tokens

    async def send(self, notice: Notice) -> str:
        """See Sender. The Message-ID is made of the notice's id and the recipient, so that a repeat is known as one."""
        channel = self._channel
        client = aiosmtplib.SMTP(
            hostname=channel.host, port=channel.port, username=channel.user, password=self._password,
            use_tls=channel.tls == "tls", start_tls=channel.tls == "starttls", timeout=SEND_S,
        )  # fmt: skip
        try:
            async with asyncio.timeout(SEND_S), client:
                said, refused = await self._to_all(client, notice)
        except TimeoutError as error:
            raise NotDelivered(f"no answer in {SEND_S:g} s") from error
        except aiosmtplib.SMTPResponseException as error:
            raise NotDelivered(f"{error.code} {error.message}") from error
        except (aiosmtplib.SMTPException, OSError) as error:
            raise NotDelivered(f"{type(error).__name__}: {error}") from error
        return f"{said}; refused: {', '.join(refused)}" if refused else said

    async def _to_all(self, client: aiosmtplib.SMTP, notice: Notice) -> tuple[str, list[str]]:
        """What the server said to the last one, and whom it refused. Raises NotDelivered when it refused all."""
        said, refused = "", list[aiosmtplib.SMTPRecipientRefused]()
        recipients = self.recipients(notice)
        for to in recipients:
            try:
                _, said = await client.send_message(
                    self.message(notice, to), sender=self._channel.sender, recipients=[to]
                )
            except aiosmtplib.SMTPRecipientsRefused as error:
                refused += error.recipients
        if len(refused) == len(recipients):
            final = all(500 <= one.code < 600 for one in refused)
            raise NotDelivered(f"every recipient was refused: {refused[0].message}", final=final)
        return said, [one.recipient for one in refused]

    def recipients(self, notice: Notice) -> tuple[str, ...]:
        """The one person it is for, where we know their address; else everybody of the channel."""
        to = notice.body.get("to")
        person = self._found.by_id(to, notice.tenant) if isinstance(to, str) else None
        return (person.mail,) if person is not None and person.mail else self._channel.to

    def message(self, notice: Notice, to: str) -> EmailMessage:
        """The mail. What it quotes was written by policy authors and operators; header injection is refused by
        EmailMessage, long and strange text is folded."""
        mail = EmailMessage()
        domain = self._channel.sender.rpartition("@")[2]
        mail["Message-ID"] = f"<{hashlib.sha256(f'{notice.id} {to}'.encode()).hexdigest()[:40]}@{domain}>"
        mail["Date"] = format_datetime(notice.created_at)
        mail["From"] = self._channel.sender
        mail["To"] = to
        mail["Subject"] = " ".join(f"[gatehouse] {words.subject(notice)}".split())
        mail["Auto-Submitted"] = "auto-generated"
        address = words.link(notice, self._found.console, self._token(notice, to))
        mail.set_content("\n".join([words.subject(notice), "", *words.lines(notice, address)]) + "\n")
        return mail

    def _token(self, notice: Notice, to: str) -> str | None:
        """The recipient's own link to an open question; what is over is linked to plainly."""
        body = notice.body
        approval, digest, deadline = body.get("approval_id"), body.get("digest"), body.get("deadline")
        if notice.type == "approval.closed" or not isinstance(approval, str) or not isinstance(digest, str):
            return None
        ends = expiry(notice.created_at, datetime.fromisoformat(deadline) if isinstance(deadline, str) else None)
        return self._tokens.make("open", approval, digest, to, ends, once_for=f"{notice.id}@{to}")
