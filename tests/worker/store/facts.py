"""Audit facts for tests."""

from tools.contract import JsonObject
from worker.store.audit import AuditEvent
from worker.store.events import closed_id
from worker.store.ids import new_id


def fact(run_id: str, number: int, *, tenant: str = "default", words: str = "log") -> AuditEvent:
    """The `number`th model request of a run: a fact that may be recorded any number of times."""
    body = {"step": number, "model": "practice:planner", "words": words}
    return AuditEvent(f"{run_id}/model/{number}", "model.requested", tenant, run_id, "system:runs", {**body})


def closing(run_id: str, records: int) -> AuditEvent:
    return AuditEvent(closed_id(run_id), "run.closed", "default", run_id, "system:runs", {"records": records})


def loose(tenant: str = "default") -> AuditEvent:
    """A fact outside any run."""
    return AuditEvent(new_id("denied"), "access.denied", tenant, None, "mallory", {"path": "/api/v1/keys"})


def calls(run_id: str, many: int) -> list[AuditEvent]:
    """Intent, decision and outcome of each of some calls."""
    events: list[AuditEvent] = []
    for n in range(many):
        call = f"{run_id}/call/c{n}"
        body: JsonObject = {
            "call_id": f"c{n}",
            "tool": "read_file",
            "arguments": {"path": f"in/{n}.log", "share": 0.25},
        }
        events.append(AuditEvent(f"{call}/intent", "call.intent", "default", run_id, "olga", body))
        outcome = {"call_id": f"c{n}", "tool": "read_file", "outcome": "succeeded", "content_head": "zwölf\n🚪"}
        events.append(AuditEvent(f"{call}/outcome", "call.outcome", "default", run_id, "system:sandbox", {**outcome}))
    return events
