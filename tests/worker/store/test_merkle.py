"""The tree is RFC 9162's, and its proofs prove what they say and nothing else."""

import hashlib

import pytest

from worker.store import merkle
from worker.store.merkle import ProofError

LEAVES = [hashlib.sha256(bytes([0, n])).digest() for n in range(40)]
# Leaf data and roots of the vectors in Certificate Transparency's reference tests.
INPUTS = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"]
ROOTS = {
    1: "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    2: "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    3: "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    4: "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    5: "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    6: "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    7: "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    8: "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
}


def test_roots_are_those_of_the_reference() -> None:
    leaves = [hashlib.sha256(b"\x00" + bytes.fromhex(data)).digest() for data in INPUTS]
    for size, expected in ROOTS.items():
        assert merkle.root(leaves[:size]).hex() == expected
    assert merkle.root([]) == hashlib.sha256(b"").digest()


def test_a_tree_may_grow_in_any_steps() -> None:
    for first in range(len(LEAVES)):
        grown = merkle.Range()
        grown.add(LEAVES[:first])
        other = grown.copy()
        grown.add(LEAVES[first:])
        assert (grown.root(), grown.size) == (merkle.root(LEAVES), len(LEAVES))
        assert other.root() == merkle.root(LEAVES[:first])


def test_every_leaf_of_every_tree_can_be_proved_and_no_other() -> None:
    for size in range(1, 20):
        root = merkle.root(LEAVES[:size])
        for index in range(size):
            path = merkle.inclusion(LEAVES[:size], index)
            merkle.check_inclusion(LEAVES[index], index, size, path, root)
            wrong = [
                (LEAVES[index + 1], index, path), (LEAVES[index], index, [*path, LEAVES[0]]),
                (LEAVES[index], size, path),
                *([(LEAVES[index], index, path[:-1]), (LEAVES[index], index, [LEAVES[-1], *path[1:]])] if path else []),
            ]  # fmt: skip
            for leaf, place, other in wrong:
                with pytest.raises(ProofError):
                    merkle.check_inclusion(leaf, place, size, other, root)


def test_every_tree_is_the_beginning_of_every_larger_one_and_of_no_other() -> None:
    for size in range(1, 20):
        root = merkle.root(LEAVES[:size])
        for old in range(1, size + 1):
            path = merkle.consistency(LEAVES[:size], old)
            before = merkle.root(LEAVES[:old])
            merkle.check_consistency(old, before, size, root, path)
            with pytest.raises(ProofError):
                merkle.check_consistency(old, LEAVES[30], size, root, path)
            with pytest.raises(ProofError):
                merkle.check_consistency(old, before, size, LEAVES[30], path)
            with pytest.raises(ProofError):
                merkle.check_consistency(old, before, size, root, [*path, LEAVES[0]])
            if path:
                with pytest.raises(ProofError):
                    merkle.check_consistency(old, before, size, root, path[:-1])
    with pytest.raises(ProofError):
        merkle.consistency(LEAVES, 41)
    with pytest.raises(ProofError):
        merkle.inclusion(LEAVES, 40)
