"""Checks a long export in several processes at once. Only a yes comes from here.

The file is cut at line breaks, each part is checked as if the record before it were what it says, and the parts are
joined: each must begin where the one before it was found to end. Whatever is not well for certain is looked at again
from the beginning, one record after the other (`worker.store.offline`), so that the right record is named.
"""

import os
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from itertools import repeat
from multiprocessing import get_context
from pathlib import Path
from typing import IO, NamedTuple

from worker.store.checking import BadRecord, LogCheck
from worker.store.lines import NotARecord, parse

WORTH_IT = 16 << 20
"""Bytes of an export from which several processes are worth starting."""
_BLOCK = 1 << 20


class Part(NamedTuple):
    """A part of a file, and where the line before it begins (None: it is the first part)."""

    before: int | None
    start: int
    end: int


def processes(size: int) -> int:
    """How many to use for a file of so many bytes."""
    # A fork of a process with several threads may wait for ever for a lock that one of them holds.
    alone = threading.active_count() == 1
    return min(len(os.sched_getaffinity(0)), 8) if alone and size >= WORTH_IT else 1


@contextmanager
def checking(export: Path, many: int) -> Generator[Callable[[bytes], LogCheck | None]]:
    """Checks the export in so many processes, while this one reads what vouches for it. What it yields takes the leaf
    hashes that are vouched for, and waits: for the check of the whole, or None when not all is well for certain."""
    with export.open("rb") as source:
        parts = cut(source, 2 * many)  # of whom is ready first the other takes some
    # Forked: facts have the same hash in each.
    with ProcessPoolExecutor(many, get_context("fork")) as pool:
        found = pool.map(_check_part, repeat(export), parts)
        yield lambda anchored: joined(found, anchored)


def cut(source: IO[bytes], many: int) -> list[Part]:
    """At most `many` parts of about the same size, each of whole lines."""
    size = source.seek(0, os.SEEK_END)
    parts = [Part(None, 0, size)]
    for number in range(1, many):
        source.seek(size * number // many)
        source.readline()
        before = source.tell()
        source.readline()
        start = source.tell()
        last = parts[-1]
        if last.start < start < size:
            parts[-1:] = [last._replace(end=start), Part(before, start, size)]
    return parts


def joined(found: Iterable[LogCheck | None], anchored: bytes) -> LogCheck | None:
    """The check of all parts; None when one of them, or where two meet, is not well for certain."""
    whole = LogCheck(anchored)
    for one in found:
        if one is None or not whole.join(one):
            return None
    vouched = min(len(anchored), len(whole.leaves))
    return whole if bytes(whole.leaves[:vouched]) == anchored[:vouched] else None


def check_part(source: IO[bytes], part: Part) -> LogCheck | None:
    """The check of one part, not finished; None when something is wrong in it."""
    try:
        after = None
        if part.before is not None:
            source.seek(part.before)
            after = parse(source.read(part.start - part.before).removesuffix(b"\n"))
        source.seek(part.start)
        found = LogCheck(after=after)
        found.take(map(parse, split(source, part.end - part.start)))
    except (BadRecord, NotARecord):
        return None
    # What retention removed is covered by a record of another part: that takes a check from the beginning.
    return None if found.pruned else found


def _check_part(export: Path, part: Part) -> LogCheck | None:
    with export.open("rb") as source:
        return check_part(source, part)


def split(source: IO[bytes], size: int | None = None) -> Iterator[bytes]:
    """Lines of the next `size` bytes, or of all, without their breaks. The last one may lack its break: whether it was
    cut shows by itself."""
    rest = b""
    left = size
    while block := source.read(_BLOCK if left is None else min(_BLOCK, left)):
        left = None if left is None else left - len(block)
        *whole, rest = (rest + block).split(b"\n")
        yield from whole
    if rest:
        yield rest
