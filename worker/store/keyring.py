"""The data keys of an installation: what encrypts payloads in Temporal and blobs at rest.

One file, a key a line (32 random bytes in base64; `#` begins a comment): the last line encrypts, all lines decrypt.
What encrypts is never such a key itself but one derived from it for a purpose and a tenant. A running process notices
within a second that a line was added.
"""

import base64
import binascii
import fcntl
import hashlib
import os
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from worker.store.keyfiles import KeyFileUnsafe, read_or_create, replace

KEY_BYTES = 32
_DISTINCT = 16
"""Fewer different bytes in a key than this do not happen by chance (less than once in 10^12)."""
_LOOK_S = 1.0
_DERIVED = 4096


class KeyringError(RuntimeError):
    """The data keys cannot be used; the message says which file and what to do. Nothing runs without them."""


class DataKeyMissing(Exception):  # noqa: N818  (says what is the case)
    """What was encrypted names a key that the keyring does not hold: it was taken out, or is another installation's."""


class DataKey(NamedTuple):
    """One line of the file."""

    id: str
    """16 hex digits, by which what it encrypted names it."""
    secret: bytes


class Keyring:
    """The keys of one file. Cheap to ask; safe for any number of threads and processes."""

    def __init__(self, path: Path, read: Callable[[], bytes] | None = None) -> None:
        """Reads the file. Raises KeyringError."""
        self._path = path
        self._read = read or path.read_bytes
        self._derived: dict[tuple[str, str], AESGCM] = {}
        self._state = (0, 0)
        self._looked = 0.0
        self._keys: dict[str, DataKey] = {}
        self._load()

    @property
    def ids(self) -> list[str]:
        """Of all keys, oldest first."""
        return list(self._keys)

    @property
    def newest(self) -> str:
        """Id of the key that encrypts."""
        self._look_again()
        return next(reversed(self._keys))

    def cipher(self, key_id: str, purpose: str) -> AESGCM:
        """What encrypts for this purpose (`payload/<tenant>`, ...) under that key. Raises DataKeyMissing."""
        found = self._derived.get((key_id, purpose))
        if found is None:
            found = AESGCM(self.derive(key_id, purpose))
            if len(self._derived) >= _DERIVED:
                self._derived.clear()
            self._derived[key_id, purpose] = found
        return found

    def derive(self, key_id: str, purpose: str, *, salt: bytes | None = None) -> bytes:
        """32 bytes of their own for the purpose. Raises DataKeyMissing."""
        key = self._keys.get(key_id)
        if key is None:
            self._load()  # added by another process since
            key = self._keys.get(key_id)
        if key is None:
            raise DataKeyMissing(f"no data key {key_id[:16]} in {self._path}")
        info = b"gatehouse/v1/" + purpose.encode()
        return HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=salt, info=info).derive(key.secret)

    def _look_again(self) -> None:
        now = time.monotonic()
        if now - self._looked < _LOOK_S:
            return
        self._looked = now
        try:
            state = self._path.stat()
        except OSError:
            return  # what is in memory is what there is
        if (state.st_mtime_ns, state.st_ino) != self._state:
            self._load()

    def _load(self) -> None:
        try:
            content = self._read()
            state = self._path.stat()
        except OSError as error:
            raise KeyringError(f"{self._path}: {error.strerror or error}") from error
        except KeyFileUnsafe as error:
            raise KeyringError(str(error)) from error
        self._keys = {key.id: key for key in parse(content, str(self._path))}
        self._state = (state.st_mtime_ns, state.st_ino)


def parse(content: bytes, origin: str) -> list[DataKey]:
    """The keys of a file's content, oldest first. Raises KeyringError, which never shows a key."""
    keys: list[DataKey] = []
    for number, line in enumerate(content.decode(errors="replace").splitlines(), 1):
        text = line.split("#", 1)[0].strip()
        if not text:
            continue
        try:
            secret = base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError) as error:
            raise KeyringError(f"{origin}:{number}: not base64") from error
        if len(secret) != KEY_BYTES:
            raise KeyringError(f"{origin}:{number}: {len(secret)} bytes where a key has {KEY_BYTES}")
        if len(set(secret)) < _DISTINCT:
            raise KeyringError(f"{origin}:{number}: not a random key: `gatehouse encryption new-key` makes one")
        keys.append(DataKey(hashlib.sha256(b"gatehouse/data-key-id\0" + secret).hexdigest()[:16], secret))
    if not keys:
        raise KeyringError(f"{origin} holds no key: `gatehouse encryption new-key` makes one")
    return keys


def new_line() -> bytes:
    """A new key as a line of the file."""
    while len(set(secret := secrets.token_bytes(KEY_BYTES))) < _DISTINCT:
        continue
    return base64.b64encode(secret) + b"\n"


def open_generated(path: Path) -> Keyring:
    """The keyring that this installation makes for itself on first use (mode 0600). Raises KeyringError."""
    return Keyring(path, lambda: read_or_create(path, new_line))


def open_given(path: Path) -> Keyring:
    """The keyring the operator brings. Raises KeyringError when it is missing, readable by others or no keyring."""

    def read() -> bytes:
        if not path.is_file():
            raise KeyringError(f"{path} does not exist: `gatehouse encryption new-key` makes a key for it")
        return read_or_create(path, new_line)  # checks that nobody else may read it; it is there, so nothing is made

    return Keyring(path, read)


def rotate(path: Path, record: Callable[[str, str], object] | None = None) -> str:
    """Add a key, which encrypts from now on; older ones go on decrypting. Returns its id. Raises KeyringError, OSError.

    `record` gets the ids of the old key and the new one before anything changes; what it raises stops the change.
    """
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)  # two that rotate at once both add theirs
        old = open_given(path).newest
        content, line = path.read_bytes(), new_line()
        new = parse(line, str(path))[0].id
        if record is not None:
            record(old, new)
        replace(path, content + (b"" if content.endswith(b"\n") else b"\n") + line)
    finally:
        os.close(folder)
    return new
