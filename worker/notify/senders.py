"""From channels as people wrote them to the senders that reach them."""

from collections.abc import Callable

import structlog

from worker.notify.channels import Chosen, EmailChannel, NotifyFile, Secrets, WebhookChannel
from worker.notify.following import Following
from worker.notify.mail import MailSender
from worker.notify.sending import Sender
from worker.notify.slack import Buttons, SlackSender
from worker.notify.tokens import Tokens
from worker.notify.webhook import WebhookSender
from worker.sandbox.addresses import public_targets

log = structlog.stdlib.get_logger("gatehouse.notify")

Channels = dict[str, tuple[Chosen, Sender]]


def senders(found: NotifyFile, secrets: Secrets, tokens: Tokens) -> Channels:
    """Channel name -> what goes there, and the sender. Raises ValueError for a signing secret that is none."""
    resolve = public_targets(networks=found.networks)

    def secret(name: str | None) -> str:
        value = secrets.get(name) if name else None
        return value.get_secret_value() if value else ""

    made: Channels = {}
    for channel in found.channels:
        sender: Sender
        if isinstance(channel, WebhookChannel):
            sender = WebhookSender(channel.url, secret(channel.secret), resolve)
        elif isinstance(channel, EmailChannel):
            sender = MailSender(channel, secret(channel.secret) or None, found, tokens)
        else:
            buttons = Buttons(tokens, channel.name) if channel.buttons else None
            sender = SlackSender(secret(channel.secret), found, resolve, buttons)
        made[channel.name] = (channel, sender)
    return made


class Current:
    """The channels of the file in force, made anew when it changes."""

    def __init__(self, following: Following, make: Callable[[NotifyFile], Channels]) -> None:
        """Raises what `make` raises."""
        self._following = following
        self._make = make
        self._of = following.now
        self._made = make(self._of)

    def __call__(self) -> Channels:
        """What goes where. Where the new ones cannot be made, those of before."""
        found = self._following.now
        if found is not self._of:
            self._of = found
            try:
                self._made = self._make(found)
            except ValueError as error:
                log.error("channels stay as they were", reason=str(error))  # noqa: TRY400  (says which secret)
        return self._made
