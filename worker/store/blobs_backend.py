"""What the blob store asks of the place where blobs lie. The conformance tests in tests/worker/store hold every backend
to it."""

from collections.abc import AsyncGenerator
from datetime import datetime
from pathlib import Path
from typing import NamedTuple, Protocol

CHUNK_BYTES = 256 << 10
"""Blobs are read and written in pieces of at most this size."""


class BlobMissing(LookupError):  # noqa: N818  (says what is the case)
    """Nothing is stored under that digest (or it is no digest)."""


class Stored(NamedTuple):
    """One object as it lies there."""

    name: str
    size: int
    """In bytes, as stored."""
    modified: datetime
    """UTC."""


class BlobBackend(Protocol):
    """Named objects, each put once. Safe for any number of processes at once.

    Every method raises StoreUnavailable when the place does not do what was asked; nothing is guessed from a failure.
    """

    spool: Path
    """Local folder in which a blob is written before it is put."""

    async def put(self, name: str, file: Path) -> None:
        """Make the file's bytes appear under the name: whole and durable, or not at all. The file may be moved away.
        An object that is there already may be replaced: it is the same blob."""
        ...

    def open(self, name: str) -> AsyncGenerator[bytes]:
        """The bytes, in pieces of at most CHUNK_BYTES. Raises BlobMissing before the first."""
        ...

    async def size(self, name: str) -> int:
        """Size in bytes, as stored. Raises BlobMissing."""
        ...

    async def delete(self, name: str) -> None:
        """Remove the object; one that is not there is removed already."""
        ...

    def list(self) -> AsyncGenerator[Stored]:
        """Every object, in no order. One that comes or goes meanwhile may be listed or not."""
        ...
