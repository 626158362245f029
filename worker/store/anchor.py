"""The anchor: what of the log is kept outside its database, so that a rewritten database cannot pass for the log.

A file of JSON lines, appended to and never changed. Each holds a checkpoint signed by a key that the database never
sees, and the leaf hashes of the records since the checkpoint before:

    {"leaves": "<base64: 32 bytes a record>", "note": "<signed checkpoint>", "size": <records so far>}
    {"rotation": "<note signed by the old key and the new one>"}

The root that was signed follows from the leaf hashes of all lines up to there, so that they are as good as signed
themselves, and a record that was replaced is named, not only a range with one in it.
"""

import base64
import binascii
import fcntl
import json
import os
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from tools.contract import canonical_json
from worker.store import merkle
from worker.store.note import Checkpoint, Keys, NoteError, PublicKey, open_note


class AnchorError(Exception):
    """The anchor does not hold what it must. `seq`: the first record that is not vouched for because of that."""

    def __init__(self, seq: int, problem: str) -> None:
        super().__init__(problem)
        self.seq = seq
        self.problem = problem


@dataclass(frozen=True)
class Line:
    """One line: a checkpoint with its leaves, or the change of the key."""

    note: str
    size: int = 0
    leaves: bytes = b""
    rotation: bool = False

    def text(self) -> bytes:
        """As it is written, with its line break."""
        if self.rotation:
            return canonical_json({"rotation": self.note}) + b"\n"
        leaves = base64.b64encode(self.leaves).decode()
        return canonical_json({"leaves": leaves, "note": self.note, "size": self.size}) + b"\n"


@dataclass(frozen=True)
class Vouched:
    """What an anchor proves."""

    leaves: bytes = b""
    """Leaf hashes of the records from 1 on, end to end."""
    checkpoints: list[Checkpoint] = field(default_factory=list[Checkpoint])
    notes: dict[int, str] = field(default_factory=dict[int, str])
    """Size -> the signed note."""
    keys: Keys = field(default_factory=dict[bytes, PublicKey])
    """Who signs for the log, or once did."""

    @property
    def size(self) -> int:
        """Up to which record the log is vouched for."""
        return self.checkpoints[-1].size if self.checkpoints else 0


def parse(line: bytes) -> Line:
    """A line without its line break. Raises ValueError."""
    found: Any = json.loads(line)
    if not isinstance(found, dict):
        raise ValueError("an anchor's lines are JSON objects")  # noqa: TRY004  (the file is wrong)
    held = cast("dict[str, Any]", found)
    if isinstance(rotation := held.get("rotation"), str):
        return Line(rotation, rotation=True)
    note, size, leaves = held.get("note"), held.get("size"), held.get("leaves")
    if not isinstance(note, str) or not isinstance(size, int) or not isinstance(leaves, str):
        raise ValueError("an anchor's line needs note, size and leaves")  # noqa: TRY004  (the file is wrong)
    return Line(note, size, base64.b64decode(leaves, validate=True))


def read(path: Path, keys: Keys) -> Vouched:
    """Check the anchor in the file, or the bare signed note in it. Raises AnchorError, OSError."""
    data = path.read_bytes()
    if not data.lstrip().startswith(b"{"):
        return _bare(data, keys)
    lines: list[Line] = []
    for number, line in enumerate(data.splitlines(), 1):
        try:
            lines.append(parse(line))
        except (ValueError, binascii.Error) as error:
            known = next((one.size for one in reversed(lines) if not one.rotation), 0)
            raise AnchorError(known + 1, f"line {number} of the anchor cannot be read: {error}") from error
    return check(lines, keys)


def check(lines: Iterable[Line], keys: Keys) -> Vouched:
    """What the lines prove to somebody who believes these keys. Raises AnchorError."""
    held = list(lines)
    try:
        signers = _signers(held, keys)
    except NoteError as error:
        raise AnchorError(1, f"the anchor cannot be believed: {error}") from error
    checkpoints: list[Checkpoint] = []
    notes: dict[int, str] = {}
    grown = merkle.Range()
    period = 0
    for line in held:
        if line.rotation:
            period += 1
            continue
        before = grown.size
        grown.add(merkle.split(line.leaves))
        try:
            signed = Checkpoint.parse(open_note(line.note, signers[period]).text)
        except NoteError as error:
            raise AnchorError(before + 1, f"a checkpoint of the anchor cannot be believed: {error}") from error
        if not signed.size == line.size == grown.size or signed.root != grown.root():
            raise AnchorError(before + 1, "the anchor's leaf hashes are not those that its checkpoint was signed over")
        checkpoints.append(signed)
        notes[signed.size] = line.note
    if not checkpoints:
        raise AnchorError(1, "there is no checkpoint in the anchor")
    believed = {name: key for each in signers for name, key in each.items()}
    return Vouched(b"".join(line.leaves for line in held), checkpoints, notes, believed)


def _bare(data: bytes, keys: Keys) -> Vouched:
    try:
        note = data.decode()
        signed = Checkpoint.parse(open_note(note, keys).text)
    except (NoteError, UnicodeDecodeError) as error:
        raise AnchorError(1, f"the anchor cannot be believed: {error}") from error
    return Vouched(b"", [signed], {signed.size: note}, keys)


def rotation_text(origin: str, size: int, old: PublicKey, new: PublicKey) -> str:
    """What both keys sign when one follows the other."""
    return f"{origin}/key-rotation\n{size}\n{old.line()}\n{new.line()}\n"


def _signers(lines: list[Line], keys: Keys) -> list[Keys]:
    """Whose checkpoints count before the first rotation, after it, after the second, and so on.

    Each rotation is signed by the key before and the key after it, so believing one key of the line is believing all;
    and a key that was replaced cannot sign for anything later.
    """
    line_of_keys: list[PublicKey] = []
    for line in lines:
        if not line.rotation:
            continue
        old, new = rotated(line)
        if len(open_note(line.note, {old.hash: old, new.hash: new}).signed_by) != 2:
            raise NoteError("a change of keys is not signed by both keys")
        if line_of_keys and line_of_keys[-1] != old:
            raise NoteError("a change of keys does not follow from the one before")
        line_of_keys = line_of_keys or [old]
        line_of_keys.append(new)
    if not line_of_keys:
        return [keys]
    if not any(keys.get(key.hash) == key for key in line_of_keys):
        raise NoteError("none of its keys is the given one")
    return [{key.hash: key} for key in line_of_keys]


def rotated(line: Line) -> tuple[PublicKey, PublicKey]:
    """The old key and the new one of a rotation. Raises NoteError."""
    try:
        old, new = (PublicKey.parse(text) for text in line.note.partition("\n\n")[0].splitlines()[-2:])
    except ValueError as error:
        raise NoteError(f"a change of keys cannot be read: {error}") from error
    return old, new


class AnchorFile:
    """The file, for the one process that appends to it now: the lock goes with its holder."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._read = 0

    @contextmanager
    def locked(self) -> Generator["AnchorFile"]:
        """Be the only one who appends, on this machine. Raises OSError, BlockingIOError when somebody else is."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(self.path, os.O_CREAT | os.O_RDWR | os.O_APPEND, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            self._handle = handle
            yield self
        finally:
            os.close(handle)

    def news(self) -> list[Line]:
        """The lines since the last time. Raises AnchorError when the file lost some, or holds something else.

        A line that was cut off while it was written (power, full disk) is removed: its checkpoint was never published.
        """
        size = os.fstat(self._handle).st_size
        if size < self._read:
            raise AnchorError(1, f"{self.path} is shorter than it was: somebody cut it")
        data = os.pread(self._handle, size - self._read, self._read)
        whole = data.rfind(b"\n") + 1
        if whole < len(data):
            os.ftruncate(self._handle, self._read + whole)
        try:
            lines = [parse(line) for line in data[:whole].splitlines()]
        except (ValueError, binascii.Error) as error:
            raise AnchorError(1, f"{self.path} cannot be read: {error}") from error
        self._read += whole
        return lines

    def append(self, line: Line) -> None:
        """Add a line, durably. Raises OSError; the line may then be there in part, and `news` removes it."""
        text = line.text()
        if os.write(self._handle, text) != len(text):
            raise OSError(f"{self.path}: the disk is full")
        os.fsync(self._handle)
        self._read += len(text)
