"""The bytes an audit record is hashed over, and the chain that binds each record to all before it. Pure.

    envelope = canonical JSON {actor, body, event_id, run_id, run_seq, tenant, ts, type}
    leaf     = SHA-256(0x00 || envelope)                         (RFC 9162's leaf, ready for a Merkle tree)
    chain(n) = SHA-256(chain(n-1) || n as 8 bytes big endian || leaf(n)),  chain(0) = 32 zero bytes

The body goes in as the bytes that are stored, never parsed and written again.
"""

import hashlib
import json
from typing import NamedTuple

GENESIS = bytes(32)

# The canonical form of one string: the same options as `tools.contract.canonical_json`.
_quote = json.JSONEncoder(ensure_ascii=False).encode


class Envelope(NamedTuple):
    """The hashed fields of a record, as stored."""

    event_id: str
    ts: str
    tenant: str
    run_id: str | None
    run_seq: int | None
    type: str
    actor: str
    body: bytes


def envelope_bytes(e: Envelope) -> bytes:
    """Canonical JSON of the envelope (keys in order), with the stored body spliced in."""
    run_id = "null" if e.run_id is None else _quote(e.run_id)
    run_seq = "null" if e.run_seq is None else str(e.run_seq)
    before = f'{{"actor":{_quote(e.actor)},"body":'
    after = (
        f',"event_id":{_quote(e.event_id)},"run_id":{run_id},"run_seq":{run_seq},'
        f'"tenant":{_quote(e.tenant)},"ts":{_quote(e.ts)},"type":{_quote(e.type)}}}'
    )
    return before.encode() + e.body + after.encode()


def leaf_hash(envelope: Envelope) -> bytes:
    """32 bytes that stand for one record."""
    return hashlib.sha256(b"\x00" + envelope_bytes(envelope)).digest()


def chain_hash(previous: bytes, seq: int, leaf: bytes) -> bytes:
    """32 bytes that stand for the records 1..seq."""
    return hashlib.sha256(previous + seq.to_bytes(8, "big") + leaf).digest()
