"""Signed notes and checkpoints as other tools read them: C2SP signed-note and tlog-checkpoint, Ed25519. Pure.

    <origin>            the log's name, which is also the name of its key
    <size>
    <root, base64>
    time <ISO time>     an extension line: when it was signed
                        (an empty line)
    — <key name> <base64 of key hash (4 bytes) and signature (64 bytes)>

A public key is one line: `<name>+<key hash, hex>+<base64 of 0x01 and the key>`.
"""

import base64
import binascii
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

_ED25519 = b"\x01"
_DASH = "\u2014 "


class NoteError(ValueError):
    """A note or key that cannot be read, or that none of the given keys signed."""


class Signer(Protocol):
    """What signs notes."""

    @property
    def public(self) -> "PublicKey":
        """The key that verifies them."""
        ...

    def sign(self, message: bytes) -> bytes:
        """64 bytes."""
        ...


@dataclass(frozen=True)
class PublicKey:
    """Who signs a log's checkpoints."""

    name: str
    raw: bytes

    @property
    def hash(self) -> bytes:
        """4 bytes that say which key a signature is by."""
        return hashlib.sha256(self.name.encode() + b"\n" + _ED25519 + self.raw).digest()[:4]

    def line(self) -> str:
        """The key as text, for files and people."""
        return f"{self.name}+{self.hash.hex()}+{base64.b64encode(_ED25519 + self.raw).decode()}"

    @classmethod
    def parse(cls, line: str) -> "PublicKey":
        """Reverse of `line`. Raises NoteError."""
        name, _, rest = line.strip().partition("+")
        named, _, encoded = rest.partition("+")
        try:
            data = base64.b64decode(encoded, validate=True)
        except binascii.Error as error:
            raise NoteError(f"not a public key: {error}") from error
        key = cls(name, data[1:])
        if not name or data[:1] != _ED25519 or len(data) != 33 or key.hash.hex() != named:
            raise NoteError("not an Ed25519 public key of a log: <name>+<hash>+<base64> is expected")
        return key


Keys = Mapping[bytes, PublicKey]
"""Key hash -> key: who is believed."""


def parse_keys(text: str) -> dict[bytes, PublicKey]:
    """The keys of a file with one on each line. Raises NoteError when there is none."""
    keys = [PublicKey.parse(line) for line in text.splitlines() if line.strip() and not line.startswith("#")]
    if not keys:
        raise NoteError("there is no public key in it")
    return {key.hash: key for key in keys}


def sign(text: str, *signers: Signer) -> str:
    """The note: `text` (which ends with a line break) and a signature by each."""
    lines = [
        f"{_DASH}{signer.public.name} {base64.b64encode(signer.public.hash + signer.sign(text.encode())).decode()}\n"
        for signer in signers
    ]
    return f"{text}\n{''.join(lines)}"


@dataclass(frozen=True)
class Opened:
    """A note that at least one believed key signed."""

    text: str
    signed_by: tuple[PublicKey, ...]


def open_note(note: str, keys: Keys) -> Opened:
    """Check a note. A bad signature by a believed key is an error, one by an unknown key is ignored (as C2SP says).

    Raises NoteError when it cannot be read or no believed key signed it.
    """
    text, found, signatures = note.rpartition("\n\n")
    if not found or not signatures.endswith("\n"):
        raise NoteError("the note has no signatures")
    signed: list[PublicKey] = []
    body = (text + "\n").encode()
    for line in signatures.splitlines():
        name, _, encoded = line.removeprefix(_DASH).partition(" ")
        try:
            data = base64.b64decode(encoded, validate=True)
        except binascii.Error as error:
            raise NoteError(f"a signature of the note cannot be read: {error}") from error
        if not line.startswith(_DASH) or len(data) < 5:
            raise NoteError("a signature of the note cannot be read")
        key = keys.get(data[:4])
        if key is None or key.name != name:
            continue
        try:
            Ed25519PublicKey.from_public_bytes(key.raw).verify(data[4:], body)
        except InvalidSignature:
            raise NoteError(f"the signature by {name} does not fit the note: one of the two was changed") from None
        signed.append(key)
    if not signed:
        raise NoteError("the note is not signed by the given key")
    return Opened(text + "\n", tuple(signed))


@dataclass(frozen=True)
class Checkpoint:
    """The log as it was at a size: the root stands for records 1..size."""

    origin: str
    size: int
    root: bytes
    time: str

    def text(self) -> str:
        """What is signed."""
        root = base64.b64encode(self.root).decode()
        return f"{self.origin}\n{self.size}\n{root}\ntime {self.time}\n"

    @classmethod
    def parse(cls, text: str) -> "Checkpoint":
        """Reverse of `text`. Raises NoteError."""
        lines = text.splitlines()
        try:
            origin, size, root, *more = lines
            decoded = base64.b64decode(root, validate=True)
            number = int(size)
        except ValueError as error:
            raise NoteError(f"not a checkpoint: {error}") from error
        time = next((line.removeprefix("time ") for line in more if line.startswith("time ")), "")
        if not origin or str(number) != size or number < 0 or len(decoded) != 32:
            raise NoteError("not a checkpoint: origin, size and root are expected")
        return cls(origin, number, decoded, time)
