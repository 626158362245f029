"""Checks the stored log against itself: edits, gaps, reordering, truncation, what each run must hold.

What it cannot see without `vouched`: a log rewritten as a whole, head included, by somebody who may write to the
database. With the leaf hashes that signed checkpoints vouch for (`worker.store.anchor`) that is found too.
"""

import asyncio

from worker.store.anchor import Vouched
from worker.store.checking import NOTHING, BadRecord, LogCheck, Verification, outcome
from worker.store.database import Database
from worker.store.rows import Reader, reading


async def verify(db: Database, vouched: Vouched = NOTHING) -> Verification:
    """Recompute every hash up to the head as it stands now; appends may go on meanwhile.

    A record whose chain value does not follow from the one before is named even when its own content is intact: one of
    the two was rewritten, and without `vouched` nobody can tell which. Raises StoreUnavailable.
    """
    return await asyncio.to_thread(verify_blocking, db, vouched)


def verify_blocking(db: Database, vouched: Vouched = NOTHING) -> Verification:
    """`verify`, in this thread."""
    return _run(db, LogCheck(vouched.leaves, keys=vouched.keys), vouched)


class Follower:
    """Verifies a growing log again and again, each time only what is new. One call at a time."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._check = LogCheck(remember=False)

    async def verify(self) -> Verification:
        """Go on where the last check ended; what was checked then is not looked at again. Raises StoreUnavailable."""
        found = await asyncio.to_thread(_run, self._db, self._check, NOTHING)
        if not found.ok:
            self._check = LogCheck(remember=False)
        return found


def _run(db: Database, check: LogCheck, vouched: Vouched) -> Verification:
    try:
        with reading(db) as reader:
            _verify(reader, check)
    except BadRecord as bad:
        return outcome(check, vouched, bad)
    return outcome(check, vouched)


def _verify(reader: Reader, check: LogCheck) -> None:
    head = reader.head()
    if head is None:
        raise BadRecord(1, "the head row is missing")
    check.take(reader.entries(check.count or None, head.seq))
    # What retention removes while this reads is covered by a record beyond the head as it was.
    while check.uncovered and (later := reader.head()) is not None and later.seq > head.seq:
        head = later
        check.take(reader.entries(check.count, head.seq))
    if check.count < head.seq:
        raise BadRecord(check.count + 1, f"records {check.count + 1} to {head.seq} are missing from the end of the log")
    check.finish()
    if check.value != head.chain:
        raise BadRecord(check.count, "the head does not match the last record: one of the two was rewritten")
    # A statement of its own, so that an append in between cannot look like one.
    now = reader.head()
    if now is not None and now.newest is not None and now.newest > now.seq:
        raise BadRecord(now.seq + 1, "a record lies beyond the head: it was not appended by the log")
