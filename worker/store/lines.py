"""One record as one line of an export, and back, without parsing or rewriting what is hashed. Pure.

A line is the canonical JSON of the record: the envelope's keys, and among them `chain_hash`, `leaf_hash` and `seq`. The
hashed envelope is the line without these three, byte for byte, so that every byte of a line is accounted for.
"""

import json
import re
from binascii import unhexlify
from collections.abc import Callable, Mapping
from json.encoder import encode_basestring as _quote
from typing import Any, NamedTuple, cast

from tools.contract import canonical_json


class Entry(NamedTuple):
    """A record as a check takes it, from a line or from a row. Text may be str or bytes, the same throughout a log."""

    seq: int
    envelope: bytes
    """The bytes that are hashed."""
    leaf: bytes
    """What the record claims its hash to be."""
    chain: bytes
    event_id: str | bytes
    run_id: str | bytes | None
    run_seq: int | None
    ts: str | bytes
    type: str


new: Callable[..., Any] = cast(Any, tuple).__new__
"""Makes an Entry without the checks of its constructor, which cost as much as a hash: a log has many records."""


class NotARecord(ValueError):  # noqa: N818  (says what is the case)
    """The line is not one that an export writes."""


_TEXT = rb'"(?:[^"\\]|\\.)*"'
_PLAIN = rb'"[^"\\]*"'


_HASH = rb"[0-9a-f]{64}"


def _tail(text: bytes, digest: bytes) -> re.Pattern[bytes]:
    """Everything after the body. No raw quote can stand in a JSON string, so this cannot match inside one."""
    return re.compile(
        rb',"chain_hash":"(' + digest + rb')"(,"event_id":(' + text + rb')),"leaf_hash":"(' + digest
        + rb')"(,"run_id":(null|' + text + rb'),"run_seq":(null|[1-9][0-9]{0,17})),"seq":([1-9][0-9]{0,17})'
        + rb'(,"tenant":' + text + rb',"ts":"([0-9TZ:.-]+)","type":"([a-z0-9_.]+)"\})'
    )  # fmt: skip


# Most records have no escapes in their names; the plain pattern is five times as fast. It takes any bytes for a hash,
# which costs less to look at afterwards.
_FAST, _ANY = _tail(_PLAIN, rb"(?s:.{64})"), _tail(_TEXT, _HASH)
_TYPES: dict[bytes, str] = {}


def parse(line: bytes) -> Entry:
    """The record of a line without its line break. Raises NotARecord."""
    if b"\\" in line and b"\\u" in line:  # one byte is found much faster than two
        # Either control characters, or a writer that escapes everything beyond ASCII.
        try:
            line = _as_exported(line)
        except NotARecord:
            pass
    # The body may hold these very words; the record's own come last.
    at = line.rfind(b',"chain_hash":"')
    found = _FAST.fullmatch(line, at) if at > 0 else None
    hashes = _hashes(found[1] + found[4]) if found else b""
    if found is None or not hashes:
        found = _ANY.fullmatch(line, at) if at > 0 else None
        if found is None:
            return parse(_as_exported(line))
        hashes = unhexlify(found[1] + found[4])
    _, event, event_id, _, run, run_id, run_seq, seq, rest, ts, type_ = found.groups()
    if not line.startswith(b'{"actor":"'):
        raise NotARecord("the line is not a record as an export writes it")
    known = _TYPES.get(type_)
    if known is None:
        known = _TYPES[type_] = type_.decode()
    return new(Entry, (
        int(seq), line[:at] + event + run + rest, hashes[32:], hashes[:32], event_id,
        None if run_id == b"null" else run_id, None if run_seq == b"null" else int(run_seq), ts, known,
    ))  # fmt: skip


def _hashes(written: bytes) -> bytes:
    """The bytes of what is written in hex; none unless it is written as an export does, in small letters."""
    try:
        return unhexlify(written) if written == written.lower() else b""
    except ValueError:
        return b""


def _as_exported(line: bytes) -> bytes:
    """The line that an export would hold, of one that a common JSON writer made from the same values: exactly as such a
    writer does, so that a single changed byte still shows. Raises NotARecord."""
    try:
        record = json.loads(line, object_pairs_hook=_once)
        if not any(json.dumps(record, **style).encode() == line for style in _STYLES):
            raise NotARecord("the line is not a record as an export writes it")
        exported = canonical_json(record)
    except (ValueError, RecursionError) as error:
        raise NotARecord("the line is not a record as an export writes it") from error
    if exported == line:
        raise NotARecord("the line is not a record as an export writes it")
    return exported


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    held = dict(pairs)
    if len(held) != len(pairs):
        raise ValueError("a key stands there twice")
    return held


_STYLES: list[dict[str, Any]] = [
    {"ensure_ascii": ascii_only, "separators": separators}
    for ascii_only in (True, False)
    for separators in ((", ", ": "), (",", ":"))
]


def line(row: Mapping[Any, Any]) -> bytes:
    """The line of a stored row, with its line break; the body as it is stored."""
    run_id = "null" if row["run_id"] is None else _quote(row["run_id"])
    run_seq = "null" if row["run_seq"] is None else row["run_seq"]
    before = f'{{"actor":{_quote(row["actor"])},"body":'
    after = (
        f',"chain_hash":"{row["chain_hash"].hex()}","event_id":{_quote(row["event_id"])},'
        f'"leaf_hash":"{row["leaf_hash"].hex()}","run_id":{run_id},"run_seq":{run_seq},"seq":{row["seq"]},'
        f'"tenant":{_quote(row["tenant"])},"ts":{_quote(row["ts"])},"type":{_quote(row["type"])}}}\n'
    )
    return before.encode() + row["body"] + after.encode()
