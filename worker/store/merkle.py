"""The Merkle tree of RFC 9162 over the log's leaves: roots, inclusion proofs, consistency proofs. Pure.

    node(left, right) = SHA-256(0x01 || left || right);   the root of no leaves = SHA-256("")

Leaf hashes come from `worker.store.chain.leaf_hash`. Leaves are counted from 0 here; record `seq` is leaf `seq - 1`.
"""

import hashlib
from collections.abc import Iterable, Sequence

HASH_BYTES = 32
EMPTY_ROOT = hashlib.sha256(b"").digest()

_sha256 = hashlib.sha256


class ProofError(ValueError):
    """A proof that cannot be made, or that does not prove what it claims."""


def node_hash(left: bytes, right: bytes) -> bytes:
    """The hash that stands for two subtrees."""
    return _sha256(b"\x01" + left + right).digest()


def split(leaves: bytes | bytearray | memoryview) -> list[bytes]:
    """Leaf hashes that were stored end to end."""
    held = bytes(leaves)
    return [held[at : at + HASH_BYTES] for at in range(0, len(held), HASH_BYTES)]


class Range:
    """A tree that only grows: the roots of its complete subtrees, largest first. Memory is a few hashes."""

    def __init__(self) -> None:
        self.size = 0
        self._peaks: list[tuple[int, bytes]] = []  # (leaves under it, its hash)

    def add(self, leaves: Iterable[bytes]) -> None:
        """Append leaf hashes in order."""
        peaks = self._peaks
        for leaf in leaves:
            width, top = 1, leaf
            while peaks and peaks[-1][0] == width:
                top = _sha256(b"\x01" + peaks.pop()[1] + top).digest()
                width *= 2
            peaks.append((width, top))
            self.size += 1

    def copy(self) -> "Range":
        """A tree of the same leaves, to grow on its own."""
        other = Range()
        other.size, other._peaks = self.size, [*self._peaks]
        return other

    def root(self) -> bytes:
        """The root over all leaves so far."""
        if not self._peaks:
            return EMPTY_ROOT
        top = self._peaks[-1][1]
        for _, left in reversed(self._peaks[:-1]):
            top = node_hash(left, top)
        return top


def root(leaves: Sequence[bytes]) -> bytes:
    """The root of the tree over these leaf hashes."""
    grown = Range()
    grown.add(leaves)
    return grown.root()


def inclusion(leaves: Sequence[bytes], index: int) -> list[bytes]:
    """The hashes that lead from leaf `index` to the root, lowest first. Raises ProofError for no such leaf."""
    if not 0 <= index < len(leaves):
        raise ProofError(f"there is no leaf {index} in a tree of {len(leaves)}")
    path: list[bytes] = []
    low, high = 0, len(leaves)
    while high - low > 1:
        middle = low + _below(high - low)
        if index < middle:
            path.append(root(leaves[middle:high]))
            high = middle
        else:
            path.append(root(leaves[low:middle]))
            low = middle
    return path[::-1]


def consistency(leaves: Sequence[bytes], old: int) -> list[bytes]:
    """The hashes that show the tree of the first `old` leaves to be the beginning of this one."""
    if not 0 < old <= len(leaves):
        raise ProofError(f"a tree of {old} is no beginning of a tree of {len(leaves)}")
    return _subproof(leaves, old, whole=True)


def _subproof(leaves: Sequence[bytes], old: int, *, whole: bool) -> list[bytes]:
    if old == len(leaves):
        return [] if whole else [root(leaves)]
    middle = _below(len(leaves))
    if old <= middle:
        return [*_subproof(leaves[:middle], old, whole=whole), root(leaves[middle:])]
    return [*_subproof(leaves[middle:], old - middle, whole=False), root(leaves[:middle])]


def check_inclusion(leaf: bytes, index: int, size: int, path: Sequence[bytes], expected: bytes) -> None:
    """Raise ProofError unless the path leads from the leaf to the root (RFC 9162, 2.1.3.2)."""
    if not 0 <= index < size:
        raise ProofError(f"there is no leaf {index} in a tree of {size}")
    at, last, top = index, size - 1, leaf
    for other in path:
        if last == 0:
            raise ProofError("the proof is too long")
        if at & 1 or at == last:
            top = node_hash(other, top)
            while not at & 1 and at:
                at, last = at >> 1, last >> 1
        else:
            top = node_hash(top, other)
        at, last = at >> 1, last >> 1
    if last != 0 or top != expected:
        raise ProofError("the proof does not lead to the root")


def check_consistency(old: int, old_root: bytes, size: int, new_root: bytes, path: Sequence[bytes]) -> None:
    """Raise ProofError unless the smaller tree is the beginning of the larger one (RFC 9162, 2.1.4.2)."""
    if not 0 < old <= size:
        raise ProofError(f"a tree of {old} is no beginning of a tree of {size}")
    if old == size:
        if path or old_root != new_root:
            raise ProofError("two trees of one size have different roots")
        return
    steps = [old_root, *path] if old & (old - 1) == 0 else list(path)
    if not steps:
        raise ProofError("the proof is too short")
    at, last = old - 1, size - 1
    while at & 1:
        at, last = at >> 1, last >> 1
    first = second = steps[0]
    for other in steps[1:]:
        if last == 0:
            raise ProofError("the proof is too long")
        if at & 1 or at == last:
            first, second = node_hash(other, first), node_hash(other, second)
            while not at & 1 and at:
                at, last = at >> 1, last >> 1
        else:
            second = node_hash(second, other)
        at, last = at >> 1, last >> 1
    if last != 0 or first != old_root or second != new_root:
        raise ProofError("the older log is not the beginning of the newer one")


def _below(size: int) -> int:
    """The largest power of two smaller than `size`."""
    return 1 << (size - 1).bit_length() - 1
