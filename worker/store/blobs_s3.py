"""Blobs in an S3-compatible store: `<prefix>/<name>` in one bucket.

An upload is one request, or a multipart one in bounded parts; either appears whole. A download is one stream, read no
faster than its reader asks.
"""

import asyncio
from collections.abc import AsyncGenerator, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import obstore
from obstore.exceptions import BaseError
from obstore.store import S3Store
from pydantic import SecretStr

from worker.store.blobs_backend import CHUNK_BYTES, BlobMissing, Stored
from worker.store.database import StoreUnavailable

if TYPE_CHECKING:
    from obstore.store import S3Config

PART_BYTES = 8 << 20
"""Of an upload; what is smaller goes in one request. Memory is bounded by two of these an upload."""
RETRIES = 4
RETRY_S = 30.0
SHOWN_WITHIN_S = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4)
"""Pauses between looks for an object that was just put."""


@dataclass(frozen=True, slots=True)
class BucketSettings:
    """Which bucket, where, and who we are to it."""

    url: str
    """`s3://bucket` or `s3://bucket/prefix`."""
    endpoint: str | None = None
    """Base address of the service; Amazon's when None. Plain http is taken for what it is."""
    region: str | None = None
    access_key: SecretStr | None = None
    secret_key: SecretStr | None = None
    """None: what the host offers (instance role, web identity, the usual AWS variables)."""


class S3Backend:
    """The blobs under one prefix of a bucket. The bucket must exist; it needs get, put, delete and list."""

    def __init__(self, settings: BucketSettings, spool: Path) -> None:
        """Raises ValueError when the address names no bucket."""
        self.spool = spool
        place = urlsplit(settings.url)
        if place.scheme != "s3" or not place.netloc or place.query or place.fragment:
            raise ValueError(f"not an address of a bucket (s3://bucket/prefix): {settings.url}")
        self._where = settings.url
        self._store = S3Store(
            place.netloc,
            prefix=place.path.strip("/") or None,
            config=_config(settings),
            client_options={
                "allow_http": bool(settings.endpoint and settings.endpoint.startswith("http://")),
                "connect_timeout": "5s",
                "read_timeout": "30s",
                "timeout": "1h",  # of a whole transfer, however slow its reader
            },
            retry_config={
                "max_retries": RETRIES,
                "retry_timeout": timedelta(seconds=RETRY_S),
                "backoff": {"init_backoff": timedelta(milliseconds=100), "max_backoff": timedelta(seconds=5)},
            },
        )

    async def put(self, name: str, file: Path) -> None:
        """As BlobBackend.put. A multipart upload that fails is aborted; let the bucket's lifecycle remove what a killed
        process left."""
        with self._faults(name):
            await obstore.put_async(self._store, name, file, chunk_size=PART_BYTES, max_concurrency=2)
        size = (await asyncio.to_thread(file.stat)).st_size
        kept = await self._kept(name)
        if kept != size:
            raise StoreUnavailable(f"{self._where}: {kept} bytes of {name} were kept where {size} were sent")

    async def _kept(self, name: str) -> int:
        """How much is there of what was just taken. A compatible store may not show an object while others put it."""
        for pause_s in (*SHOWN_WITHIN_S, None):
            try:
                return await self.size(name)
            except BlobMissing as error:
                if pause_s is None:
                    raise StoreUnavailable(f"{self._where}: {name} was taken and is not there") from error
                await asyncio.sleep(pause_s)
        raise AssertionError("unreachable")

    async def open(self, name: str) -> AsyncGenerator[bytes]:
        """As BlobBackend.open. A connection that breaks is taken up where it broke, if the server knows ranges."""
        with self._faults(name):
            found = await obstore.get_async(self._store, name)
            pieces = found.stream(min_chunk_size=CHUNK_BYTES)
        left = found.meta["size"]
        while left:
            with self._faults(name):
                piece = await anext(pieces, None)
            if piece is None:
                raise StoreUnavailable(f"{self._where}: {name} ended {left} bytes early")
            view = memoryview(piece)
            left -= len(view)
            for start in range(0, len(view), CHUNK_BYTES):
                yield bytes(view[start : start + CHUNK_BYTES])

    async def size(self, name: str) -> int:
        """As BlobBackend.size."""
        with self._faults(name):
            return (await obstore.head_async(self._store, name))["size"]

    async def delete(self, name: str) -> None:
        """As BlobBackend.delete."""
        try:
            with self._faults(name):
                await obstore.delete_async(self._store, name)
        except BlobMissing:
            return

    async def list(self) -> AsyncGenerator[Stored]:
        """As BlobBackend.list."""
        pages = obstore.list(self._store, chunk_size=1000)  # pyright: ignore[reportUnknownMemberType]  (an Arrow overload)
        while True:
            with self._faults("listing"):
                page = await anext(pages, None)
            if page is None:
                return
            for found in page:
                yield Stored(found["path"].rsplit("/", 1)[-1], found["size"], found["last_modified"])

    @contextmanager
    def _faults(self, name: str) -> Generator[None]:
        """The library's errors as ours; what it cannot tell apart is unavailable, never missing."""
        try:
            yield
        except FileNotFoundError as error:
            # A bucket that is not there also says "not found", and must not make every blob look lost.
            if "NoSuchBucket" in str(error):
                raise StoreUnavailable(f"{self._where}: no such bucket") from error
            raise BlobMissing(f"no blob {name}") from error
        except (BaseError, OSError, ValueError) as error:
            raise StoreUnavailable(f"{self._where}: {_first_line(error)}") from error


def _config(settings: BucketSettings) -> "S3Config":
    config: S3Config = {}
    if settings.endpoint:
        config["endpoint"] = settings.endpoint
    if settings.region or settings.endpoint:
        config["region"] = settings.region or "us-east-1"  # compatible stores want one, and any will do
    if settings.access_key and settings.secret_key:
        config["access_key_id"] = settings.access_key.get_secret_value()
        config["secret_access_key"] = settings.secret_key.get_secret_value()
    return config


def _first_line(error: Exception) -> str:
    # What follows is the library's own view of its error, over many lines.
    return str(error).split("\n", 1)[0][:500]
