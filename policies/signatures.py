"""Ed25519 signatures over JSON values, and how one key hands over to the next. Pure.

Every kind of signed thing has a domain of its own, a prefix of the signed bytes: a signature made for one kind can
never pass as one of another.
"""

import base64
import hashlib
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from tools.contract import Wire, canonical_json

ANSWER = b"gatehouse/approval-answer/v1\n"
ACTION = b"gatehouse/approval-action/v1\n"
SUCCESSION = b"gatehouse/answer-key/v1\n"
GRANT = b"gatehouse/grant/v1\n"
DELEGATION = b"gatehouse/delegation/v1\n"

MAX_LINKS = 32
"""Longest chain of keys that is followed."""


class Signed(Protocol):
    """A signed value, and its JSON form."""

    @property
    def key_id(self) -> str: ...  # noqa: D102
    @property
    def signature(self) -> str: ...  # noqa: D102
    # pydantic's own signature, whose values are Any.
    def model_dump(self, *, mode: str = "python") -> dict[str, Any]: ...  # noqa: D102


class Succession(Wire):
    """The statement of one key that another one speaks for the installation, too."""

    public_key: str
    """base64, raw, 32 bytes: of the new key, whose id follows from it."""
    key_id: str
    """The old key, which signs."""
    signature: str = ""


def id_of(public_key: str) -> str:
    """The id of a public key (base64). Raises ValueError when it is none."""
    return hashlib.sha256(base64.b64decode(public_key, validate=True)).hexdigest()[:16]


def signing_bytes(signed: Signed, domain: bytes) -> bytes:
    """The bytes a signature covers: the domain, then canonical JSON of every field but `signature`.

    A top-level field that is None counts as absent, so that an optional field added later does not void the signatures
    of values that do not use it. Raises ValueError when a value has no canonical JSON (NaN, lone surrogate).
    """
    fields = signed.model_dump(mode="json")
    return domain + canonical_json({k: v for k, v in fields.items() if k != "signature" and v is not None})


def verify(signed: Signed, domain: bytes, keys: Mapping[str, str]) -> bool:
    """Whether `signed.signature` is the Ed25519 signature of the value by `keys[signed.key_id]`.

    `keys`: key id -> base64 raw public key (32 bytes). Never raises: an unknown key, a malformed key or signature and
    a value that cannot be serialised are all simply not signed.
    """
    encoded = keys.get(signed.key_id)
    if encoded is None:
        return False
    try:
        key = Ed25519PublicKey.from_public_bytes(base64.b64decode(encoded, validate=True))
        key.verify(base64.b64decode(signed.signature, validate=True), signing_bytes(signed, domain))
    except (InvalidSignature, ValueError, TypeError, RecursionError):
        return False
    return True


def trusted(keys: Mapping[str, str], chain: Iterable[Succession]) -> dict[str, str]:
    """`keys`, and every key that one of them, or one they led to, has named its successor. Never raises."""
    found, left = dict(keys), [*chain][:MAX_LINKS]
    while left:
        links = [link for link in left if verify(link, SUCCESSION, found)]
        if not links:
            break
        for link in links:
            try:
                found.setdefault(id_of(link.public_key), link.public_key)
            except ValueError:
                continue
        left = [link for link in left if link not in links]
    return found
