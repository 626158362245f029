"""Notices to a Slack channel through an incoming webhook: a Block Kit message with a link, and buttons where they were
asked for; never a call's arguments.
"""

import json
from datetime import datetime
from typing import NamedTuple

from tools.contract import JsonObject
from worker.notify import words
from worker.notify.channels import NotifyFile
from worker.notify.tokens import Tokens, Verb, expiry
from worker.notify.webhook import post
from worker.sandbox.addresses import Resolve
from worker.store.outbox import Notice

ASKS = ("approval.requested", "approval.reminder", "approval.escalated", "approval.delegated", "approval.replied")
"""Notices that want an answer."""
ANSWERABLE = ("call", "unknown_outcome")
"""Questions that yes or no answers; a hand-over takes the job's result, which is given in the console."""
REASON = "reason"
"""Block and action id of the field for the reason."""


class Buttons(NamedTuple):
    """What buttons are made with."""

    tokens: Tokens
    who: str
    """The channel they are made for."""
    once: bool = True
    """The same message told twice has the same tokens; an updated message has new ones."""


class SlackSender:
    """One Slack channel. `url` is a secret: whoever knows it may post there."""

    def __init__(self, url: str, found: NotifyFile, resolve: Resolve, buttons: Buttons | None = None) -> None:
        self._url = url
        self._found = found
        self._resolve = resolve
        self._buttons = buttons

    async def send(self, notice: Notice) -> str:
        """See Sender."""
        to = notice.body.get("to")
        person = self._found.by_id(to, notice.tenant) if isinstance(to, str) else None
        mention = f"<@{person.slack}>" if person is not None and person.slack else None
        message = blocks(notice, self._found.console, self._buttons, mention=mention)
        return await post(self._url, json.dumps(message).encode(), {}, self._resolve)


def blocks(
    notice: Notice, console: str | None, buttons: Buttons | None = None, *, mention: str | None = None, note: str = ""
) -> JsonObject:
    """The message. `&`, `<` and `>` are escaped, so nobody's text becomes a link or mention. `note`: a line more."""
    subject, link = words.subject(notice), words.link(notice, console)
    detail = "\n".join([*words.lines(notice, None), *([note] if note else [])])
    head = f"*{plain(subject)}*" + (f" {mention}" if mention else "")
    found: list[JsonObject] = [
        {"type": "section", "text": {"type": "mrkdwn", "text": head}},
        {"type": "section", "text": {"type": "plain_text", "text": detail[:2900] or "-"}},
    ]
    pressed = [] if buttons is None else _pressed(notice, buttons)
    if pressed:
        found.append(_field())
    if link is not None:
        pressed.append({"type": "button", "text": {"type": "plain_text", "text": "Look at it"}, "url": link})
    if pressed:
        found.append({"type": "actions", "elements": [*pressed]})
    return {"text": plain(subject), "blocks": [*found]}


def _pressed(notice: Notice, buttons: Buttons) -> list[JsonObject]:
    """Approve and Deny, where the notice wants an answer that they can give."""
    body = notice.body
    approval, digest, deadline = body.get("approval_id"), body.get("digest"), body.get("deadline")
    answerable = notice.type in ASKS and body.get("question") in ANSWERABLE
    if not answerable or not isinstance(approval, str) or not isinstance(digest, str):
        return []
    ends = expiry(notice.created_at, datetime.fromisoformat(deadline) if isinstance(deadline, str) else None)

    def value(verb: Verb) -> str:
        once = f"{notice.id}@{buttons.who}@{verb}" if buttons.once else None
        return buttons.tokens.make(verb, approval, digest, buttons.who, ends, once_for=once)

    sure: JsonObject = {
        "title": {"type": "plain_text", "text": "Approve it?"},
        "text": {"type": "plain_text", "text": "The arguments are not shown here. Look at the question if in doubt."},
        "confirm": {"type": "plain_text", "text": "Approve"}, "deny": {"type": "plain_text", "text": "Not yet"},
    }  # fmt: skip
    return [
        {"type": "button", "action_id": "approve", "style": "primary", "confirm": sure, "value": value("approve"),
         "text": {"type": "plain_text", "text": "Approve"}},
        {"type": "button", "action_id": "deny", "style": "danger", "value": value("deny"),
         "text": {"type": "plain_text", "text": "Deny"}},
    ]  # fmt: skip


def _field() -> JsonObject:
    return {
        "type": "input", "block_id": REASON, "optional": True,
        "label": {"type": "plain_text", "text": "Reason (a denial needs one; the agent reads it)"},
        "element": {"type": "plain_text_input", "action_id": REASON, "max_length": 2000},
    }  # fmt: skip


def plain(text: str) -> str:
    """Text that means nothing to Slack but itself."""
    for character, escaped in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;")):
        text = text.replace(character, escaped)
    return text.replace("*", "∗")[:2900]
