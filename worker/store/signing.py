"""The installation's answer key: the API signs what a human said, workflows believe nothing else.

`answer.pem` is the private Ed25519 key (PKCS#8, mode 0600); `answer-<key id>.pub` holds a public key in base64. Runs
accept the keys that were public when they started, so a retired key's public file stays, and whatever keys these have
named as their successors: `answer-<new key id>.after` is such a statement. `answer-<key id>.revoked` says that nothing
signed by that key counts any more, also in runs in flight: the worker that records a decision looks.
"""

import base64
from collections.abc import Callable, Iterator, Mapping
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

from policies.signatures import ACTION, ANSWER, MAX_LINKS, SUCCESSION, Succession, id_of, signing_bytes
from policies.standing import Delegation, Grant
from worker.store.keyfiles import publish, read_or_create, replace
from workflows.contracts import ApprovalAction, ApprovalAnswer

S = TypeVar("S", ApprovalAnswer, ApprovalAction, Succession, Grant, Delegation)

PRIVATE = "answer.pem"


class AnswerKey:
    """One private key that signs what people say. Only the API holds one."""

    def __init__(self, key: Ed25519PrivateKey, succession: tuple[Succession, ...] = ()) -> None:
        self._key = key
        self.public_base64 = base64.b64encode(_raw_public(key)).decode()
        """The raw public key, 32 bytes, in base64."""
        self.key_id = id_of(self.public_base64)
        self.succession = succession or None
        """How it came after the keys that runs in flight may know; goes with all it signs."""

    def sign_answer(self, answer: ApprovalAnswer) -> ApprovalAnswer:
        """The answer with this key's id, succession and signature; whatever it had there is replaced."""
        return self.sign(answer.model_copy(update={"succession": self.succession}), ANSWER)

    def sign_action(self, action: ApprovalAction) -> ApprovalAction:
        """As `sign_answer`, in the domain of actions."""
        return self.sign(action.model_copy(update={"succession": self.succession}), ACTION)

    def sign(self, value: S, domain: bytes) -> S:
        """The value with this key's id and signature."""
        named = value.model_copy(update={"key_id": self.key_id, "signature": ""})
        signature = base64.b64encode(self._key.sign(signing_bytes(named, domain))).decode()
        return named.model_copy(update={"signature": signature})


class CurrentKey:
    """The key that signs now: the one on disk, also after somebody rotated it."""

    def __init__(self, keys: Path) -> None:
        """Makes the first key where there is none. Raises as `load_or_create`."""
        self._keys = keys
        self._seen: tuple[int, ...] = ()
        self._loaded = self.key

    @property
    def key(self) -> AnswerKey:
        """The key in force. Raises as `load_or_create`."""
        path = self._keys / PRIVATE
        found = path.stat() if path.exists() else None
        seen = (found.st_mtime_ns, found.st_ino) if found else ()
        if not seen or seen != self._seen:
            self._loaded = load_or_create(self._keys)
            found = path.stat()
            self._seen = (found.st_mtime_ns, found.st_ino)
        return self._loaded


class PublicKeys(Mapping[str, str]):
    """The public answer keys as they lie on disk now: one may be made, rotated or revoked at any time."""

    def __init__(self, keys: Path) -> None:
        self._keys = keys

    def __getitem__(self, key_id: str) -> str:
        return public_keys(self._keys)[key_id]

    def __iter__(self) -> Iterator[str]:
        return iter(public_keys(self._keys))

    def __len__(self) -> int:
        return len(public_keys(self._keys))


def load_or_create(keys: Path) -> AnswerKey:
    """The answer key under `keys`, made on first use; several processes starting together agree on one.

    Raises KeyFileUnsafe when others may read the private key, ValueError when it is not an Ed25519 key.
    """
    pem = read_or_create(keys / PRIVATE, _new_pem)
    private = load_pem_private_key(pem, password=None)
    if not isinstance(private, Ed25519PrivateKey):
        raise ValueError(f"{keys / PRIVATE} is not an Ed25519 key")  # noqa: TRY004  (the file is wrong, not the type)
    key = AnswerKey(private, successions(keys))
    public = keys / f"answer-{key.key_id}.pub"
    if not public.exists():
        publish(public, key.public_base64.encode() + b"\n")
    return key


def rotate(keys: Path, record: Callable[[str, str], object]) -> AnswerKey:
    """Let a new key sign from here on, named by the present one: runs in flight follow. Raises as `load_or_create`.

    `record` gets the ids of the old key and the new one before anything changes; what it raises stops the change.
    """
    old, pem = load_or_create(keys), _new_pem()
    new = load_pem_private_key(pem, password=None)
    assert isinstance(new, Ed25519PrivateKey)  # noqa: S101  (it was just made)
    made = AnswerKey(new)
    link = old.sign(Succession(public_key=made.public_base64, key_id=old.key_id), SUCCESSION)
    record(old.key_id, made.key_id)
    publish(keys / f"answer-{made.key_id}.after", link.model_dump_json().encode())
    publish(keys / f"answer-{made.key_id}.pub", made.public_base64.encode() + b"\n")
    replace(keys / PRIVATE, pem)  # last: before this, nothing has changed
    return load_or_create(keys)


def revoke(keys: Path, key_id: str, record: Callable[[], object]) -> None:
    """Believe nothing any more that this key signed. Raises ValueError for the key that signs now, and for none.

    `record` is called before anything changes; what it raises stops the change.
    """
    if key_id == load_or_create(keys).key_id:
        raise ValueError("this key signs answers now: rotate first")
    if not (keys / f"answer-{key_id}.pub").exists():
        raise ValueError(f"there is no answer key {key_id}")
    record()
    publish(keys / f"answer-{key_id}.revoked", b"")


def successions(keys: Path) -> tuple[Succession, ...]:
    """Every statement by which a key named its successor, the newest first, as many as a chain may have links."""
    found = sorted(keys.glob("answer-*.after"), key=lambda path: path.stat().st_mtime_ns, reverse=True)
    return tuple(Succession.model_validate_json(path.read_bytes()) for path in found[:MAX_LINKS])


def public_keys(keys: Path) -> dict[str, str]:
    """Key id -> base64 public key of every answer key of this installation, current and retired, but not revoked.

    Empty before the first `load_or_create`. Raises ValueError when a file's name does not belong to its content.
    """
    found: dict[str, str] = {}
    for path in sorted(keys.glob("answer-*.pub")):
        encoded = path.read_text().strip()
        key_id = path.stem.removeprefix("answer-")
        if id_of(encoded) != key_id:
            raise ValueError(f"{path} does not hold the key of its name: restore it, or remove it")
        if not path.with_suffix(".revoked").exists():
            found[key_id] = encoded
    return found


def _new_pem() -> bytes:
    return Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _raw_public(key: Ed25519PrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
