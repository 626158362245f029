"""Notices to a Slack channel through an incoming webhook: a Block Kit message with a link, never a call's arguments."""

import json

from tools.contract import JsonObject
from worker.notify import words
from worker.notify.webhook import post
from worker.sandbox.addresses import Resolve
from worker.store.outbox import Notice


class SlackSender:
    """One Slack channel. `url` is a secret: whoever knows it may post there."""

    def __init__(self, url: str, console: str | None, resolve: Resolve) -> None:
        self._url = url
        self._console = console
        self._resolve = resolve

    async def send(self, notice: Notice) -> str:
        """See Sender."""
        return await post(self._url, json.dumps(blocks(notice, self._console)).encode(), {}, self._resolve)


def blocks(notice: Notice, console: str | None) -> JsonObject:
    """The message. `&`, `<` and `>` are escaped, so that nobody's text becomes a link or a mention."""
    subject, link = words.subject(notice), words.link(notice, console)
    detail = "\n".join(words.lines(notice, None))
    found: list[JsonObject] = [
        {"type": "section", "text": {"type": "mrkdwn", "text": f"*{_plain(subject)}*"}},
        {"type": "section", "text": {"type": "plain_text", "text": detail[:2900] or "-"}},
    ]
    if link is not None:
        button: JsonObject = {"type": "button", "text": {"type": "plain_text", "text": "Look at it"}, "url": link}
        found.append({"type": "actions", "elements": [button]})
    return {"text": _plain(subject), "blocks": [*found]}


def _plain(text: str) -> str:
    for character, escaped in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;")):
        text = text.replace(character, escaped)
    return text.replace("*", "∗")[:2900]
