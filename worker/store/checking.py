"""What must hold of a log, whether it comes from the database or from an export, and which record breaks it. Pure.

`LogCheck` takes the records in order and raises BadRecord for the first that is not what it must be:

- its hash is that of its content, and the one that a signed checkpoint vouches for
- its number is the next one, its chain value follows from the one before, no fact is recorded twice
- the records of a run are numbered densely; nothing but late attempts follows `run.closed`, which counts them all
- in a closed run each `call.intent` has its `call.outcome`
- a body that was removed is covered by a later `retention.pruned`, which knows what was left of the record
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from worker.store import chain, emptying, times
from worker.store.anchor import Vouched
from worker.store.events import LATE_TYPES
from worker.store.lines import Entry
from worker.store.merkle import HASH_BYTES
from worker.store.note import Keys

_TELLING = frozenset({"call.intent", "call.outcome", "run.closed"})
SILENCE = timedelta(minutes=2)
"""A log that is kept by a running system has a record each minute (`log.heartbeat`)."""


class BadRecord(Exception):  # noqa: N818  (says what is the case)
    """A record that is not what it must be: its sequence number, and what is wrong."""

    def __init__(self, seq: int, problem: str) -> None:
        super().__init__(f"record {seq}: {problem}")
        self.seq = seq
        self.problem = problem


class Misplaced(BadRecord):
    """A record whose number is not the next one."""

    def __init__(self, expected: int, entry: Entry) -> None:
        if entry.seq < 1:
            super().__init__(entry.seq, "a record has a number before the first")
        elif entry.seq < expected:
            super().__init__(expected, f"record {entry.seq} stands in its place")
        else:
            super().__init__(expected, _missing(expected, entry.seq - 1))
        self.expected = expected
        self.entry = entry


@dataclass
class Clock:
    """What the times of a log look like. Times are recorded as the clock had them; the order is that of the numbers."""

    back: int = 0
    """How often a record is earlier than the one before it."""
    back_at: int | None = None
    silences: int = 0
    """How often nothing at all was recorded for longer than SILENCE."""
    longest: timedelta = timedelta(0)
    longest_after: int | None = None
    last: Any = field(default="", repr=False)
    """The last record's time, as the log has it: str or bytes."""

    def see(self, seq: int, ts: str | bytes) -> None:
        """The next record's time, which is of another minute than the last one's, or earlier."""
        try:
            gap = times.from_text(_text(ts)) - times.from_text(_text(self.last)) if self.last else timedelta(0)
        except (ValueError, TypeError) as error:
            raise BadRecord(seq, f"its time cannot be read: {error}") from error
        if gap < timedelta(0):
            self.back += 1
            self.back_at = self.back_at or seq
        elif gap > SILENCE:
            self.silences += 1
            if gap > self.longest:
                self.longest, self.longest_after = gap, seq - 1

    def go_on(self, later: "Clock") -> None:
        """Take over what was seen from here on."""
        self.back += later.back
        self.back_at = self.back_at or later.back_at
        self.silences += later.silences
        if later.longest > self.longest:
            self.longest, self.longest_after = later.longest, later.longest_after
        self.last = later.last


class _Run:
    """What is known of one run so far."""

    __slots__ = ("before", "closed", "last", "open", "settled")

    def __init__(self, before: int = 0) -> None:
        self.before: int = before
        self.last: int = before
        """Numbers of the run's last record before the check began, and now."""
        self.closed = False
        self.open: dict[Any, int] = {}
        """Calls without outcome: event id without its last part -> sequence of the intent."""
        self.settled: set[Any] = set()
        """Calls whose outcome came, and whose intent lies before the beginning of the check, if anywhere."""

    def go_on(self, later: "_Run") -> bool:
        """Take over what a check that began later knows; False when that one's beginning is not this one's end."""
        if self.closed or later.before != self.last:
            return False
        for call in later.settled:
            self.open.pop(call, None)
        if later.closed and self.open:
            return False
        self.open |= later.open
        self.last, self.closed = later.last, later.closed
        return True


class LogCheck:
    """A check that is under way. Memory: some bytes a record, for finding what is there twice."""

    def __init__(
        self, anchored: bytes = b"", *, keys: Keys | None = None, remember: bool = True, after: Entry | None = None
    ) -> None:
        """`anchored`: leaf hashes, end to end from record 1, that signed checkpoints vouch for; `keys` sign them.

        Without `remember` memory is some bytes a run: facts recorded twice are left to the database to refuse. With
        `after` the check begins behind that record, believing what it says; `join` holds it to it.
        """
        self.count: int = after.seq if after else 0
        self.value: bytes = after.chain if after else chain.GENESIS
        self.began = (self.count, self.value)
        self.leaves = bytearray()
        """Leaf hashes of the records so far, end to end."""
        self.clock = Clock(last=after.ts if after else "")
        self._anchored = anchored
        self._remember = remember
        self.ids: set[int] = set()
        self.runs: dict[Any, _Run] = {}
        self.pruned = False
        """Whether retention removed bodies from the records so far, or says so."""
        self._keys = keys or {}
        self._emptied: dict[int, bytes] = {}
        self._suspected: BadRecord | None = None

    @property
    def uncovered(self) -> bool:
        """Whether a removed body has not been vouched for yet: what does so comes later."""
        return bool(self._emptied)

    def take(self, entries: Iterable[Entry]) -> None:
        """The next records. Raises BadRecord; the check is over then."""
        sha256, ids, leaves, anchored, clock = chain.sha256, self.ids, self.leaves, self._anchored, self.clock
        remember = self._remember
        limit, count, value, runs = len(anchored), self.count, self.value, self.runs
        later = self.began[0] > 0
        last: Any = clock.last
        try:
            for entry in entries:
                seq, envelope, claimed, chained, event_id, run_id, run_seq, ts, type_ = entry
                if seq != count + 1:
                    raise Misplaced(count + 1, entry)
                leaf = sha256(b"\x00" + envelope).digest()
                at = count * HASH_BYTES
                if leaf != claimed or (at < limit and leaf != anchored[at : at + HASH_BYTES]):
                    leaf = self._left_of(entry, leaf, anchored[at : at + HASH_BYTES])
                following = sha256(value + seq.to_bytes(8, "big") + leaf).digest()
                if following != chained:
                    raise _unlinked(seq, vouched=at < limit)
                if remember:
                    number = hash(event_id)
                    if number in ids:
                        self._suspect(BadRecord(seq, "the fact it records was recorded before"))
                    ids.add(number)
                    leaves += leaf
                if run_id is not None:
                    run = runs.get(run_id) or runs.setdefault(run_id, _first(run_seq, later=later))
                    if run_seq is None or run_seq != run.last + 1:
                        self._suspect(BadRecord(
                            seq, f"the records of its run are not numbered densely: {run_seq} follows {run.last}"
                        ))  # fmt: skip
                    run.last = run_seq or run.last
                    if run.closed or type_ in _TELLING:
                        self._in_run(run, entry)
                elif type_ == emptying.TYPE:
                    self._cover(entry)
                if ts[:16] != last[:16] or ts < last:
                    self._see(seq, ts)
                last = clock.last = ts
                value, count = following, seq
        finally:
            self.count, self.value = count, value

    def finish(self) -> None:
        """There are no more records. Raises BadRecord when a checkpoint vouches for more than there are."""
        vouched = len(self._anchored) // HASH_BYTES
        if self.count < vouched:
            raise BadRecord(self.count + 1, _missing(self.count + 1, vouched, "from the end of the log"))
        if self._emptied:
            raise BadRecord(min(self._emptied), "its body was removed, and no retention.pruned after it says so")

    def _left_of(self, entry: Entry, leaf: bytes, anchored: bytes) -> bytes:
        """The leaf of a record whose content does not give it: its body may have been removed by retention."""
        if leaf == entry.leaf or not emptying.emptied(entry.envelope):
            raise _changed(entry.seq, hashed=leaf != entry.leaf)
        if anchored and entry.leaf != anchored:
            raise _changed(entry.seq, hashed=False)
        self.pruned = True
        self._emptied[entry.seq] = emptying.remains(entry.envelope)
        return entry.leaf

    def _cover(self, entry: Entry) -> None:
        """A record that says which bodies retention removed before it, and what was left."""
        self.pruned = True
        try:
            found = emptying.covered(entry.envelope, self._keys)
        except emptying.NotCovered as error:
            raise BadRecord(entry.seq, f"it covers no removed body: {error}") from error
        for seq, digest in found.items():
            if self._emptied.get(seq, digest) != digest:
                raise BadRecord(seq, "its body was removed, and what was left of it was changed")
            self._emptied.pop(seq, None)
        if self._suspected is not None and not self._emptied:
            raise self._suspected

    def _suspect(self, bad: BadRecord) -> None:
        """Something does not fit. What is left of an emptied record may be the cause, which is known when it is
        covered: until then this one waits."""
        if not self._emptied:
            raise bad
        self._suspected = self._suspected or bad

    def _see(self, seq: int, ts: str | bytes) -> None:
        try:
            self.clock.see(seq, ts)
        except BadRecord as bad:
            self._suspect(bad)

    def join(self, later: "LogCheck") -> bool:
        """Take over a check that began where this one ends. False when all is not well for certain: then nothing but a
        check from the beginning can tell, and this one is spoilt."""
        if later.began != (self.count, self.value) or not later.ids.isdisjoint(self.ids):
            return False
        for run_id, found in later.runs.items():
            run = self.runs.setdefault(run_id, found)
            if (found.before != 0) if run is found else not run.go_on(found):
                return False
        self.ids |= later.ids
        self.leaves += later.leaves
        self.clock.go_on(later.clock)
        self.count, self.value = later.count, later.value
        return True

    def _in_run(self, run: _Run, entry: Entry) -> None:
        """A record that starts or ends something, or that comes after the end."""
        seq, type_ = entry.seq, entry.type
        if run.closed and type_ not in LATE_TYPES:
            self._suspect(BadRecord(seq, f"{type_} is recorded after its run was closed"))
        if type_ == "call.intent":
            run.open[entry.event_id[:-7]] = seq
        elif type_ == "call.outcome":
            if run.open.pop(entry.event_id[:-8], None) is None:
                run.settled.add(entry.event_id[:-8])
        elif type_ == "run.closed":
            self._close(run, entry)

    def _close(self, run: _Run, entry: Entry) -> None:
        try:
            records = json.loads(entry.envelope)["body"].get("records")
        except (ValueError, AttributeError) as error:
            raise BadRecord(entry.seq, f"the record cannot be read: {error}") from error
        run.closed = True
        if records != entry.run_seq:
            self._suspect(BadRecord(entry.seq, f"run.closed counts {records} records, it is number {entry.run_seq}"))
        if run.open:
            self._suspect(BadRecord(min(run.open.values()), "its run is closed, and the call has no outcome"))


def _text(ts: str | bytes) -> str:
    return ts if isinstance(ts, str) else ts.decode()


def _first(run_seq: int | None, *, later: bool) -> _Run:
    """A run that was not seen before. What came before a later beginning is not known: that it ends there shows when
    parts are joined."""
    return _Run(run_seq - 1 if later and run_seq else 0)


def _missing(first: int, last: int, where: str = "") -> str:
    return f"records {first} to {last} are missing {where}".rstrip()


def _changed(seq: int, *, hashed: bool) -> BadRecord:
    if hashed:
        return BadRecord(seq, "it was changed: its content does not match its hash")
    return BadRecord(seq, "it is not the record that was signed for: content and hash were replaced")


def _unlinked(seq: int, *, vouched: bool) -> BadRecord:
    if vouched:
        return BadRecord(seq, "its chain value was changed: it does not follow from the record before")
    return BadRecord(seq, f"it does not follow from record {seq - 1}: one of the two was rewritten")


NOTHING = Vouched()
"""No anchor at hand."""


@dataclass(frozen=True)
class Verification:
    """What a check of the log found. `first_bad` is the sequence number the trouble begins at."""

    ok: bool
    count: int
    """Records that verified."""
    first_bad: int | None
    problem: str | None
    head: str
    """Hex chain value of the last record that verified: keep it elsewhere, and a later rewrite shows."""
    anchored: int = 0
    """Up to which record signed checkpoints vouch for the log. What follows is vouched for by the chain alone."""
    clock: Clock = field(default_factory=Clock)


def outcome(check: LogCheck, vouched: Vouched, bad: BadRecord | None = None) -> Verification:
    """What a check came to."""
    return Verification(
        ok=bad is None, count=check.count, first_bad=None if bad is None else bad.seq,
        problem=None if bad is None else bad.problem, head=check.value.hex(), anchored=vouched.size,
        clock=check.clock,
    )  # fmt: skip
