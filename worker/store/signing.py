"""The installation's answer key: the API signs what a human said, workflows believe nothing else.

`answer.pem` is the private Ed25519 key (PKCS#8, mode 0600); `answer-<key id>.pub` holds a public key in base64. Runs
accept the keys that were public when they started, so a retired key's public file stays.
"""

import base64
import hashlib
from pathlib import Path
from typing import TypeVar

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from policies.signatures import ACTION, ANSWER, Succession, signing_bytes
from worker.store.keyfiles import publish, read_or_create
from workflows.contracts import ApprovalAction, ApprovalAnswer

S = TypeVar("S", ApprovalAnswer, ApprovalAction, Succession)

_PRIVATE = "answer.pem"


class AnswerKey:
    """The private key that signs answers. Only the API holds one."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self.public_base64 = base64.b64encode(_raw_public(key)).decode()
        """The raw public key, 32 bytes, in base64."""
        self.key_id = hashlib.sha256(_raw_public(key)).hexdigest()[:16]

    def sign_answer(self, answer: ApprovalAnswer) -> ApprovalAnswer:
        """The answer with this key's id and signature; whatever it had there is replaced."""
        return self._signed(answer, ANSWER)

    def sign_action(self, action: ApprovalAction) -> ApprovalAction:
        """As `sign_answer`, in the domain of actions."""
        return self._signed(action, ACTION)

    def _signed(self, value: S, domain: bytes) -> S:
        named = value.model_copy(update={"key_id": self.key_id, "signature": ""})
        signature = base64.b64encode(self._key.sign(signing_bytes(named, domain))).decode()
        return named.model_copy(update={"signature": signature})


def load_or_create(keys: Path) -> AnswerKey:
    """The answer key under `keys`, made on first use; several processes starting together agree on one.

    Raises KeyFileUnsafe when others may read the private key, ValueError when it is not an Ed25519 key.
    """
    pem = read_or_create(keys / _PRIVATE, _new_pem)
    private = load_pem_private_key(pem, password=None)
    if not isinstance(private, Ed25519PrivateKey):
        raise ValueError(f"{keys / _PRIVATE} is not an Ed25519 key")  # noqa: TRY004  (the file is wrong, not the type)
    key = AnswerKey(private)
    public = keys / f"answer-{key.key_id}.pub"
    if not public.exists():
        publish(public, key.public_base64.encode() + b"\n")
    return key


def public_keys(keys: Path) -> dict[str, str]:
    """Key id -> base64 public key of every answer key of this installation, current and retired. Empty before the
    first `load_or_create`. Raises ValueError when a file's name does not belong to its content."""
    found: dict[str, str] = {}
    for path in sorted(keys.glob("answer-*.pub")):
        encoded = path.read_text().strip()
        key_id = path.stem.removeprefix("answer-")
        raw = base64.b64decode(encoded, validate=True)
        if hashlib.sha256(raw).hexdigest()[:16] != key_id:
            raise ValueError(f"{path} does not hold the key of its name: restore it, or remove it")
        found[key_id] = encoded
    return found


def _new_pem() -> bytes:
    return Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _raw_public(key: Ed25519PrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
