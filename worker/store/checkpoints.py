"""Signs what the log is, at times, and publishes it where the database's owner cannot rewrite it.

The key lies under `settings.keys`, never in the database: `checkpoint.key` (private, mode 0600, in C2SP's form), and
`checkpoint-<key hash>.pub` for each key there ever was. A record is looked at before it is signed for: a database
that was rewritten since the last checkpoint gets no other one.
"""

import base64
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from worker.store import chain, merkle, times
from worker.store.anchor import AnchorError, AnchorFile, Line, rotated, rotation_text
from worker.store.checking import BadRecord
from worker.store.database import Database
from worker.store.keyfiles import publish, read_or_create, replace
from worker.store.note import Checkpoint, NoteError, PublicKey, open_note, sign
from worker.store.rows import Reader, reading

PRIVATE = "checkpoint.key"
_NEXT = "checkpoint.next"
_FORM = "PRIVATE+KEY+"


class CheckpointKey:
    """The private key that signs checkpoints, and the name of the log."""

    def __init__(self, name: str, seed: bytes) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(seed)
        self._seed = seed
        self.public = PublicKey(name, self._key.public_key().public_bytes_raw())

    def sign(self, message: bytes) -> bytes:
        """64 bytes."""
        return self._key.sign(message)

    def text(self) -> bytes:
        """The private key as its file holds it."""
        held = base64.b64encode(b"\x01" + self._seed).decode()
        return f"{_FORM}{self.public.name}+{self.public.hash.hex()}+{held}\n".encode()

    @classmethod
    def parse(cls, text: bytes) -> "CheckpointKey":
        """Reverse of `text`. Raises NoteError."""
        parts = text.decode().strip().removeprefix(_FORM).split("+", 2)
        try:
            data = base64.b64decode(parts[2], validate=True)
            key = cls(parts[0], data[1:])
        except (ValueError, IndexError) as error:
            raise NoteError(f"{PRIVATE} holds no key for checkpoints: {error}") from error
        if data[:1] != b"\x01" or key.public.hash.hex() != parts[1]:
            raise NoteError(f"{PRIVATE} holds no key for checkpoints")
        return key


def load_or_create(keys: Path) -> CheckpointKey:
    """The key under `keys`, made on first use; several processes starting together agree on one.

    Raises KeyFileUnsafe when others may read it, NoteError when it is none, OSError.
    """
    made = CheckpointKey(f"gatehouse-{secrets.token_hex(4)}", secrets.token_bytes(32))
    key = CheckpointKey.parse(read_or_create(keys / PRIVATE, made.text))
    if not public_path(keys, key).exists():
        publish(public_path(keys, key), key.public.line().encode() + b"\n")
    return key


def public_path(keys: Path, key: CheckpointKey) -> Path:
    """Where the public half lies, for an auditor to take."""
    return keys / f"checkpoint-{key.public.hash.hex()}.pub"


def public_keys(keys: Path) -> dict[bytes, PublicKey]:
    """Every key of this installation, current and retired. Raises NoteError for a file that holds none."""
    found = [PublicKey.parse(path.read_text()) for path in sorted(keys.glob("checkpoint-*.pub"))]
    return {key.hash: key for key in found}


@dataclass(frozen=True)
class Published:
    """The newest checkpoint."""

    size: int
    note: str
    fresh: bool
    """Whether it was signed now; False when the log had not grown since."""
    line: Line


class Publisher:
    """Signs and publishes checkpoints of one store. Blocks: use it in a thread, one call at a time."""

    def __init__(self, db: Database, keys: Path, anchor: Path) -> None:
        self._db = db
        self._keys = keys
        self._file = AnchorFile(anchor)
        self._grown = merkle.Range()
        self._chain = chain.GENESIS
        self._last: Line | None = None
        self._signer: str | None = None

    def publish(self) -> Published:
        """Vouch for the log as it stands now.

        Raises BadRecord for a log that does not follow from the last checkpoint, AnchorError for a damaged anchor,
        StoreUnavailable, OSError, KeyFileUnsafe, NoteError.
        """
        with self._file.locked() as file, reading(self._db) as reader:
            reader.alone()
            key = self._catch_up(file)
            leaves = self._new_leaves(reader)
            if not leaves and self._last is not None:
                return Published(self._grown.size, self._last.note, False, self._last)
            return self._sign(file, key, leaves)

    def rotate(self, record: Callable[[str, str], object] | None = None) -> Published:
        """Replace the key: the old one signs for the new one, then goes. The new one vouches for the whole log.

        `record` gets the hashes of the old key and the new one before anything changes; what it raises stops the
        change.
        """
        with self._file.locked() as file, reading(self._db) as reader:
            reader.alone()
            old = self._catch_up(file)
            new = CheckpointKey(old.public.name, secrets.token_bytes(32))
            if record is not None:
                record(old.public.hash.hex(), new.public.hash.hex())
            leaves = self._new_leaves(reader)
            if leaves or self._last is None:
                self._sign(file, old, leaves)
            publish(public_path(self._keys, new), new.public.line().encode() + b"\n")
            replace(self._keys / _NEXT, new.text())
            text = rotation_text(old.public.name, self._grown.size, old.public, new.public)
            line = Line(sign(text, old, new), rotation=True)
            file.append(line)
            self._signer = rotated(line)[1].line()
            return self._sign(file, self._key(), [])

    def _catch_up(self, file: AnchorFile) -> CheckpointKey:
        """Take over what was published since, by this process or another; the key that signs next."""
        news = file.news()
        for line in news:
            if line.rotation:
                self._signer = rotated(line)[1].line()
            else:
                self._grow(merkle.split(line.leaves))
                self._last = line
        key = self._key()
        if news and self._last is not None:
            signed = Checkpoint.parse(open_note(self._last.note, public_keys(self._keys)).text)
            if (signed.size, signed.root) != (self._grown.size, self._grown.root()):
                raise AnchorError(
                    1, f"{self._file.path} was changed: its leaf hashes are not those that were signed for"
                )
        return key

    def _key(self) -> CheckpointKey:
        """The private key that the anchor's last rotation named."""
        key = load_or_create(self._keys)
        if self._signer in (None, key.public.line()):
            return key
        # The process that rotated died between the anchor and the key's file.
        waiting = self._keys / _NEXT
        if not waiting.exists() or (key := CheckpointKey.parse(waiting.read_bytes())).public.line() != self._signer:
            raise NoteError("the private key is not the one that the anchor's last change of keys names")
        waiting.replace(self._keys / PRIVATE)
        return key

    def _new_leaves(self, reader: Reader) -> list[bytes]:
        """The leaves of the records since the last checkpoint, each looked at."""
        head = reader.head()
        size, value = self._grown.size, self._chain
        if head is None or head.seq < size:
            ends = 0 if head is None else head.seq
            raise BadRecord(ends + 1, f"the log ends at {ends}, but checkpoints vouch for records to {size}")
        leaves: list[bytes] = []
        for entry in reader.entries(size, head.seq):
            leaf = chain.sha256(b"\x00" + entry.envelope).digest()
            value = chain.chain_hash(value, size + len(leaves) + 1, leaf)
            if (entry.leaf, entry.chain, entry.seq) != (leaf, value, size + len(leaves) + 1):
                raise BadRecord(entry.seq, "it does not follow from the last checkpoint: nothing is signed")
            leaves.append(leaf)
        if value != head.chain:
            raise BadRecord(head.seq, "the log does not follow from the last checkpoint: nothing is signed")
        return leaves

    def _sign(self, file: AnchorFile, key: CheckpointKey, leaves: list[bytes]) -> Published:
        grown = self._grown.copy()
        grown.add(leaves)
        signed = Checkpoint(key.public.name, grown.size, grown.root(), times.to_text(times.now()))
        line = Line(sign(signed.text(), key), grown.size, b"".join(leaves))
        file.append(line)
        self._grow(leaves)
        self._last = line
        return Published(line.size, line.note, True, line)

    def _grow(self, leaves: list[bytes]) -> None:
        for seq, leaf in enumerate(leaves, self._grown.size + 1):
            self._chain = chain.chain_hash(self._chain, seq, leaf)
        self._grown.add(leaves)


__all__ = ["AnchorError", "CheckpointKey", "Published", "Publisher", "load_or_create", "public_keys", "public_path"]
