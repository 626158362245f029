"""What would another policy have said? Asks it again about decisions that are on record, and says what differs.

A decision can be asked again when its record holds the whole question: who, which call, which facts. Where arguments
were cut or redacted in the record, it can only if no condition that could apply looks at them.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from typing import cast

from pydantic import JsonValue, ValidationError

from policies.decision import Decision, GateRequest, Verdict
from policies.engine import PolicyEngine
from tools.contract import Wire

MOST_RUNS = 20
"""Runs named for each change; the number of all is given beside."""

_ORDER = {Verdict.DENY: 0, Verdict.ASK: 1, Verdict.ALLOW: 2}


class Recorded(Wire):
    """One decision as it is on record."""

    run_id: str
    tenant: str
    tool: str
    call_id: str
    digest: str
    decision: Decision
    request: GateRequest | None
    """None when the record does not hold the question; `missing` says what."""
    exact: bool = True
    """The arguments are those that were judged, whole."""
    missing: str = ""


class Change(Wire):
    """Decisions that would have been another one, alike in everything named here."""

    tool: str
    tenant: str
    before: Verdict
    before_rule: str
    after: Verdict
    after_rule: str
    looser: bool
    """The proposed policy lets more through here."""
    decisions: int
    run_count: int
    runs: tuple[str, ...]


class Tally(Wire):
    """Sums over one rule, tool or tenant."""

    name: str
    decisions: int
    looser: int
    stricter: int


class Simulation(Wire):
    """What differs, and over how much it was looked at."""

    replayed: int
    changed: int
    not_replayable: dict[str, int]
    """Reason -> decisions."""
    runs_touched: int
    changes: tuple[Change, ...]
    by_rule: tuple[Tally, ...]
    """By the rule that would decide."""
    by_tool: tuple[Tally, ...]
    by_tenant: tuple[Tally, ...]


def recorded(tenant: str, run_id: str, body: Mapping[str, JsonValue]) -> Recorded:
    """The record `gate.decided` as a question that may be asked again. Raises ValidationError for no such record."""
    found = {
        "run_id": run_id, "tenant": tenant, "tool": body.get("tool"), "call_id": body.get("call_id"),
        "digest": body.get("digest"), "decision": body.get("decision"),
    }  # fmt: skip
    asked = body.get("request")
    if not isinstance(asked, dict):
        missing = "recorded before questions were kept"
        return Recorded.model_validate({**found, "request": None, "missing": missing})
    arguments = asked.get("arguments")
    whole = isinstance(arguments, dict)
    try:
        request = GateRequest.model_validate(
            {**asked, "tool": body.get("tool"), "arguments": arguments if whole else {}}
        )
    except ValidationError:
        return Recorded.model_validate({**found, "request": None, "missing": "the recorded question cannot be read"})
    exact = whole and asked.get("exact") is True
    return Recorded.model_validate({**found, "request": request, "exact": exact})


def simulate(records: Iterable[Recorded], proposed: PolicyEngine) -> Simulation:
    """Ask the proposed policy about every record."""
    replayed = 0
    skipped: Counter[str] = Counter()
    runs: defaultdict[tuple[object, ...], Counter[str]] = defaultdict(Counter)
    sums: dict[str, defaultdict[str, list[int]]] = {
        k: defaultdict(lambda: [0, 0, 0]) for k in ("rule", "tool", "tenant")
    }
    for record in records:
        if record.request is None:
            skipped[record.missing] += 1
            continue
        if not record.exact and proposed.looks_at_arguments(record.request):
            skipped["a condition looks at arguments that were cut or redacted in the record"] += 1
            continue
        replayed += 1
        after, before = proposed.decide(record.request), record.decision
        way = _ORDER[after.verdict] - _ORDER[before.verdict]
        for kind, name in (("rule", after.rule), ("tool", record.tool), ("tenant", record.tenant)):
            found = sums[kind][name]
            found[0] += 1
            found[1] += way > 0
            found[2] += way < 0
        if way or (after.verdict is Verdict.ASK and _asks_others(before, after)):
            key = record.tool, record.tenant, before.verdict, before.rule, after.verdict, after.rule
            runs[key][record.run_id] += 1
    changes = [_change(key, of) for key, of in runs.items()]
    changes.sort(key=lambda c: (not c.looser, -c.decisions, c.tool, c.tenant))
    return Simulation(
        replayed=replayed, changed=sum(c.decisions for c in changes), not_replayable=dict(skipped),
        runs_touched=len({run for of in runs.values() for run in of}), changes=tuple(changes),
        by_rule=_tallies(sums["rule"]), by_tool=_tallies(sums["tool"]), by_tenant=_tallies(sums["tenant"]),
    )  # fmt: skip


def _asks_others(before: Decision, after: Decision) -> bool:
    # A decision of an older release says nothing of its terms.
    return after.approvers != before.approvers or (before.terms is not None and after.demands != before.demands)


def _change(key: tuple[object, ...], runs: Counter[str]) -> Change:
    tool, tenant, before, before_rule, after, after_rule = key
    return Change.model_validate(
        {
            "tool": tool, "tenant": tenant, "before": before, "before_rule": before_rule, "after": after,
            "after_rule": after_rule, "looser": _ORDER[cast("Verdict", after)] > _ORDER[cast("Verdict", before)],
            "decisions": runs.total(), "run_count": len(runs), "runs": sorted(runs)[:MOST_RUNS],
        }
    )  # fmt: skip


def _tallies(found: Mapping[str, list[int]]) -> tuple[Tally, ...]:
    return tuple(
        Tally(name=name, decisions=n, looser=looser, stricter=stricter)
        for name, (n, looser, stricter) in sorted(found.items(), key=lambda item: (-item[1][0], item[0]))
    )
