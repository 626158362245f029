"""The product's promise, checked from outside on one finished run."""

from collections import Counter
from typing import Any

from tests.e2e.system import System

Json = dict[str, Any]


async def check(system: System, run_id: str) -> list[Json]:
    """Every intent has exactly one outcome, nothing ran without permission, the log verifies, nothing is left.

    Returns the run's audit records.
    """
    records = await system.records(run_id)
    of = {
        kind: Counter(r["body"]["call_id"] for r in records if r["type"] == kind)
        for kind in ("call.intent", "call.outcome")
    }
    assert of["call.intent"] == of["call.outcome"], (of, system.tails())
    assert all(n == 1 for n in of["call.intent"].values()), of
    assert [r["run_seq"] for r in records] == list(range(1, len(records) + 1))
    closed = [r for r in records if r["type"] == "run.closed"]
    assert len(closed) == 1
    assert closed[0]["body"]["records"] == closed[0]["run_seq"]
    for outcome in (r["body"] for r in records if r["type"] == "call.outcome"):
        if outcome["outcome"] == "succeeded":
            assert permitted(records, outcome["call_id"]), outcome
    verified = await system.request("adam", "GET", "/audit/verify")
    assert verified.json()["ok"] is True, verified.text
    assert system.leftovers(run_id) == []
    return records


def permitted(records: list[Json], call_id: str) -> bool:
    """Whether the last word of the gate was allow, or ask with a human's yes to this call."""
    decisions = [
        r["body"]["decision"] for r in records if r["type"] == "gate.decided" and r["body"]["call_id"] == call_id
    ]
    if decisions[-1]["verdict"] == "allow":
        return True
    approved = [r["body"] for r in records if r["type"] == "approval.approved"]
    asked = {
        r["body"]["approval_id"] for r in records
        if r["type"] == "approval.requested" and r["body"]["call"] and r["body"]["call"]["call_id"] == call_id
    }  # fmt: skip
    return decisions[-1]["verdict"] == "ask" and any(a["approval_id"] in asked for a in approved)
