"""Records in the forms that security monitoring reads: OCSF and CEF. Pure.

As OCSF every record is an OCSF 1.3 `API Activity` event (class 6003), with the whole record under `unmapped.gatehouse`,
so that nothing is lost on the way and the hashes can still be checked. As CEF it is one line of ArcSight's Common Event
Format, the body in `cs3` and the hash in `cs4`.
"""

from datetime import UTC

import orjson

from tools.contract import JsonObject
from worker.store import times
from worker.store.events import CATALOGUE, EVENT_TYPES

_CREATE, _READ, _UPDATE, _DELETE, _OTHER = 1, 2, 3, 4, 99
_ACTIVITIES = {
    "run.requested": _CREATE, "key.created": _CREATE, "artifact.stored": _CREATE, "approval.requested": _CREATE,
    "policy.proposed": _CREATE, "policy.applied": _UPDATE, "key.rotated": _UPDATE, "key.revoked": _DELETE,
}  # fmt: skip
_REFUSED = frozenset({
    "access.denied", "answer.refused", "egress.refused", "approval.denied", "approval.expired", "policy.rejected",
})  # fmt: skip
_INFORMATIONAL, _LOW, _MEDIUM = 1, 2, 3
_CLASS, _CATEGORY = 6003, 6


def ocsf(line: bytes) -> bytes:
    """The OCSF event of an exported line, as one line. Raises ValueError for a line that is no record."""
    record: JsonObject = orjson.loads(line)
    type_, refused, severity = _judged(record)
    activity = _ACTIVITIES.get(type_, _OTHER)
    event = {
        "activity_id": activity,
        "actor": {"user": {"uid": record["actor"]}},
        "api": {"operation": type_, "request": {"uid": record["event_id"]}},
        "category_uid": _CATEGORY,
        "class_uid": _CLASS,
        "metadata": {
            "version": "1.3.0",
            "product": {"name": "Gatehouse", "vendor_name": "Gatehouse"},
            "log_name": f"audit/{CATALOGUE}",
            "uid": record["event_id"],
            "sequence": record["seq"],
            "tenant_uid": record["tenant"],
            "correlation_uid": record["run_id"],
        },
        "severity_id": severity,
        "status_id": 2 if refused else 1,
        "time": _milliseconds(record),
        "type_uid": _CLASS * 100 + activity,
        "unmapped": {"gatehouse": record},
    }
    return orjson.dumps(event, option=orjson.OPT_SORT_KEYS) + b"\n"


def cef(line: bytes) -> bytes:
    """The CEF line of an exported line. Raises ValueError for a line that is no record."""
    record: JsonObject = orjson.loads(line)
    type_, refused, severity = _judged(record)
    head = ("Gatehouse", "Gatehouse", f"audit/{CATALOGUE}", type_, EVENT_TYPES.get(type_, type_))
    fields: list[tuple[str, object]] = [
        ("rt", _milliseconds(record)), ("externalId", record["event_id"]), ("act", type_),
        ("outcome", "failure" if refused else "success"), ("suser", record["actor"]),
        ("cn1Label", "seq"), ("cn1", record["seq"]), ("cs1Label", "tenant"), ("cs1", record["tenant"]),
        *([] if record["run_id"] is None else [("cs2Label", "run"), ("cs2", record["run_id"])]),
        ("cs3Label", "body"), ("cs3", orjson.dumps(record["body"], option=orjson.OPT_SORT_KEYS).decode()),
        ("cs4Label", "leaf_hash"), ("cs4", record["leaf_hash"]),
    ]  # fmt: skip
    extension = " ".join(f"{name}={_escaped(str(value), '=')}" for name, value in fields)
    return f"CEF:0|{'|'.join(_escaped(one, '|') for one in head)}|{2 * severity}|{extension}\n".encode()


def _escaped(text: str, mark: str) -> str:
    text = text.replace("\\", "\\\\").replace(mark, f"\\{mark}")
    return text.replace("\r", "\\r").replace("\n", "\\n")


def _judged(record: JsonObject) -> tuple[str, bool, int]:
    """Its type, whether something was refused, and how much that matters."""
    type_ = str(record["type"])
    refused = type_ in _REFUSED or _denied(record)
    return type_, refused, _MEDIUM if type_ == "access.denied" else _LOW if refused else _INFORMATIONAL


def _milliseconds(record: JsonObject) -> int:
    return int(times.from_text(str(record["ts"])).astimezone(UTC).timestamp() * 1000)


def _denied(record: JsonObject) -> bool:
    body = record["body"]
    decision = body.get("decision") if isinstance(body, dict) else None
    return isinstance(decision, dict) and decision.get("verdict") == "deny"
