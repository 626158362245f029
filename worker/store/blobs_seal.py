"""Encryption of blobs at rest: AES-256-GCM in chunks, so that any size streams in bounded memory.

A sealed blob is a header (mark, data key id, random salt) and chunks of CHUNK_BYTES, the last one shorter or empty. Its
key is derived from the data key with the salt, so it encrypts this one blob; a chunk's nonce is its number and whether
it is the last. Chunks that were moved, repeated, dropped or cut off therefore do not open (the STREAM construction).
"""

import os
import struct
from collections.abc import Iterator

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from worker.store.blobs_backend import CHUNK_BYTES
from worker.store.keyring import DataKeyMissing, Keyring

SUFFIX = ".sealed"
"""Of the names of sealed blobs; those of before encryption have none."""
_MARK = b"GHB1"
_SALT_BYTES, _TAG_BYTES, _ID_BYTES = 32, 16, 16
HEADER_BYTES = len(_MARK) + _ID_BYTES + _SALT_BYTES
_SEALED_BYTES = CHUNK_BYTES + _TAG_BYTES


class SealBroken(Exception):  # noqa: N818  (says what is the case)
    """The stored bytes are not what was sealed, or their key is gone; the message says which."""


class Sealer:
    """Encrypts one blob, piece by piece."""

    def __init__(self, keyring: Keyring) -> None:
        key_id, salt = keyring.newest, os.urandom(_SALT_BYTES)
        self._header = _MARK + key_id.encode() + salt
        self._aead = AESGCM(keyring.derive(key_id, "blob", salt=salt))
        self._held = bytearray()
        self._number = 0
        self._begun = False

    def add(self, data: bytes) -> bytes:
        """What can be written now."""
        self._held += data
        sealed = [] if self._begun else [self._header]
        self._begun = True
        # A whole chunk is held back until it is known not to be the last.
        while len(self._held) > CHUNK_BYTES:
            sealed.append(self._chunk(bytes(self._held[:CHUNK_BYTES]), last=False))
            del self._held[:CHUNK_BYTES]
        return b"".join(sealed)

    def finish(self) -> bytes:
        """The rest; always at least one chunk."""
        return self.add(b"") + self._chunk(bytes(self._held), last=True)

    def _chunk(self, plain: bytes, *, last: bool) -> bytes:
        nonce = _nonce(self._number, last=last)
        self._number += 1
        return self._aead.encrypt(nonce, plain, self._header)


class Opener:
    """Decrypts one blob, piece by piece. What it gives was sealed so; that nothing follows is known only at the end."""

    def __init__(self, keyring: Keyring) -> None:
        self._keyring = keyring
        self._aead: AESGCM | None = None
        self._header = b""
        self._held = bytearray()
        self._number = 0

    def add(self, data: bytes) -> Iterator[bytes]:
        """The plain chunks that are complete now. Raises SealBroken."""
        self._held += data
        if self._aead is None and len(self._held) >= HEADER_BYTES:
            self._begin()
        while self._aead is not None and len(self._held) > _SEALED_BYTES:
            yield self._chunk(self._aead, bytes(self._held[:_SEALED_BYTES]), last=False)
            del self._held[:_SEALED_BYTES]

    def finish(self) -> bytes:
        """The last chunk. Raises SealBroken when it is not the one that was sealed last."""
        if self._aead is None:
            raise SealBroken("shorter than a header")
        return self._chunk(self._aead, bytes(self._held), last=True)

    def _begin(self) -> None:
        self._header = bytes(self._held[:HEADER_BYTES])
        del self._held[:HEADER_BYTES]
        if not self._header.startswith(_MARK):
            raise SealBroken("no sealed blob")
        key_id = self._header[len(_MARK) : -_SALT_BYTES].decode(errors="replace")
        try:
            self._aead = AESGCM(self._keyring.derive(key_id, "blob", salt=self._header[-_SALT_BYTES:]))
        except DataKeyMissing as error:
            raise SealBroken(str(error)) from error

    def _chunk(self, aead: AESGCM, sealed: bytes, *, last: bool) -> bytes:
        try:
            plain = aead.decrypt(_nonce(self._number, last=last), sealed, self._header)
        except (InvalidTag, ValueError) as error:
            raise SealBroken(f"chunk {self._number} was altered, moved or cut off") from error
        self._number += 1
        return plain


def plain_size(stored: int) -> int:
    """Size of the blob of which so many bytes are stored."""
    body = stored - HEADER_BYTES
    if body < _TAG_BYTES:
        raise SealBroken("shorter than an empty blob")
    return body - _TAG_BYTES * -(-body // _SEALED_BYTES)


def _nonce(number: int, *, last: bool) -> bytes:
    return struct.pack(">3xQ?", number, last)
