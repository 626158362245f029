"""All that a reviewer should see with one question: who asked and why, the rule, where each value comes from, what the
agent has read, what would happen, and how like questions were answered. From the store and the audit log alone.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from pydantic import ValidationError

from api.console.arguments import Value, values_of
from api.routes.approvals import ApprovalOut, approval_out
from api.services import Services
from api.views import RunOut, run_out
from policies.approval import BREAK_GLASS, same, who_refused
from policies.decision import Facts, Principal
from policies.rules import Rule
from tools.contract import ToolSpec, Wire
from worker.store.approvals import OPEN_STATES, ApprovalRow
from worker.store.audit import AuditRecord
from worker.store.queue import Wanted

MOST_RECORDS = 1000
"""Of a run's records that are read for one page."""

CONSEQUENCES = {
    "read": "Looks only. Nothing changes, whatever the answer.",
    "write": "Changes what the run works on.",
    "send": "Data leaves. What was sent cannot be called back.",
    "financial": "Moves or commits money.",
    "destructive": "Removes something that is not ours to make again.",
    "access": "Grants or takes away somebody's rights.",
}


class Reading(Wire):
    """A call that ended before this one: what the agent has seen."""

    tool: str
    outcome: str
    head: str
    untrusted: bool
    """Anybody may have written what it gave back."""
    at: datetime


class Dossier(Wire):
    """One question, ready to be shown."""

    approval: ApprovalOut
    open: bool
    run: RunOut | None
    tool: ToolSpec | None
    values: tuple[Value, ...]
    facts: Facts | None
    rule: Rule | None
    asked_by: str
    consequence: str
    touched: tuple[tuple[str, int], ...]
    """Input files of the run that the arguments name, with their sizes."""
    readings: tuple[Reading, ...]
    same: int
    """How many other open questions are about the very same call; up to 100 are counted."""
    like: tuple[ApprovalOut, ...]
    seq: int
    """The last audit record that was looked at."""
    not_yours: str | None
    """Why this principal may not answer it, neither for themselves nor for somebody absent."""
    behalf: tuple[str, ...]
    """Absent people for whom this principal's answer would count."""
    breaks_glass: bool
    """Whether an emergency would make the principal's approval count."""
    requester: bool
    """Whether the principal asked for the run."""
    next_group: str | None
    """Who is asked next, when nobody answers."""
    reminders_left: int


async def dossier(services: Services, principal: Principal, row: ApprovalRow) -> Dossier:
    """Gather it."""
    asked = row.request
    run = await services.runs.get(asked.tenant, asked.run_id)
    records = await services.audit.page(tenant=asked.tenant, run_id=asked.run_id, limit=MOST_RECORDS)
    facts = _facts(records, row)
    shown = approval_out(services, row, await services.approvals.like(row), viewer=principal)
    arguments = {} if shown.call is None else shown.call.arguments
    tools = services.catalog.tools
    like: Sequence[ApprovalRow] = ()
    if asked.call is not None:
        like = await services.queue.like(asked.tenant, asked.automation, asked.call.tool)
    refused, behalf = await _voice(services, principal, row)
    chain = (asked.terms.escalation if asked.terms else ())[len(row.progress.escalated) :]
    return Dossier(
        approval=shown,
        open=row.state in OPEN_STATES,
        run=None if run is None else run_out(services, run, principal),
        tool=None if asked.call is None else tools.get(asked.call.tool),
        values=tuple(values_of(arguments, (facts.arguments or ()) if facts else ())),
        facts=facts,
        rule=next((r for r in services.engine.engine.rules.rules if r.id == asked.rule), None),
        asked_by=_asked_by(records, row),
        consequence=CONSEQUENCES.get(asked.effect or "", ""),
        touched=tuple((f.name, f.size) for f in (run.files if run else ()) if f"in/{f.name}" in _strings(arguments)),
        readings=tuple(_readings(records, row, tools)),
        same=0 if asked.call is None else await services.queue.same(row),
        like=tuple(approval_out(services, r, viewer=principal) for r in like if r.request.id != asked.id),
        seq=records[-1].seq if records else 0,
        not_yours=None if behalf else refused,
        behalf=behalf,
        breaks_glass=BREAK_GLASS in principal.roles
        and who_refused(asked, principal, None, row.progress, break_glass=True) is None,
        requester=same(principal.id, asked.requester),
        next_group=chain[0].to.name if chain else None,
        reminders_left=max(0, len(shown.reminders_at) - len(shown.reminded_at)),
    )


async def _voice(services: Services, principal: Principal, row: ApprovalRow) -> tuple[str | None, tuple[str, ...]]:
    """Why the principal's own answer would not count, and the absent people for whom it would."""
    refused = who_refused(row.request, principal, None, row.progress)
    if refused in (None, "self_approval"):
        return refused, ()
    absent = await services.standing.absentees(principal, datetime.now(UTC))
    counts = (a.id for a in absent if who_refused(row.request, principal, a, row.progress) is None)
    return refused, tuple(counts)


async def neighbours(services: Services, row: ApprovalRow) -> tuple[str | None, str | None]:
    """The questions before and after it in the queue."""
    return await services.queue.neighbours(Wanted(tenant=row.request.tenant), row)


def _facts(records: Sequence[AuditRecord], row: ApprovalRow) -> Facts | None:
    """What the gate knew when it decided about exactly this call; None when the record does not hold it."""
    for record in reversed(records):
        if record.type != "gate.decided" or record.body.get("digest") != row.request.digest:
            continue
        request = record.body.get("request")
        given = request.get("facts") if isinstance(request, dict) else None
        try:
            return Facts.model_validate(given) if given is not None else None
        except ValidationError:
            return None
    return None


def _asked_by(records: Sequence[AuditRecord], row: ApprovalRow) -> str:
    call = row.request.call
    for record in records:
        if record.type == "call.intent" and call is not None and record.body.get("call_id") == call.id:
            return "a fallback rule" if record.body.get("asked_by") == "rules" else "the agent"
    return "the run"


def _readings(records: Sequence[AuditRecord], row: ApprovalRow, tools: dict[str, ToolSpec]) -> list[Reading]:
    found: list[Reading] = []
    for record in records:
        if record.type != "call.outcome" or record.ts > row.request.requested_at:
            continue
        name = str(record.body.get("tool", ""))
        spec = tools.get(name)
        found.append(
            Reading(
                tool=name, outcome=str(record.body.get("outcome", "")), head=str(record.body.get("content_head", "")),
                untrusted=spec is None or spec.results == "untrusted", at=record.ts,
            )
        )  # fmt: skip
    return found


def _strings(value: Any) -> set[str]:
    if isinstance(value, str):
        return {value}
    if isinstance(value, dict):
        return {s for inner in value.values() for s in _strings(inner)}  # pyright: ignore[reportUnknownVariableType]
    if isinstance(value, list):
        return {s for inner in value for s in _strings(inner)}  # pyright: ignore[reportUnknownVariableType]
    return set()
