"""Blobs in a local folder: `aa/bb/<name>`. A file is flushed, renamed into place, and the rename is flushed."""

import asyncio
import os
from collections.abc import AsyncGenerator, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, ParamSpec, TypeVar

from worker.store.blobs_backend import CHUNK_BYTES, BlobMissing, Stored
from worker.store.database import unavailable

Given = ParamSpec("Given")
Done = TypeVar("Done")


class FolderBackend:
    """The blobs under one folder, which may be on a file system that several hosts share."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self.spool = root / "partial"
        """In the same file system, so that a rename puts a blob into its place."""

    async def put(self, name: str, file: Path) -> None:
        """As BlobBackend.put: by renaming the file."""
        await on_disk(self._put, name, file)

    async def open(self, name: str) -> AsyncGenerator[bytes]:
        """As BlobBackend.open."""
        file = await on_disk(self._open, name)
        try:
            while chunk := await on_disk(file.read, CHUNK_BYTES):
                yield chunk
        finally:
            file.close()

    async def size(self, name: str) -> int:
        """As BlobBackend.size."""
        return await on_disk(self._size, name)

    async def delete(self, name: str) -> None:
        """As BlobBackend.delete."""
        await on_disk(self._path(name).unlink, missing_ok=True)

    async def list(self) -> AsyncGenerator[Stored]:
        """As BlobBackend.list: folder by folder."""
        for first in await on_disk(_folders, self._root):
            for second in await on_disk(_folders, first):
                for found in await on_disk(_files, second):
                    yield found

    def _path(self, name: str) -> Path:
        return self._root / name[:2] / name[2:4] / name

    def _put(self, name: str, file: Path) -> None:
        path = self._path(name)
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        file.replace(path)
        for folder in (path.parent, path.parent.parent, self._root):
            _flush_folder(folder)

    def _open(self, name: str) -> IO[bytes]:
        try:
            return self._path(name).open("rb")
        except FileNotFoundError as error:
            raise BlobMissing(f"no blob {name}") from error

    def _size(self, name: str) -> int:
        try:
            return self._path(name).stat().st_size
        except FileNotFoundError as error:
            raise BlobMissing(f"no blob {name}") from error


async def on_disk(work: Callable[Given, Done], *args: Given.args, **kwargs: Given.kwargs) -> Done:
    """Run disk work in a thread. What the disk raises is StoreUnavailable, what a caller's stream raises is not."""
    try:
        return await asyncio.to_thread(work, *args, **kwargs)
    except OSError as fault:
        raise unavailable(fault, f"blob store: {fault}") from fault


def _folders(folder: Path) -> list[Path]:
    try:
        return [path for path in sorted(folder.iterdir()) if len(path.name) == 2 and path.is_dir()]
    except FileNotFoundError:
        return []


def _files(folder: Path) -> list[Stored]:
    found: list[Stored] = []
    with os.scandir(folder) as entries:
        for entry in entries:
            try:
                state = entry.stat()
            except FileNotFoundError:
                continue  # deleted since
            found.append(Stored(entry.name, state.st_size, datetime.fromtimestamp(state.st_mtime, UTC)))
    return found


def _flush_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
