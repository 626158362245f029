"""Records as OCSF events, the form that security monitoring reads. Pure.

Every record is an OCSF 1.3 `API Activity` event (class 6003), with the whole record under `unmapped.gatehouse`, so that
nothing is lost on the way and the hashes can still be checked.
"""

from datetime import UTC

import orjson

from tools.contract import JsonObject
from worker.store import times
from worker.store.events import CATALOGUE

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
    type_ = str(record["type"])
    refused = type_ in _REFUSED or _denied(record)
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
        "severity_id": _MEDIUM if type_ == "access.denied" else _LOW if refused else _INFORMATIONAL,
        "status_id": 2 if refused else 1,
        "time": int(times.from_text(str(record["ts"])).astimezone(UTC).timestamp() * 1000),
        "type_uid": _CLASS * 100 + activity,
        "unmapped": {"gatehouse": record},
    }
    return orjson.dumps(event, option=orjson.OPT_SORT_KEYS) + b"\n"


def _denied(record: JsonObject) -> bool:
    body = record["body"]
    decision = body.get("decision") if isinstance(body, dict) else None
    return isinstance(decision, dict) and decision.get("verdict") == "deny"
