"""The bytes an audit record is hashed over, and the chain that binds each record to all before it. Pure.

    envelope = canonical JSON {actor, body, event_id, run_id, run_seq, tenant, ts, type}
    leaf     = SHA-256(0x00 || envelope)                         (RFC 9162's leaf, ready for a Merkle tree)
    chain(n) = SHA-256(chain(n-1) || n as 8 bytes big endian || leaf(n)),  chain(0) = 32 zero bytes

The body goes in as the bytes that are stored, never parsed and written again. It holds no floating point numbers, which
two JSON writers may write differently: `0.5` is stored as `{"$float":"0.5"}`, and read back as the number.
"""

import hashlib
import json
import math
from json.encoder import encode_basestring
from typing import Any, Final, NamedTuple, cast

import orjson

from tools.contract import JsonObject, canonical_json

GENESIS = bytes(32)

# The canonical form of one string: what `tools.contract.canonical_json` writes.
_quote = encode_basestring
sha256 = hashlib.sha256
_FLOAT: Final = "$float"
_PLAIN: Final = frozenset({str, int, bool, type(None)})


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
    event_id, ts, tenant, run_id, run_seq, type_, actor, body = e
    run = "null" if run_id is None else _quote(run_id)
    number = "null" if run_seq is None else str(run_seq)
    before = f'{{"actor":{_quote(actor)},"body":'
    after = (
        f',"event_id":{_quote(event_id)},"run_id":{run},"run_seq":{number},'
        f'"tenant":{_quote(tenant)},"ts":{_quote(ts)},"type":{_quote(type_)}}}'
    )
    return before.encode() + body + after.encode()


def leaf_hash(envelope: Envelope) -> bytes:
    """32 bytes that stand for one record."""
    return sha256(b"\x00" + envelope_bytes(envelope)).digest()


def chain_hash(previous: bytes, seq: int, leaf: bytes) -> bytes:
    """32 bytes that stand for the records 1..seq."""
    return sha256(previous + seq.to_bytes(8, "big") + leaf).digest()


def body_bytes(body: JsonObject) -> bytes:
    """The canonical bytes of a body. Raises ValueError for what has none (NaN, infinity, lone surrogates)."""
    if _plain(body):
        try:
            # The same bytes, in a fifth of the time, for all that it takes.
            return orjson.dumps(body, option=orjson.OPT_SORT_KEYS)
        except TypeError:
            pass
    return canonical_json(cast(JsonObject, _without_floats(body)))


def read_body(stored: bytes) -> JsonObject:
    """Reverse of `body_bytes`; reads bodies of older versions too, which may hold plain numbers."""
    found: JsonObject = json.loads(stored)
    return cast(JsonObject, _with_floats(found)) if b'"$float"' in stored else found


def _plain(value: Any) -> bool:
    """Whether it is made of nothing but strings, integers, truth values, null, lists and objects."""
    kind = cast("type[Any]", type(value))
    if kind in _PLAIN:
        return True
    if kind is dict:
        held = cast("dict[Any, Any]", value)
        return _FLOAT not in held and all(type(key) is str and _plain(one) for key, one in held.items())
    return kind is list and all(_plain(one) for one in cast("list[Any]", value))


def _without_floats(value: Any) -> Any:
    if isinstance(value, dict):
        written = {key: _without_floats(held) for key, held in cast("dict[str, Any]", value).items()}
        # An object that looks like a written number is wrapped once more, so that it reads back as itself.
        return {_FLOAT: written} if len(written) == 1 and _FLOAT in written else written
    if isinstance(value, list | tuple):
        return [_without_floats(held) for held in cast("list[Any]", value)]
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError("Out of range float values are not JSON compliant")
        return {_FLOAT: repr(float(value))}
    return value


def _with_floats(value: Any) -> Any:
    if isinstance(value, list):
        return [_with_floats(held) for held in cast("list[Any]", value)]
    if not isinstance(value, dict):
        return value
    held = cast("dict[str, Any]", value)
    if len(held) == 1 and _FLOAT in held:
        inner = held[_FLOAT]
        return float(inner) if isinstance(inner, str) else {_FLOAT: _with_floats(inner[_FLOAT])}
    return {key: _with_floats(one) for key, one in held.items()}
