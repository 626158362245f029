"""The spellings of a secret that is known: as it is, and as JSON, URLs, base64 and hex write it."""

import base64
import json
import re
from collections.abc import Iterable, Iterator
from urllib.parse import quote, quote_plus

from policies.redaction.scan import Finding, Pattern, compiled, encoded, escaped

SHORTEST = 6
"""Characters. A known secret that is shorter is not looked for: it would blank out ordinary words."""
_SHORTEST_ENCODED = 6
"""Bytes. Of shorter ones base64 keeps too few characters of its own."""


def forms(secret: bytes) -> set[bytes]:
    """Every spelling that is looked for."""
    found = {secret}
    if len(secret) >= _SHORTEST_ENCODED:
        found |= {secret.hex().encode(), secret.hex().upper().encode(), *_base64(secret)}
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
        found |= {once.encode("utf-8", "surrogatepass"), json.dumps(once, ensure_ascii=ascii_)[1:-1].encode()}
        found.add(once.encode("utf-8", "surrogatepass").replace(b"/", b"\\/"))
    found.add(repr(text)[1:-1].encode())
    return found


def _base64(secret: bytes) -> Iterator[bytes]:
    """The characters that stand for the secret alone, for each place in a group of three bytes it may start at."""
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        for before, start in ((0, 0), (1, 2), (2, 3)):
            whole = (before + len(secret)) * 8 // 6
            yield encode(bytes(before) + secret)[start:whole]


class Known:
    """Finds secrets it was told of."""

    def __init__(self, secrets: Iterable[str]) -> None:
        self._secrets: set[bytes] = set()
        self._pattern: Pattern | None = None
        self.learn(secrets)

    def learn(self, secrets: Iterable[str]) -> None:
        """From now on these are found too."""
        new = {encoded(secret) for secret in secrets if len(secret) >= SHORTEST} - self._secrets
        if new:
            self._secrets |= new
            every = {form for secret in self._secrets for form in forms(secret)}
            # The longest first: RE2 takes the first that fits.
            ordered = sorted(every, key=lambda form: (-len(form), form))
            self._pattern = compiled("|".join(escaped(form) for form in ordered))

    def __call__(self, data: bytes) -> Iterator[Finding]:
        """Where they stand in `data`."""
        if self._pattern is not None:
            for match in self._pattern.finditer(data):
                yield Finding(*match.span(), "secret")
