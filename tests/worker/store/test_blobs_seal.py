"""Blobs at rest: unreadable without the key; no bit, chunk or tail of them can be changed unseen; any size streams."""

import hashlib
import os
import tracemalloc
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from worker.store.blobs import CHUNK_BYTES, BlobDamaged, Blobs
from worker.store.blobs_folder import FolderBackend
from worker.store.blobs_seal import HEADER_BYTES, SUFFIX, Opener, SealBroken, Sealer, plain_size
from worker.store.keyring import Keyring, new_line, open_generated, open_given, rotate

SEALED = CHUNK_BYTES + 16


@pytest.fixture
def keyring(tmp_path: Path) -> Keyring:
    return open_generated(tmp_path / "data.keys")


def sealed(keyring: Keyring, *pieces: bytes) -> bytes:
    sealer = Sealer(keyring)
    return b"".join(sealer.add(piece) for piece in pieces) + sealer.finish()


def opened(keyring: Keyring, *pieces: bytes) -> bytes:
    opener = Opener(keyring)
    return b"".join(chunk for piece in pieces for chunk in opener.add(piece)) + opener.finish()


@pytest.mark.parametrize("size", [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 3 * CHUNK_BYTES])
@pytest.mark.parametrize("piece", [100_000, SEALED, 1 << 20])
def test_any_size_comes_back_in_any_pieces(keyring: Keyring, size: int, piece: int) -> None:
    data = os.urandom(size)
    stored = sealed(keyring, *(data[at : at + piece] for at in range(0, size, piece)))
    assert opened(keyring, *(stored[at : at + piece] for at in range(0, len(stored), piece))) == data
    assert plain_size(len(stored)) == size


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_no_bit_can_be_changed(keyring: Keyring, data: st.DataObject) -> None:
    stored = bytearray(sealed(keyring, b"words" * 20))
    stored[data.draw(st.integers(0, len(stored) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(SealBroken):
        opened(keyring, bytes(stored))


def test_chunks_cannot_be_dropped_moved_repeated_cut_off_or_taken_from_another(keyring: Keyring) -> None:
    data = os.urandom(3 * CHUNK_BYTES + 10)
    stored, other = sealed(keyring, data), sealed(keyring, data)
    head, body = stored[:HEADER_BYTES], stored[HEADER_BYTES:]
    one, two, three, last = (body[at : at + SEALED] for at in range(0, len(body), SEALED))
    for changed in (
        (one, two, three), (one, two, last), (two, one, three, last), (one, two, two, three, last), (last,), (),
        (one, two, three, last, last), (one, two, three, last[:-1]), (one, two, three[: len(last)]),
        (one, two, three, other[HEADER_BYTES + 3 * SEALED :]),
    ):  # fmt: skip
        with pytest.raises(SealBroken):
            opened(keyring, head + b"".join(changed))
    for cut in (0, 10, HEADER_BYTES, HEADER_BYTES + 15):
        with pytest.raises(SealBroken):
            opened(keyring, stored[:cut])


async def test_what_lies_there_is_unreadable_and_damage_shows(keyring: Keyring, tmp_path: Path) -> None:
    backend = FolderBackend(tmp_path / "blobs")
    blobs = Blobs(backend, keyring)
    blob = await blobs.put(b"nobody else is to read this")
    [stored] = [found async for found in backend.list()]
    raw = b"".join([piece async for piece in backend.open(stored.name)])
    assert b"nobody" not in raw
    changed = tmp_path / "changed"
    changed.write_bytes(raw[:-1])
    await backend.put(stored.name, changed)
    with pytest.raises(BlobDamaged):
        await blobs.read(blob.sha256)


async def test_a_sealed_blob_under_another_s_name_is_damaged(keyring: Keyring, tmp_path: Path) -> None:
    backend = FolderBackend(tmp_path / "blobs")
    blobs = Blobs(backend, keyring)
    one, two = await blobs.put(b"one"), await blobs.put(b"two")
    changed = tmp_path / "changed"
    changed.write_bytes(b"".join([piece async for piece in backend.open(two.sha256 + SUFFIX)]))
    await backend.put(one.sha256 + SUFFIX, changed)
    with pytest.raises(BlobDamaged):
        await blobs.read(one.sha256)


async def test_blobs_of_before_and_of_older_keys_are_read(tmp_path: Path) -> None:
    keys = tmp_path / "data.keys"
    first = open_generated(keys)
    before = await Blobs(tmp_path / "blobs").put(b"before")
    older = await Blobs(tmp_path / "blobs", first).put(b"older")
    rotate(keys)
    blobs = Blobs(tmp_path / "blobs", open_given(keys))
    newer = await blobs.put(b"newer")
    assert [await blobs.read(blob.sha256) for blob in (before, older, newer)] == [b"before", b"older", b"newer"]
    assert await blobs.size(before.sha256) == 6
    keys.write_bytes(new_line())
    with pytest.raises(BlobDamaged, match="no data key"):
        await Blobs(tmp_path / "blobs", open_given(keys)).read(newer.sha256)


async def test_a_large_stream_goes_and_comes_in_little_memory(keyring: Keyring, tmp_path: Path) -> None:
    blobs, piece = Blobs(tmp_path / "blobs", keyring), os.urandom(1 << 20)

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
    assert peak < 12 << 20
