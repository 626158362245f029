"""A blob is there whole or not at all, under a name nobody can bend."""

import asyncio
import hashlib
import os
import stat
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.fixtures.processes import finished, spawn
from tests.worker.store import jobs
from worker.store.blobs import CHUNK_BYTES, Blob, BlobDamaged, BlobMissing, Blobs, BlobTooLarge
from worker.store.database import Database, StoreUnavailable
from worker.store.files import BadFileName, Files


@pytest.fixture
def blobs(tmp_path: Path) -> Blobs:
    return Blobs(tmp_path / "blobs")


async def stream(*chunks: bytes, fault: Exception | None = None) -> AsyncIterator[bytes]:
    for chunk in chunks:
        await asyncio.sleep(0)
        yield chunk
    if fault is not None:
        raise fault


def kept(root: Path) -> list[Path]:
    return [path for path in (root / "blobs").rglob("*") if path.is_file()]


@pytest.mark.parametrize("size", [0, 1, CHUNK_BYTES, 3 * CHUNK_BYTES + 1])
async def test_what_is_put_is_read(blobs: Blobs, tmp_path: Path, size: int) -> None:
    data = os.urandom(size)
    expected = Blob(hashlib.sha256(data).hexdigest(), size)
    assert await blobs.put(data) == expected
    assert await blobs.put(stream(data[:7], b"", data[7:])) == expected
    assert await blobs.read(expected.sha256) == data
    assert await blobs.size(expected.sha256) == size
    assert await blobs.has(expected.sha256)
    [path] = kept(tmp_path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_too_much_is_refused_and_nothing_kept(blobs: Blobs, tmp_path: Path) -> None:
    with pytest.raises(BlobTooLarge):
        await blobs.put(b"12345", max_bytes=4)
    taken = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal taken
        while True:
            taken += 1
            yield b"x" * 1000

    with pytest.raises(BlobTooLarge):
        await blobs.put(endless(), max_bytes=4000)
    assert taken == 5
    assert kept(tmp_path) == []
    assert (await blobs.put(b"1234", max_bytes=4)).size == 4


async def test_a_stream_that_breaks_leaves_nothing(blobs: Blobs, tmp_path: Path) -> None:
    with pytest.raises(ConnectionError):
        # The client's fault, not the disk's: it must not look like ours.
        await blobs.put(stream(b"abc", fault=ConnectionError("gone")))
    assert kept(tmp_path) == []


@pytest.mark.parametrize(
    "name", ["", "abc", "../../etc/passwd", "A" * 64, "0" * 63, "0" * 65, "0" * 64 + "\n", "/" + "0" * 63, "0" * 64]
)
async def test_a_name_that_is_no_stored_digest_finds_nothing(blobs: Blobs, name: str) -> None:
    with pytest.raises(BlobMissing):
        await blobs.read(name)
    with pytest.raises(BlobMissing):
        await blobs.size(name)
    assert not await blobs.has(name)


async def test_damage_is_noticed(blobs: Blobs, tmp_path: Path) -> None:
    blob = await blobs.put(b"the truth")
    [path] = kept(tmp_path)
    path.write_bytes(b"the trutH")
    with pytest.raises(BlobDamaged):
        await blobs.read(blob.sha256)


async def test_many_put_the_same_and_others_at_once(blobs: Blobs, tmp_path: Path) -> None:
    contents = [os.urandom(1000), os.urandom(200_000)]
    found = await asyncio.gather(
        *(blobs.put(contents[n % 2]) for n in range(10)), *(blobs.put(stream(contents[n % 2])) for n in range(10))
    )
    assert len(set(found)) == 2
    assert len(kept(tmp_path)) == 2
    for blob in set(found):
        assert await blobs.read(blob.sha256) in contents


async def test_processes_put_the_same_at_once(blobs: Blobs, tmp_path: Path) -> None:
    await finished(*(spawn(jobs.put_blobs, str(tmp_path / "blobs"), 30) for _ in range(4)))
    assert len(kept(tmp_path)) == 30
    for path in kept(tmp_path):
        assert hashlib.sha256(await blobs.read(path.name)).hexdigest() == path.name


async def test_what_killed_processes_left_is_swept(tmp_path: Path) -> None:
    partial = tmp_path / "blobs" / "partial"
    partial.mkdir(parents=True)
    for name, age in (("old", 48 * 3600), ("young", 60)):
        (partial / name).write_bytes(b"half")
        moment = time.time() - age
        os.utime(partial / name, (moment, moment))
    await Blobs(tmp_path / "blobs").put(b"abc")
    assert [path.name for path in partial.iterdir()] == ["young"]


async def test_a_disk_that_does_not_take_it_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "blobs").write_text("a file where the folder should be")
    with pytest.raises(StoreUnavailable):
        await Blobs(tmp_path / "blobs").put(b"abc")


async def test_an_upload_is_its_tenant_s(db: Database, blobs: Blobs) -> None:
    files = Files(db, blobs)
    added = await files.add(
        "acme", "app ünï.log", stream(b"one", b"two"), media_type="text/plain", uploaded_by="alice", max_bytes=10
    )
    assert (added.size, await blobs.read(added.sha256)) == (6, b"onetwo")
    assert await files.get("acme", added.id) == added
    assert await files.get(None, added.id) == added
    assert await files.get("other", added.id) is None
    with pytest.raises(BlobTooLarge):
        await files.add("acme", "big", b"x" * 11, media_type="text/plain", uploaded_by="alice", max_bytes=10)


@pytest.mark.parametrize("name", ["", ".", "..", ".env", "a/b", "/etc/passwd", "a\\b", "a\x00b", "a\nb", "x" * 201])
async def test_a_name_that_is_no_plain_file_is_refused(db: Database, blobs: Blobs, name: str, tmp_path: Path) -> None:
    with pytest.raises(BadFileName):
        await Files(db, blobs).add("acme", name, b"", media_type="text/plain", uploaded_by="alice", max_bytes=10)
    assert not (tmp_path / "blobs").exists()
