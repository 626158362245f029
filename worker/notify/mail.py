"""Notices by e-mail, over SMTP with TLS."""

import asyncio
import hashlib
from email.message import EmailMessage
from email.utils import format_datetime

import aiosmtplib

from worker.notify import words
from worker.notify.channels import EmailChannel
from worker.notify.sending import SEND_S, NotDelivered
from worker.store.outbox import Notice


class MailSender:
    """One mail channel."""

    def __init__(self, channel: EmailChannel, password: str | None, console: str | None) -> None:
        self._channel = channel
        self._password = password
        self._console = console

    async def send(self, notice: Notice) -> str:
        """See Sender. The Message-ID is made of the notice's id, so that a repeat is known as one."""
        channel = self._channel
        try:
            async with asyncio.timeout(SEND_S):
                refused, said = await aiosmtplib.send(
                    self.message(notice),
                    sender=channel.sender,
                    recipients=list(channel.to),
                    hostname=channel.host,
                    port=channel.port,
                    username=channel.user,
                    password=self._password,
                    use_tls=channel.tls == "tls",
                    start_tls=channel.tls == "starttls",
                    timeout=SEND_S,
                )
        except TimeoutError as error:
            raise NotDelivered(f"no answer in {SEND_S:g} s") from error
        except aiosmtplib.SMTPRecipientsRefused as error:
            final = all(500 <= one.code < 600 for one in error.recipients)
            raise NotDelivered(f"every recipient was refused: {error.recipients[0].message}", final=final) from error
        except aiosmtplib.SMTPResponseException as error:
            raise NotDelivered(f"{error.code} {error.message}") from error
        except (aiosmtplib.SMTPException, OSError) as error:
            raise NotDelivered(f"{type(error).__name__}: {error}") from error
        return f"{said}; refused: {', '.join(refused)}" if refused else said

    def message(self, notice: Notice) -> EmailMessage:
        """The mail. What it quotes was written by policy authors and operators; header injection is refused by
        EmailMessage, long and strange text is folded."""
        mail = EmailMessage()
        domain = self._channel.sender.rpartition("@")[2]
        mail["Message-ID"] = f"<{hashlib.sha256(notice.id.encode()).hexdigest()[:40]}@{domain}>"
        mail["Date"] = format_datetime(notice.created_at)
        mail["From"] = self._channel.sender
        mail["To"] = ", ".join(self._channel.to)
        mail["Subject"] = " ".join(f"[gatehouse] {words.subject(notice)}".split())
        mail["Auto-Submitted"] = "auto-generated"
        mail.set_content("\n".join([words.subject(notice), "", *words.lines(notice, self._console)]) + "\n")
        return mail
