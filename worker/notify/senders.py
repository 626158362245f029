"""From channels as people wrote them to the senders that reach them."""

from worker.notify.channels import Chosen, EmailChannel, NotifyFile, Secrets, WebhookChannel
from worker.notify.mail import MailSender
from worker.notify.sending import Sender
from worker.notify.slack import SlackSender
from worker.notify.webhook import WebhookSender
from worker.sandbox.addresses import public_targets


def senders(found: NotifyFile, secrets: Secrets) -> dict[str, tuple[Chosen, Sender]]:
    """Channel name -> what goes there, and the sender. Raises ValueError for a signing secret that is none."""
    resolve = public_targets(networks=found.networks)

    def secret(name: str | None) -> str:
        value = secrets.get(name) if name else None
        return value.get_secret_value() if value else ""

    made: dict[str, tuple[Chosen, Sender]] = {}
    for channel in found.channels:
        sender: Sender
        if isinstance(channel, WebhookChannel):
            sender = WebhookSender(channel.url, secret(channel.secret), resolve)
        elif isinstance(channel, EmailChannel):
            sender = MailSender(channel, secret(channel.secret) or None, found.console)
        else:
            sender = SlackSender(secret(channel.secret), found.console, resolve)
        made[channel.name] = (channel, sender)
    return made
