"""Finds known secrets in bytes, also as JSON, URLs, base64 and hex write them, and takes them out.

Exact, unlike `policies.redaction`, which knows shapes: these are the very values that a call was given.
"""

import base64
import json
import re
from collections.abc import Iterable, Iterator
from typing import Final
from urllib.parse import quote, quote_plus

MARK: Final = b"[redacted]"
SHORTEST: Final = 8
"""Bytes. A shorter secret cannot be told from ordinary text, so none is handed out."""


def forms(secret: bytes) -> set[bytes]:
    """Every spelling of the secret that is looked for."""
    found = {secret, secret.hex().encode(), secret.hex().upper().encode(), *_base64(secret)}
    for safe in ("", "/", "~/"):
        for written in (quote(secret, safe=safe), quote_plus(secret, safe=safe)):
            found |= {written.encode(), re.sub(r"%[0-9A-F]{2}", lambda m: m[0].lower(), written).encode()}
    try:
        text = secret.decode()
    except UnicodeDecodeError:
        return found
    for ascii_ in (True, False):
        once = json.dumps(text, ensure_ascii=ascii_)[1:-1]
        # JSON inside a JSON string: what a program prints of another program's output.
        found |= {once.encode(), json.dumps(once, ensure_ascii=ascii_)[1:-1].encode()}
        found |= {spelling.replace(b"/", b"\\/") for spelling in (once.encode(),)}
    found.add(repr(text)[1:-1].encode())
    return found


def _base64(secret: bytes) -> Iterator[bytes]:
    """The characters that stand for the secret alone, for each place in a group of three bytes it may start at."""
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        for before, start in ((0, 0), (1, 2), (2, 3)):
            whole = (before + len(secret)) * 8 // 6
            yield encode(bytes(before) + secret)[start:whole]


def pattern(secrets: Iterable[bytes]) -> re.Pattern[bytes] | None:
    """Matches any of them in any form, the longest first; None without secrets."""
    every = {form for secret in secrets for form in forms(secret)}
    ordered = sorted(every, key=lambda form: (-len(form), form))
    return re.compile(b"|".join(re.escape(form) for form in ordered)) if ordered else None


class Scrubber:
    """Takes out every secret it was ever told. One per process: what one call was given, a later one may print."""

    def __init__(self) -> None:
        self._secrets: set[bytes] = set()
        self._pattern: re.Pattern[bytes] | None = None

    def learn(self, secrets: Iterable[bytes]) -> None:
        """From now on these are taken out too."""
        new = set(secrets) - self._secrets
        if new:
            self._secrets |= new
            self._pattern = pattern(self._secrets)

    def bytes(self, data: bytes) -> bytes:
        """`data` with every form of every secret replaced by `[redacted]`."""
        return self._pattern.sub(MARK, data) if self._pattern else data

    def text(self, text: str) -> str:
        """As `bytes`, on text."""
        return self.bytes(text.encode(errors="surrogateescape")).decode(errors="surrogateescape")


class Watch:
    """Looks for secrets in a stream that is passed on, also across its chunks: what may be the start of one waits."""

    def __init__(self, secrets: Iterable[bytes]) -> None:
        every = {form for secret in secrets for form in forms(secret)}
        self._pattern = re.compile(b"|".join(re.escape(form) for form in every)) if every else None
        self._overlap = max((len(form) for form in every), default=1) - 1
        self._held = b""

    def passed(self, chunk: bytes) -> bytes | None:
        """What may be passed on now that this chunk came; None when a secret has appeared."""
        data = self._held + chunk
        if self._pattern is not None and self._pattern.search(data):
            return None
        ready = len(data) - self._overlap if self._overlap else len(data)
        self._held = data[max(ready, 0) :]
        return data[: max(ready, 0)]

    @property
    def held(self) -> bytes:
        """The end of the stream that still waits."""
        return self._held
