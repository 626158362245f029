"""Reversible redaction: a private value becomes a placeholder that stands for it, such as `<email_k3f9q2ab>`.

Nothing is kept: the mapping comes from the texts of one request, the same each time for the same values, key and scope.
A tag is a keyed hash, so nobody who lacks the key can make the placeholder of a value, or find the value from it; what
stands in a text without being in the mapping stays as it is.
"""

import base64
import hmac
import json
import re
from collections.abc import Iterable
from typing import Literal

from pydantic import JsonValue

from policies.redaction.exact import forms
from policies.redaction.names import names_secret
from policies.redaction.redactor import PERSONAL, SECRETS, found
from policies.redaction.scan import Finding, Pattern, compiled, decoded, encoded, escaped, merged, replaced

Level = Literal["off", "secrets", "personal"]
"""What is kept back: nothing, secrets, or secrets and personal data."""

_PLACEHOLDER = re.compile(r"<[a-z]+(?:_[a-z]+)?_[a-z2-7]{8}>")
_ANYWHERE = 6
"""Bytes. A value at least this long is replaced wherever it stands, a shorter one only where it was recognised."""
_SPELLED = 200
"""Up to so many values are also looked for as base64, hex and URLs write them."""


class Placeholders:
    """The mapping for the texts of one request. `hide` after all texts were `read`; then `restore` what came back."""

    def __init__(self, level: Level, key: bytes, scope: str) -> None:
        self._detectors = {"off": (), "secrets": SECRETS, "personal": (*SECRETS, *PERSONAL)}[level]
        self._key = key
        self._scope = scope
        self._values: dict[bytes, str] = {}
        self._texts: dict[str, str] = {}
        self._pattern: Pattern | None = None

    def read(self, value: JsonValue) -> None:
        """Learn the private values in every string, and those of fields whose name means a secret."""
        if isinstance(value, str):
            data = encoded(value)
            for finding in found(data, self._detectors):
                self._learn(_plain(data, finding), finding.kind)
        elif isinstance(value, list):
            for item in value:
                self.read(item)
        elif isinstance(value, dict):
            for name, item in value.items():
                if isinstance(item, str) and len(item) >= _ANYWHERE and self._detectors and names_secret(name):
                    self._learn(encoded(item), "secret")
                self.read(name)
                self.read(item)

    def hide(self, value: JsonValue) -> JsonValue:
        """`value` with placeholders in its strings."""
        if isinstance(value, str):
            return self._hidden(value)
        if isinstance(value, list):
            return [self.hide(item) for item in value]
        if isinstance(value, dict):
            return {self._hidden(name): self.hide(item) for name, item in value.items()}
        return value

    def restore(self, value: JsonValue) -> JsonValue:
        """`value` with what the placeholders of this mapping stand for; any other text stays as it is."""
        if isinstance(value, str):
            return _PLACEHOLDER.sub(lambda match: self._texts.get(match[0], match[0]), value)
        if isinstance(value, list):
            return [self.restore(item) for item in value]
        if isinstance(value, dict):
            return {str(self.restore(name)): self.restore(item) for name, item in value.items()}
        return value

    @property
    def used(self) -> bool:
        """Whether any placeholder stands for anything."""
        return bool(self._texts)

    def _learn(self, plain: bytes, kind: str) -> None:
        if plain not in self._values and not plain.startswith((b"<", b"[redacted")):
            self._values[plain] = kind
            self._pattern = None

    def _hidden(self, text: str) -> str:
        if not self._values:
            return text
        data = encoded(text)
        findings = found(data, self._detectors)
        pattern = self._known()
        if pattern is not None:
            findings = merged((*findings, *(Finding(*match.span(), "") for match in pattern.finditer(data))))
        return decoded(replaced(data, findings, lambda finding: self._placeholder(data, finding))) if findings else text

    def _placeholder(self, data: bytes, finding: Finding) -> bytes:
        if _PLACEHOLDER.fullmatch(data[finding.start : finding.end].decode("utf-8", "replace")):
            return data[finding.start : finding.end]
        plain = _plain(data, finding)
        kind = self._values.get(plain) or finding.kind or "secret"
        tag = hmac.digest(self._key, b"\0".join((encoded(self._scope), kind.encode(), plain)), "sha256")
        made = f"<{kind}_{base64.b32encode(tag[:5]).decode().lower()}>"
        self._texts[made] = decoded(plain)
        return made.encode()

    def _known(self) -> Pattern | None:
        if self._pattern is None:
            known = [value for value in self._values if len(value) >= _ANYWHERE]
            spelled: Iterable[bytes] = known
            if len(known) <= _SPELLED:
                spelled = (form for value in known for form in forms(value))
            ordered = sorted({*known, *map(_as_json, known), *spelled}, key=lambda form: (-len(form), form))
            self._pattern = compiled("|".join(escaped(form) for form in ordered)) if ordered else None
        return self._pattern


def _as_json(value: bytes) -> bytes:
    return encoded(json.dumps(decoded(value), ensure_ascii=False)[1:-1])


def _plain(data: bytes, finding: Finding) -> bytes:
    """The value itself: in a text that quotes it as JSON does, without the escapes."""
    written = data[finding.start : finding.end]
    if b"\\" in written and data[finding.start - 1 : finding.start] == b'"':
        try:
            plain = json.loads(b'"' + written + b'"')
        except ValueError:
            return written
        return encoded(plain)
    return written
