"""Finds known secrets in bytes, also as JSON, URLs, base64 and hex write them, and takes them out.

Exact, unlike `policies.redaction`, which knows shapes: these are the very values that a call was given.
"""

import re
from collections.abc import Iterable
from typing import Final

from policies.redaction.exact import forms

MARK: Final = b"[redacted]"
SHORTEST: Final = 8
"""Bytes. A shorter secret cannot be told from ordinary text, so none is handed out."""


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
