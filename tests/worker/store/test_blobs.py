"""A blob is there whole or not at all, under a name nobody can bend, wherever blobs lie."""

import asyncio
import hashlib
import os
import stat
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.fixtures.processes import finished, spawn
from tests.fixtures.s3 import S3Server
from tests.worker.store import jobs
from worker.store.blobs import CHUNK_BYTES, Blob, BlobDamaged, BlobMissing, Blobs, BlobTooLarge
from worker.store.blobs_backend import BlobBackend
from worker.store.blobs_folder import FolderBackend
from worker.store.blobs_s3 import S3Backend
from worker.store.blobs_seal import SUFFIX
from worker.store.database import Database, StoreUnavailable
from worker.store.files import BadFileName, Files
from worker.store.keyring import Keyring, open_generated


@dataclass(frozen=True)
class Place:
    """Where a test's blobs lie, as its files."""

    backend: BlobBackend
    folder: Path

    def kept(self) -> list[Path]:
        """Every file, unfinished ones included."""
        found = {path for root in (self.folder, self.backend.spool) for path in root.rglob("*")}
        return sorted(path for path in found if path.is_file())


@pytest.fixture(params=["folder", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """An empty one of each kind."""
    if request.param == "folder":
        return Place(FolderBackend(tmp_path / "blobs"), tmp_path / "blobs")
    server: S3Server = request.getfixturevalue("s3_server")
    prefix = f"some/{tmp_path.name}"
    return Place(S3Backend(server.bucket(prefix), tmp_path / "spool"), server.folder / prefix)


@pytest.fixture(params=["plain", "sealed"])
def keyring(request: pytest.FixtureRequest, tmp_path: Path) -> Keyring | None:
    return open_generated(tmp_path / "data.keys") if request.param == "sealed" else None


@pytest.fixture
def blobs(place: Place, keyring: Keyring | None) -> Blobs:
    return Blobs(place.backend, keyring)


async def stream(*chunks: bytes, fault: Exception | None = None) -> AsyncIterator[bytes]:
    for chunk in chunks:
        await asyncio.sleep(0)
        yield chunk
    if fault is not None:
        raise fault


@pytest.mark.parametrize("size", [0, 1, CHUNK_BYTES, 3 * CHUNK_BYTES + 1])
async def test_what_is_put_is_read(blobs: Blobs, place: Place, size: int) -> None:
    data = os.urandom(size)
    expected = Blob(hashlib.sha256(data).hexdigest(), size)
    assert await blobs.put(data) == expected
    assert await blobs.put(stream(data[:7], b"", data[7:])) == expected
    assert await blobs.read(expected.sha256) == data
    assert await blobs.size(expected.sha256) == size
    assert await blobs.has(expected.sha256)
    [path] = place.kept()
    assert path.name.removesuffix(SUFFIX) == expected.sha256


async def test_too_much_is_refused_and_nothing_kept(blobs: Blobs, place: Place) -> None:
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
    assert place.kept() == []
    assert (await blobs.put(b"1234", max_bytes=4)).size == 4


async def test_a_stream_that_breaks_leaves_nothing(blobs: Blobs, place: Place) -> None:
    with pytest.raises(ConnectionError):
        # The client's fault, not the disk's: it must not look like ours.
        await blobs.put(stream(b"abc", fault=ConnectionError("gone")))
    assert place.kept() == []


@pytest.mark.parametrize(
    "name", ["", "abc", "../../etc/passwd", "A" * 64, "0" * 63, "0" * 65, "0" * 64 + "\n", "/" + "0" * 63, "0" * 64]
)
async def test_a_name_that_is_no_stored_digest_finds_nothing(blobs: Blobs, name: str) -> None:
    with pytest.raises(BlobMissing):
        await blobs.read(name)
    with pytest.raises(BlobMissing):
        await blobs.size(name)
    assert not await blobs.has(name)


async def test_damage_is_noticed(blobs: Blobs, place: Place, tmp_path: Path) -> None:
    blob = await blobs.put(b"the truth")
    lie = tmp_path / "lie"
    lie.write_bytes(b"the trutH")
    [stored] = [found async for found in place.backend.list()]
    await place.backend.put(stored.name, lie)
    with pytest.raises(BlobDamaged):
        await blobs.read(blob.sha256)


async def test_many_put_the_same_and_others_at_once(blobs: Blobs, place: Place) -> None:
    contents = [os.urandom(1000), os.urandom(200_000)]
    found = await asyncio.gather(
        *(blobs.put(contents[n % 2]) for n in range(10)), *(blobs.put(stream(contents[n % 2])) for n in range(10))
    )
    assert len(set(found)) == 2
    assert len(place.kept()) == 2
    for blob in set(found):
        assert await blobs.read(blob.sha256) in contents


async def test_what_is_there_is_listed_and_deleted(place: Place) -> None:
    before = datetime.now(UTC) - timedelta(seconds=5)
    blobs = Blobs(place.backend)
    put = {(await blobs.put(os.urandom(size))).sha256: size for size in (0, 1, 1000)}
    listed = [found async for found in place.backend.list()]
    assert {found.name: found.size for found in listed} == put
    assert all(found.modified >= before for found in listed)
    for name in put:
        await place.backend.delete(name)
        await place.backend.delete(name)
        assert not await blobs.has(name)
    assert [found async for found in place.backend.list()] == []


async def test_nothing_is_listed_where_nothing_ever_was(place: Place) -> None:
    assert [found async for found in place.backend.list()] == []


async def test_what_is_put_is_private_to_its_owner(tmp_path: Path) -> None:
    blob = await Blobs(tmp_path / "blobs").put(b"abc")
    path = tmp_path / "blobs" / blob.sha256[:2] / blob.sha256[2:4] / blob.sha256
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_processes_put_the_same_at_once(tmp_path: Path) -> None:
    root = tmp_path / "blobs"
    await finished(*(spawn(jobs.put_blobs, str(root), 30) for _ in range(4)))
    blobs, kept = Blobs(root), [path for path in root.rglob("*") if path.is_file()]
    assert len(kept) == 30
    for path in kept:
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
