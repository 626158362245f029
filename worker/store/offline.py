"""Verifies an export without the database: from the exported lines, a public key and the anchor alone."""

from collections.abc import Iterator
from pathlib import Path

from worker.store import anchor, merkle, parts
from worker.store.anchor import AnchorError, Vouched
from worker.store.checking import NOTHING, BadRecord, LogCheck, Misplaced, Verification, outcome
from worker.store.lines import Entry, NotARecord, parse
from worker.store.note import Keys


def verify_export(export: Path, keys: Keys, anchor_file: Path) -> Verification:
    """Whether the export is the log that the anchor's checkpoints were signed for, and whole. Raises OSError.

    An export may go on beyond the last checkpoint; of these records the chain alone is checked.
    """
    many = parts.processes(export.stat().st_size)
    check = None
    try:
        if many > 1:
            with parts.checking(export, many) as joined:
                vouched = anchor.read(anchor_file, keys)
                check = joined(vouched.leaves)
        else:
            vouched = anchor.read(anchor_file, keys)
    except AnchorError as error:
        return outcome(LogCheck(), NOTHING, BadRecord(error.seq, error.problem))
    if check is not None:
        try:
            return _finished(check, vouched)
        except BadRecord as bad:
            return outcome(check, vouched, bad)
    with export.open("rb") as source:
        return check_lines(parts.split(source), vouched)


def check_lines(lines: Iterator[bytes], vouched: Vouched) -> Verification:
    """Whether the lines are the log that is vouched for."""
    check = LogCheck(vouched.leaves, keys=vouched.keys)
    source = _Source(lines, vouched.size)
    try:
        try:
            check.take(source.entries())
        except Misplaced as bad:
            raise source.explain(bad, check) from bad
        return _finished(check, vouched)
    except BadRecord as bad:
        return outcome(check, vouched, bad)


def _finished(check: LogCheck, vouched: Vouched) -> Verification:
    """Every record was taken. Raises BadRecord when that is not what was signed for."""
    check.finish()
    _check_roots(check, vouched)
    return outcome(check, vouched)


class _Source:
    """The lines as entries, with a look at the one after."""

    def __init__(self, lines: Iterator[bytes], vouched: int) -> None:
        self._lines = lines
        self._vouched = vouched
        self._number = 0

    def entries(self) -> Iterator[Entry]:
        """One entry a line; raises BadRecord, with the place it stands at, for a line that is no record."""
        for line in self._lines:
            self._number += 1
            try:
                yield parse(line)
            except NotARecord as error:
                raise BadRecord(self._number, str(error)) from error

    def explain(self, bad: Misplaced, check: LogCheck) -> BadRecord:
        """A number that is too small: is a record one too many, or is it one in the place of another?"""
        seq, expected = bad.entry.seq, bad.expected
        if not 0 < seq < expected or not self._surplus(expected):
            return bad
        held = bytes(check.leaves[(seq - 1) * merkle.HASH_BYTES : seq * merkle.HASH_BYTES])
        twice = "it stands there twice, the second time" if held == bad.entry.leaf else "another of its number stands"
        return BadRecord(seq, f"{twice} after record {expected - 1}")

    def _surplus(self, expected: int) -> bool:
        """Whether the record that was expected comes next after all, or none is expected any more."""
        following = next(self._lines, None)
        if following is None:
            return expected > self._vouched
        try:
            return parse(following).seq == expected
        except NotARecord:
            return False


def _check_roots(check: LogCheck, vouched: Vouched) -> None:
    """Checkpoints that came without leaf hashes: the log's own must have the root that was signed."""
    known = len(vouched.leaves) // merkle.HASH_BYTES
    for signed in vouched.checkpoints:
        if signed.size <= known:
            continue
        if check.count < signed.size:
            raise BadRecord(
                check.count + 1, f"records {check.count + 1} to {signed.size} are missing from the end of the log"
            )
        held = merkle.split(check.leaves[: signed.size * merkle.HASH_BYTES])
        if merkle.root(held) != signed.root:
            raise BadRecord(
                known + 1,
                f"the log is not the one that was signed for: the root over {known + 1} to {signed.size} differs",
            )
