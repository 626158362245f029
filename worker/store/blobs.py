"""Content-addressed files: artifacts, uploads, tool programs, large payloads. A blob's name is the digest of its bytes.

A blob appears under its name complete and durable, or not at all: it is written into the backend's spool, and put from
there. Blobs are never changed. Where they lie is a backend's business: a folder (the default), or a bucket. With a
keyring they lie there encrypted (worker/store/blobs_seal.py); those of before are still read.
"""

import asyncio
import hashlib
import os
import re
import secrets
import time
from collections.abc import AsyncIterable, AsyncIterator
from pathlib import Path
from typing import IO, NamedTuple

from tools.contract import SHA256_PATTERN
from worker.store.blobs_backend import CHUNK_BYTES, BlobBackend, BlobMissing
from worker.store.blobs_folder import FolderBackend, on_disk
from worker.store.blobs_seal import SUFFIX, Opener, SealBroken, Sealer, plain_size
from worker.store.keyring import Keyring

__all__ = ["CHUNK_BYTES", "Blob", "BlobDamaged", "BlobMissing", "BlobTooLarge", "Blobs"]

_DIGEST = re.compile(SHA256_PATTERN)
_ABANDONED_S = 24 * 3600


class Blob(NamedTuple):
    """What was stored: hex SHA-256 and size in bytes."""

    sha256: str
    size: int


class BlobTooLarge(ValueError):  # noqa: N818  (says what is the case)
    """The bytes went over the caller's limit; nothing was kept."""


class BlobDamaged(Exception):  # noqa: N818
    """The stored bytes no longer match their digest: the disk or somebody changed them."""


class Blobs:
    """The blobs of one backend, shared by any number of processes."""

    def __init__(self, where: Path | BlobBackend, keyring: Keyring | None = None) -> None:
        """`where`: a backend, or the folder of a FolderBackend. Without `keyring` blobs are stored as they are."""
        self._keyring = keyring
        self._backend = FolderBackend(where) if isinstance(where, Path) else where
        self._spool = self._backend.spool
        self._ready = False

    async def put(self, data: bytes | AsyncIterable[bytes], *, max_bytes: int | None = None) -> Blob:
        """Store bytes or a stream; durable when it returns. Storing what is there already is cheap and harmless.

        Raises BlobTooLarge as soon as `max_bytes` is passed, StoreUnavailable when the backend does not take it, and
        whatever the stream raises; then nothing is kept.
        """
        if isinstance(data, bytes):
            _check_size(len(data), max_bytes)
            sha256 = hashlib.sha256(data).hexdigest()
            if await self.has(sha256):
                return Blob(sha256, len(data))
            data = _once(data)
        return await self._put_stream(data, max_bytes)

    async def open(self, sha256: str) -> AsyncIterator[bytes]:
        """The bytes in chunks of at most CHUNK_BYTES. Raises BlobMissing before the first chunk, and BlobDamaged after
        the last when the bytes do not match: a reader must not act on a stream before it ends."""
        digest = hashlib.sha256()
        async for chunk in self._opened(_checked(sha256)):
            digest.update(chunk)
            yield chunk
        if digest.hexdigest() != sha256:
            raise BlobDamaged(f"blob {sha256} does not match its digest any more")

    async def read(self, sha256: str) -> bytes:
        """All bytes, checked. Raises BlobMissing, BlobDamaged, StoreUnavailable."""
        return b"".join([chunk async for chunk in self.open(sha256)])

    async def size(self, sha256: str) -> int:
        """Size in bytes. Raises BlobMissing, BlobDamaged, StoreUnavailable."""
        name = _checked(sha256)
        if self._keyring is None:
            return await self._backend.size(name)
        try:
            return plain_size(await self._backend.size(name + SUFFIX))
        except BlobMissing:
            return await self._backend.size(name)
        except SealBroken as error:
            raise BlobDamaged(f"blob {sha256}: {error}") from error

    async def has(self, sha256: str) -> bool:
        """Whether the blob is here. Raises StoreUnavailable."""
        try:
            await self.size(sha256)
        except BlobMissing:
            return False
        return True

    async def _opened(self, name: str) -> AsyncIterator[bytes]:
        """The plain bytes, whichever way they lie there. Raises BlobMissing, BlobDamaged."""
        if self._keyring is not None:
            opener = Opener(self._keyring)
            try:
                async for piece in self._backend.open(name + SUFFIX):
                    for chunk in await asyncio.to_thread(list, opener.add(piece)):
                        yield chunk
                yield opener.finish()
            except SealBroken as error:
                raise BlobDamaged(f"blob {name}: {error}") from error
            except BlobMissing:
                pass
            else:
                return
        async for chunk in self._backend.open(name):
            yield chunk

    async def _put_stream(self, data: AsyncIterable[bytes], max_bytes: int | None) -> Blob:
        digest, size = hashlib.sha256(), 0
        sealer = None if self._keyring is None else Sealer(self._keyring)
        file = await on_disk(self._create)

        def write(chunk: bytes) -> None:
            digest.update(chunk)
            file.write(chunk if sealer is None else sealer.add(chunk))

        try:
            async for chunk in data:
                size += len(chunk)
                _check_size(size, max_bytes)
                await on_disk(write, chunk)
            if sealer is not None:
                await on_disk(file.write, sealer.finish())
            await on_disk(_finish, file)
            name = digest.hexdigest() + ("" if sealer is None else SUFFIX)
            await self._backend.put(name, Path(file.name))
        finally:
            _discard(file)
        return Blob(digest.hexdigest(), size)

    def _create(self) -> IO[bytes]:
        if not self._ready:
            self._spool.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._sweep()
            self._ready = True
        return open(self._spool / secrets.token_hex(16), "xb", opener=_private)

    def _sweep(self) -> None:
        """Remove what killed processes left unfinished."""
        for path in self._spool.iterdir():
            try:
                if time.time() - path.stat().st_mtime > _ABANDONED_S:
                    path.unlink()
            except FileNotFoundError:
                continue  # its writer finished, or another process swept it


def _checked(sha256: str) -> str:
    # The pattern is what keeps a name from outside from leaving the folder or the bucket's prefix.
    if not _DIGEST.fullmatch(sha256):
        raise BlobMissing("not a SHA-256 digest in hex")
    return sha256


async def _once(data: bytes) -> AsyncIterator[bytes]:
    yield data


def _private(name: str, flags: int) -> int:
    return os.open(name, flags, 0o600)


def _finish(file: IO[bytes]) -> None:
    file.flush()
    os.fsync(file.fileno())
    file.close()


def _discard(file: IO[bytes]) -> None:
    """Close, and remove what was not kept."""
    file.close()
    Path(file.name).unlink(missing_ok=True)


def _check_size(size: int, max_bytes: int | None) -> None:
    if max_bytes is not None and size > max_bytes:
        raise BlobTooLarge(f"more than {max_bytes} bytes")
