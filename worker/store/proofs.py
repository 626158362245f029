"""Proofs about single records, small enough to mail: a record is in the log; one log is the beginning of another. Pure.

A proof is JSON and needs nothing but a public key to be checked:

    {"kind": "inclusion", "seq": 17, "record": "<line of the export>", "path": ["<base64>"], "note": "<checkpoint>"}
    {"kind": "consistency", "old": "<checkpoint>", "new": "<checkpoint>", "path": ["<base64>"]}
"""

import base64
import binascii
from collections.abc import Sequence
from typing import cast

from pydantic import JsonValue

from tools.contract import JsonObject
from worker.store import chain, merkle
from worker.store.anchor import Vouched
from worker.store.lines import NotARecord, parse
from worker.store.merkle import ProofError
from worker.store.note import Checkpoint, Keys, NoteError, open_note


def prove_record(vouched: Vouched, seq: int, line: bytes) -> JsonObject:
    """That the exported line is record `seq` of the log of the newest checkpoint. Raises ProofError."""
    leaves = merkle.split(vouched.leaves)
    if not 1 <= seq <= len(leaves):
        raise ProofError(f"record {seq} is not under a checkpoint: they reach to {len(leaves)}")
    if chain.sha256(b"\x00" + parse(line.rstrip(b"\n")).envelope).digest() != leaves[seq - 1]:
        raise ProofError(f"record {seq} is not the one that was signed for")
    path = merkle.inclusion(leaves, seq - 1)
    return {
        "kind": "inclusion", "seq": seq, "record": line.rstrip(b"\n").decode(), "path": _written(path),
        "note": vouched.notes[vouched.size],
    }  # fmt: skip


def prove_growth(vouched: Vouched, old: int, new: int) -> JsonObject:
    """That the log at the checkpoint of size `old` is the beginning of that at size `new`. Raises ProofError."""
    for size in (old, new):
        if size not in vouched.notes:
            raise ProofError(f"there is no checkpoint of size {size}; there are {', '.join(map(str, vouched.notes))}")
    path = merkle.consistency(merkle.split(vouched.leaves[: new * merkle.HASH_BYTES]), old)
    return {"kind": "consistency", "old": vouched.notes[old], "new": vouched.notes[new], "path": _written(path)}


def check_proof(proof: JsonObject, keys: Keys) -> str:
    """What the proof proves, in words. Raises ProofError when it proves nothing to somebody who believes these keys."""
    try:
        path = [base64.b64decode(str(one), validate=True) for one in cast("list[object]", proof["path"])]
        if proof["kind"] == "inclusion":
            return _check_inclusion(proof, keys, path)
        if proof["kind"] == "consistency":
            return _check_consistency(proof, keys, path)
    except (KeyError, TypeError, binascii.Error, NoteError, NotARecord) as error:
        raise ProofError(f"not a proof that can be believed: {error}") from error
    raise ProofError("not a proof: `kind` is inclusion or consistency")


def _check_inclusion(proof: JsonObject, keys: Keys, path: Sequence[bytes]) -> str:
    entry = parse(str(proof["record"]).encode())
    signed = Checkpoint.parse(open_note(str(proof["note"]), keys).text)
    if entry.seq != proof["seq"]:
        raise ProofError(f"the record is number {entry.seq}, not {proof['seq']}")
    leaf = chain.sha256(b"\x00" + entry.envelope).digest()
    merkle.check_inclusion(leaf, entry.seq - 1, signed.size, path, signed.root)
    return f"record {entry.seq} is in the log of {signed.size} records that {signed.origin} signed at {signed.time}"


def _check_consistency(proof: JsonObject, keys: Keys, path: Sequence[bytes]) -> str:
    old, new = (Checkpoint.parse(open_note(str(proof[name]), keys).text) for name in ("old", "new"))
    if old.origin != new.origin:
        raise ProofError("the two checkpoints are of different logs")
    merkle.check_consistency(old.size, old.root, new.size, new.root, path)
    return (
        f"the log of {old.size} records is the beginning of the log of {new.size} records, both signed by {new.origin}"
    )


def _written(path: Sequence[bytes]) -> list[JsonValue]:
    return [base64.b64encode(one).decode() for one in path]
