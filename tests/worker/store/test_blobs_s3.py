"""What only a bucket can do wrong: connections that break, rights that are missing, objects that are not what was put.
A fault is never taken for an absence, nor an absence for a blob."""

import hashlib
import os
import tracemalloc
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.fixtures.s3 import S3Server, Wire
from tests.fixtures.temporal import free_port
from worker.artifacts import open_blobs
from worker.settings import Settings
from worker.store.blobs import BlobDamaged, BlobMissing, Blobs
from worker.store.blobs_s3 import PART_BYTES, S3Backend
from worker.store.blobs_seal import SUFFIX
from worker.store.database import StoreUnavailable

LARGE = 2 * PART_BYTES + 12345  # three parts


def objects(server: S3Server, prefix: str) -> list[Path]:
    return [path for path in (server.folder / prefix).rglob("*") if path.is_file()]


@pytest.fixture
def prefix(tmp_path: Path) -> str:
    return tmp_path.name


@pytest.fixture
def wired(s3_server: S3Server, wire: Wire, prefix: str, tmp_path: Path) -> Blobs:
    """Over the wire that breaks."""
    return Blobs(S3Backend(s3_server.bucket(prefix, port=wire.port), tmp_path / "spool"))


async def test_the_settings_choose_the_bucket(s3_server: S3Server, tmp_path: Path, prefix: str) -> None:
    blobs = open_blobs(s3_server.settings(tmp_path, prefix))
    blob = await blobs.put(b"abc")
    assert [path.name for path in objects(s3_server, prefix)] == [blob.sha256 + SUFFIX]
    assert await blobs.read(blob.sha256) == b"abc"


async def test_a_large_stream_goes_and_comes_in_little_memory(s3_server: S3Server, tmp_path: Path, prefix: str) -> None:
    blobs = Blobs(S3Backend(s3_server.bucket(prefix), tmp_path / "spool"))
    piece = os.urandom(1 << 20)

    async def stream() -> AsyncIterator[bytes]:
        for _ in range(48):
            yield piece

    tracemalloc.start()
    try:
        blob = await blobs.put(stream())
        digest = hashlib.sha256()
        async for chunk in blobs.open(blob.sha256):
            digest.update(chunk)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (blob.size, digest.hexdigest()) == (48 << 20, blob.sha256)
    assert peak < 24 << 20
    assert list((tmp_path / "spool").iterdir()) == []


@pytest.mark.parametrize("cuts", [[3 << 20], [100_000, 5 << 20, 200]])
async def test_an_upload_survives_connections_that_break(wired: Blobs, wire: Wire, cuts: list[int]) -> None:
    data = os.urandom(LARGE)
    wire.cuts = list(cuts)
    blob = await wired.put(data)
    assert wire.cut > 0
    assert await wired.read(blob.sha256) == data


async def test_an_upload_that_never_gets_through_leaves_nothing(
    wired: Blobs, wire: Wire, s3_server: S3Server, prefix: str, tmp_path: Path
) -> None:
    wire.cuts = [64 << 10] * 1000
    for size in (1 << 20, LARGE):
        with pytest.raises(StoreUnavailable):
            await wired.put(os.urandom(size))
    assert objects(s3_server, prefix) == []
    assert list((tmp_path / "spool").iterdir()) == []


async def test_a_download_that_breaks_is_no_blob(
    wired: Blobs, wire: Wire, s3_server: S3Server, prefix: str, tmp_path: Path
) -> None:
    blob = await Blobs(S3Backend(s3_server.bucket(prefix), tmp_path / "spool")).put(os.urandom(LARGE))
    wire.cuts = [1 << 20] * 1000
    with pytest.raises(StoreUnavailable):
        await wired.read(blob.sha256)
    assert wire.cut > 0


async def test_a_missing_object_is_missing_and_a_wrong_one_damaged(
    s3_server: S3Server, tmp_path: Path, prefix: str
) -> None:
    backend = S3Backend(s3_server.bucket(prefix), tmp_path / "spool")
    blobs = Blobs(backend)
    blob = await blobs.put(b"the truth")
    lie = tmp_path / "lie"
    lie.write_bytes(b"the trutH")
    await backend.put(blob.sha256, lie)
    with pytest.raises(BlobDamaged):
        await blobs.read(blob.sha256)
    await backend.delete(blob.sha256)
    with pytest.raises(BlobMissing):
        await blobs.read(blob.sha256)
    assert not await blobs.has(blob.sha256)


async def test_no_server_no_rights_no_bucket_are_faults_not_absences(s3_server: S3Server, tmp_path: Path) -> None:
    anything = hashlib.sha256(b"").hexdigest()
    away = s3_server.bucket("x", port=free_port())
    stranger = s3_server.bucket("x", secret="another-secret-than-theirs")
    for bucket in (away, stranger):
        blobs = Blobs(S3Backend(bucket, tmp_path / "spool"))
        with pytest.raises(StoreUnavailable):
            await blobs.read(anything)
        with pytest.raises(StoreUnavailable):
            await blobs.has(anything)
        with pytest.raises(StoreUnavailable):
            await blobs.put(b"abc")
    nowhere = replace(s3_server.bucket("x"), url="s3://no-such-bucket/x")
    with pytest.raises(StoreUnavailable, match="no such bucket"):
        await Blobs(S3Backend(nowhere, tmp_path / "spool")).read(anything)
    assert "not-a-secret" not in repr(nowhere)


@pytest.mark.parametrize("url", ["", "bucket", "file:///tmp", "s3://", "s3:///prefix", "s3://bucket/x?y=z"])
def test_an_address_that_names_no_bucket_is_refused(url: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not an address of a bucket"):
        open_blobs(Settings(data=tmp_path, artifacts=url))
