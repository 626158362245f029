"""The redactor: which detectors are asked, and what stands where they found something."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import cast

from pydantic import BaseModel, JsonValue, SecretBytes, SecretStr

from policies.redaction import personal
from policies.redaction.assignments import assigned, beside, carried
from policies.redaction.exact import Known
from policies.redaction.gates import PERSONAL_GATE, SECRETS_GATE
from policies.redaction.names import names_secret
from policies.redaction.scan import Detector, Finding, decoded, encoded, gated, merged, replaced, whole
from policies.redaction.tokens import private_keys, tokens

MARK = "[redacted]"
SECRETS = (private_keys, gated(SECRETS_GATE, (tokens, assigned, beside, carried)))
PERSONAL = (
    gated(
        PERSONAL_GATE,
        (personal.emails, personal.numbers, personal.phones, personal.identities, personal.addresses),
    ),
)


def found(data: bytes, detectors: Iterable[Detector]) -> list[Finding]:
    """What they find, in order and without overlap."""
    findings = [finding for detector in detectors for finding in detector(data)]
    return merged(whole(data, findings)) if findings else findings


def mark(finding: Finding) -> bytes:
    """What stands in its place: `[redacted]`, with the kind of personal data, as in `[redacted email]`."""
    return b"[redacted]" if finding.kind == "secret" else f"[redacted {finding.kind}]".encode()


class Redactor:
    """Takes out secrets, those of `known` in every spelling, and personal data when `private`."""

    def __init__(self, known: Iterable[str] = (), *, private: bool = False) -> None:
        self._known = Known(known)
        self._detectors: tuple[Detector, ...] = (self._known, *SECRETS, *(PERSONAL if private else ()))

    def secrets(self, text: str) -> str:
        """`text` without secrets, personal data or not: for those whose data it is."""
        data = encoded(text)
        findings = found(data, (self._known, *SECRETS)) if text else []
        return decoded(replaced(data, findings, mark)) if findings else text

    def without_secrets(self, value: JsonValue) -> JsonValue:
        """As `json`, personal data or not."""
        return self._walk(value, self.secrets)

    def learn(self, secrets: Iterable[str]) -> None:
        """From now on these are taken out too."""
        self._known.learn(secrets)

    def text(self, text: str) -> str:
        """`text` with marks; what names a secret (`password=`) stays."""
        if not text:
            return text
        data = encoded(text)
        findings = found(data, self._detectors)
        return decoded(replaced(data, findings, mark)) if findings else text

    def held(self, text: str) -> str:
        """`text` without the known secrets only."""
        data = encoded(text)
        findings = found(data, (self._known,)) if text else []
        return decoded(replaced(data, findings, mark)) if findings else text

    def json(self, value: JsonValue) -> JsonValue:
        """As `text` on every string and key; the whole value of a key that names a secret goes."""
        return self._walk(value, self.text)

    def _walk(self, value: JsonValue, clean: Callable[[str], str]) -> JsonValue:
        if isinstance(value, str):
            return clean(value)
        if isinstance(value, list):
            return [self._walk(item, clean) for item in value]
        if isinstance(value, dict):
            return {
                clean(key): _hidden(item) if names_secret(key) else self._walk(item, clean)
                for key, item in value.items()
            }
        return value

    def anything(self, value: object) -> object:
        """As `json` on anything: models, dataclasses and typed secrets too. For log fields and trace attributes."""
        if isinstance(value, SecretStr | SecretBytes):
            return MARK
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, bytes | bytearray):
            return self.text(bytes(value).decode("utf-8", "replace"))
        if isinstance(value, BaseModel):
            return self.anything({name: getattr(value, name) for name in type(value).model_fields})
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            return self.anything({field.name: getattr(value, field.name) for field in dataclasses.fields(value)})
        if isinstance(value, Mapping):
            entries = cast("Mapping[object, object]", value)
            return {self.text(str(key)): self.field(str(key), item) for key, item in entries.items()}
        if isinstance(value, Sequence | set | frozenset):
            return [self.anything(item) for item in cast("Iterable[object]", value)]
        return value

    def field(self, name: str, value: object) -> object:
        """The value of a named field, as `anything`; gone when the name means a secret."""
        hidden = names_secret(name) and value is not None and not isinstance(value, bool)
        return MARK if hidden else self.anything(value)


def _hidden(value: JsonValue) -> JsonValue:
    """None and flags tell nothing and stay readable."""
    return value if value is None or isinstance(value, bool) else MARK


_SECRETS_ONLY = Redactor()
_EVERYTHING = Redactor(private=True)


def redact(text: str) -> str:
    """`text` with every secret of a known shape or name replaced by `[redacted]`."""
    return _SECRETS_ONLY.text(text)


def redact_all(value: JsonValue) -> JsonValue:
    """As `redact_json`, personal data too."""
    return _EVERYTHING.json(value)


def redact_json(value: JsonValue) -> JsonValue:
    """As `redact` on every string; the whole value of a key that names a secret (`api_key`, never `max_tokens`)."""
    return _SECRETS_ONLY.json(value)
