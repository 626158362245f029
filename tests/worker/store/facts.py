"""Audit facts for tests."""

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
