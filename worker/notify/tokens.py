"""Tokens in messages: what a button or a link stands for, signed, so that only what we wrote can be pressed.

A token names one question, one verb and one recipient, and holds for the digest of the arguments it was made for, which
it does not contain. It proves nothing about who presses: whoever holds it still has to be known and allowed.
"""

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal, cast

from worker.store.keyfiles import read_or_create

FILE = "messages.key"
KEY_BYTES = 32
LIFE = timedelta(hours=8)
"""A token is void after that, or with its question's deadline; reminders bring new ones."""
_FORM = re.compile(
    r"g1~(?P<verb>approve|deny|open)~(?P<approval>[A-Za-z0-9._-]{1,80})~(?P<who>[0-9a-f]{16})"
    r"~(?P<expires>[0-9]{1,12})~(?P<nonce>[0-9a-f]{16})~(?P<mac>[0-9a-f]{64})"
)

Verb = Literal["approve", "deny", "open"]
Flaw = Literal["forged", "old"]


@dataclass(frozen=True, slots=True)
class Token:
    """What a token says; nothing of it is believed before `Tokens.flaw` was asked."""

    verb: Verb
    approval_id: str
    who: str
    """`recipient` of the mail address or channel it was made for."""
    expires: int
    """Seconds since 1970."""
    nonce: str
    mac: str = ""

    @property
    def id(self) -> str:
        """By which its use is remembered. Opens nothing."""
        return hashlib.sha256(str(self).encode()).hexdigest()

    def __str__(self) -> str:
        return f"g1~{self.verb}~{self.approval_id}~{self.who}~{self.expires}~{self.nonce}~{self.mac}"


class Tokens:
    """Makes and checks them, with the installation's key for messages."""

    def __init__(self, keys: Path) -> None:
        """Makes the key where there is none. Raises KeyFileUnsafe, OSError."""
        self._key = read_or_create(keys / FILE, lambda: secrets.token_bytes(KEY_BYTES))

    def make(
        self, verb: Verb, approval_id: str, digest: str, who: str, expires: datetime, *, once_for: str | None = None
    ) -> str:
        """A token. `once_for`: what told twice is told with the same token, so that it is one use all the same."""
        nonce = hashlib.sha256(once_for.encode()).hexdigest()[:16] if once_for else secrets.token_hex(8)
        made = Token(verb, approval_id, recipient(who), int(expires.timestamp()), nonce)
        return f"{made}{self._mac(made, digest)}"

    def flaw(self, token: Token, digest: str, now: datetime) -> Flaw | None:
        """Why it does not count for the question of that digest; None: it does, unless it was used."""
        if not hmac.compare_digest(token.mac, self._mac(token, digest)):
            return "forged"
        return "old" if now.timestamp() >= token.expires else None

    def _mac(self, token: Token, digest: str) -> str:
        said = "~".join((token.verb, token.approval_id, token.who, str(token.expires), token.nonce, digest))
        return hmac.new(self._key, said.encode(), hashlib.sha256).hexdigest()


def read(text: str) -> Token | None:
    """What it says, or None for what is no token."""
    found = _FORM.fullmatch(text)
    if found is None:
        return None
    part = found.groupdict()
    verb = cast("Verb", part["verb"])
    return Token(verb, part["approval"], part["who"], int(part["expires"]), part["nonce"], part["mac"])


def recipient(name: str) -> str:
    """A mail address or channel as tokens name it."""
    return hashlib.sha256(name.strip().lower().encode()).hexdigest()[:16]


def expiry(made_at: datetime, deadline: datetime | None) -> datetime:
    """When a token of a message of that moment ends."""
    ends = made_at.astimezone(UTC) + LIFE
    return ends if deadline is None else min(ends, deadline.astimezone(UTC))
