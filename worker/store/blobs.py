"""Content-addressed files: artifacts, uploads, tool programs, large payloads. A blob's name is the digest of its bytes.

A blob appears under its name complete and on disk, or not at all: it is written under `partial/`, flushed, renamed,
and the rename is flushed. Blobs are never changed.
"""

import asyncio
import hashlib
import os
import re
import secrets
import time
from collections.abc import AsyncIterable, AsyncIterator, Callable
from pathlib import Path
from typing import IO, NamedTuple, ParamSpec, TypeVar

from tools.contract import SHA256_PATTERN
from worker.store.database import StoreUnavailable

Given = ParamSpec("Given")
Done = TypeVar("Done")

CHUNK_BYTES = 256 << 10
_DIGEST = re.compile(SHA256_PATTERN)
_ABANDONED_S = 24 * 3600


class Blob(NamedTuple):
    """What was stored: hex SHA-256 and size in bytes."""

    sha256: str
    size: int


class BlobMissing(LookupError):  # noqa: N818  (says what is the case)
    """Nothing is stored under that digest (or it is no digest)."""


class BlobTooLarge(ValueError):  # noqa: N818
    """The bytes went over the caller's limit; nothing was kept."""


class BlobDamaged(Exception):  # noqa: N818
    """The stored bytes no longer match their digest: the disk or somebody changed them."""


class Blobs:
    """The blobs under one folder, shared by any number of processes."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._partial = root / "partial"
        self._ready = False

    async def put(self, data: bytes | AsyncIterable[bytes], *, max_bytes: int | None = None) -> Blob:
        """Store bytes or a stream; on disk when it returns. Storing what is there already is cheap and harmless.

        Raises BlobTooLarge as soon as `max_bytes` is passed, StoreUnavailable when the disk does not take it, and
        whatever the stream raises; then nothing is kept.
        """
        if isinstance(data, bytes):
            _check_size(len(data), max_bytes)
            return await _on_disk(self._put_bytes, data)
        return await self._put_stream(data, max_bytes)

    async def open(self, sha256: str) -> AsyncIterator[bytes]:
        """The bytes in chunks of CHUNK_BYTES. Raises BlobMissing before the first chunk, and BlobDamaged after the
        last when the bytes do not match: a reader must not act on a stream before it ends."""
        file = await _on_disk(self._open, sha256)
        digest = hashlib.sha256()
        try:
            while chunk := await _on_disk(file.read, CHUNK_BYTES):
                digest.update(chunk)
                yield chunk
        finally:
            file.close()
        if digest.hexdigest() != sha256:
            raise BlobDamaged(f"blob {sha256} does not match its digest any more")

    async def read(self, sha256: str) -> bytes:
        """All bytes, checked. Raises BlobMissing, BlobDamaged, StoreUnavailable."""
        return b"".join([chunk async for chunk in self.open(sha256)])

    async def size(self, sha256: str) -> int:
        """Size in bytes. Raises BlobMissing."""
        return await _on_disk(self._size, sha256)

    async def has(self, sha256: str) -> bool:
        """Whether the blob is here."""
        try:
            await self.size(sha256)
        except BlobMissing:
            return False
        return True

    def _path(self, sha256: str) -> Path:
        # The pattern is what keeps a name from outside from leaving the folder.
        if not _DIGEST.fullmatch(sha256):
            raise BlobMissing("not a SHA-256 digest in hex")
        return self._root / sha256[:2] / sha256[2:4] / sha256

    def _open(self, sha256: str) -> IO[bytes]:
        try:
            return self._path(sha256).open("rb")
        except FileNotFoundError as error:
            raise BlobMissing(f"no blob {sha256}") from error

    def _size(self, sha256: str) -> int:
        try:
            return self._path(sha256).stat().st_size
        except FileNotFoundError as error:
            raise BlobMissing(f"no blob {sha256}") from error

    def _put_bytes(self, data: bytes) -> Blob:
        sha256 = hashlib.sha256(data).hexdigest()
        if not self._path(sha256).exists():
            file = self._create()
            try:
                file.write(data)
                self._keep(file, sha256)
            finally:
                _discard(file)
        return Blob(sha256, len(data))

    async def _put_stream(self, data: AsyncIterable[bytes], max_bytes: int | None) -> Blob:
        digest, size = hashlib.sha256(), 0
        file = await _on_disk(self._create)
        try:
            async for chunk in data:
                size += len(chunk)
                _check_size(size, max_bytes)
                digest.update(chunk)
                await _on_disk(file.write, chunk)
            await _on_disk(self._keep, file, digest.hexdigest())
        finally:
            _discard(file)
        return Blob(digest.hexdigest(), size)

    def _create(self) -> IO[bytes]:
        if not self._ready:
            self._partial.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._sweep()
            self._ready = True
        return open(self._partial / secrets.token_hex(16), "xb", opener=_private)

    def _keep(self, file: IO[bytes], sha256: str) -> None:
        """Flush, and give the file its name. A blob that is there already stays: it is the same bytes."""
        file.flush()
        os.fsync(file.fileno())
        path = self._path(sha256)
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        Path(file.name).replace(path)
        for folder in (path.parent, path.parent.parent, self._root):
            _flush_folder(folder)

    def _sweep(self) -> None:
        """Remove what killed processes left unfinished."""
        for path in self._partial.iterdir():
            try:
                if time.time() - path.stat().st_mtime > _ABANDONED_S:
                    path.unlink()
            except FileNotFoundError:
                continue  # its writer finished, or another process swept it


def _private(name: str, flags: int) -> int:
    return os.open(name, flags, 0o600)


async def _on_disk(work: Callable[Given, Done], *args: Given.args, **kwargs: Given.kwargs) -> Done:
    """Run disk work in a thread. What the disk raises is StoreUnavailable, what a caller's stream raises is not."""
    try:
        return await asyncio.to_thread(work, *args, **kwargs)
    except OSError as fault:
        raise StoreUnavailable(f"blob store: {fault}") from fault


def _discard(file: IO[bytes]) -> None:
    """Close, and remove what was not kept."""
    file.close()
    Path(file.name).unlink(missing_ok=True)


def _flush_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _check_size(size: int, max_bytes: int | None) -> None:
    if max_bytes is not None and size > max_bytes:
        raise BlobTooLarge(f"more than {max_bytes} bytes")
