"""The readable account at the end of the demonstration, and the check that all of it happened."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from api.commands.account import CallAccount
from api.commands.output import paint, put, put_fields, put_table, span, visible
from worker.settings import Settings

if TYPE_CHECKING:
    from deploy.demo import Told

Obj = dict[str, Any]
EXCERPT_LINES = 16


@dataclass(frozen=True)
class Verified:
    """What verifying the audit log found."""

    ok: bool
    count: int
    head: str
    problem: str


def tell(
    settings: Settings,
    found: dict[str, str],
    files: Sequence[Path],
    runs: "tuple[Told, Told]",
    verified: Verified,
    clock: dict[str, float],
) -> int:
    """Print everything on stdout; 0 when every promise was kept."""
    put(f"\n{'=' * 100}\nWhat happened\n{'=' * 100}")
    for number, told in enumerate(runs, 1):
        _tell_run(number, told, files)
    put(paint("\nAudit", "bold"))
    put_fields([("verify", "ok" if verified.ok else "fail"), ("records", verified.count), ("head", verified.head)])
    put_fields([("problem", verified.problem)])
    put(paint("\nWhere to look", "bold"))
    key = settings.keys / "demo-operator.key"
    put_fields(
        [
            ("console", f"{found['api']}/console"),
            ("sign in with", str(settings.keys / "demo-reviewer.key")),
            ("API", f"{found['api']}/api/v1"),
            ("OpenAPI page", f"{found['api']}/api/docs"),
            ("Temporal UI", found.get("temporal_ui", "")),
            *((f"run {n} there", told.run["links"]["temporal"]) for n, told in enumerate(runs, 1)),
            ("command line", f".venv/bin/gatehouse --key-file {key} runs list"),
            ("stop it", "make down"),
        ]
    )
    put(paint("\nWhere the time went", "bold"))
    put("  ".join(f"{name} {span(seconds)}" for name, seconds in clock.items()))
    return _check(promises(runs, verified, rotated=len(files) > 1))


def _tell_run(number: int, told: "Told", files: Sequence[Path]) -> None:
    run = told.run
    result: Obj = run.get("result") or {}
    put(paint(f"\nRun {number}: {run['id']}", "bold"))
    names = ", ".join(f"{f.name} ({f.stat().st_size:,} bytes)" for f in files)
    put_fields(
        [
            ("asked", f"{run['automation']} {run['automation_version']}, by {run['requester']}"),
            ("files", names),
            ("took", span(told.seconds)),
            ("ended", run["phase"]),
            ("answered by", " ".join(filter(None, (f"rung {run['rung']}", result.get("model"))))),
        ]
    )
    degraded: list[str] = result.get("degraded") or []
    for reason in degraded:
        put_fields([("gave up", reason)])
    put("")
    columns = ["tool", "asked by", "verdict", "rule", "answer", "outcome", "took"]
    put_table(columns, [_row(call) for call in told.story.calls.values()], "no tool was called")
    for question in told.story.questions.values():
        waited = (_time(question.closed_at) - _time(question.asked_at)).total_seconds() if question.closed_at else 0
        put("")
        put_fields(
            [
                ("waited", f"{question.about}, for a person with the role {question.role}"),
                ("answered", f"{question.state} by {question.by} after {span(waited)}"),
                ("because", question.reason),
            ]
        )
    output: Obj = result.get("output") or {}
    put("")
    put_fields([(name, value) for name, value in output.items()])
    lines = [line for line in told.report.splitlines() if line.strip()]
    put(paint(f"\n  report.md ({len(told.report.encode())} bytes), its first lines:", "dim"))
    for line in lines[:EXCERPT_LINES]:
        put(f"  | {visible(line)[:140]}")
    if len(lines) > EXCERPT_LINES:
        put(f"  | ... {len(lines) - EXCERPT_LINES} more: gatehouse runs artifacts {run['id']} --get report.md -o -")


def _row(call: CallAccount) -> tuple[object, ...]:
    outcome = f"{call.outcome} ({call.error})" if call.error else call.outcome
    return (call.tool, call.asked_by, call.verdict, call.rule, call.answer, outcome, span(call.duration_ms / 1000))


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)


def promises(runs: "tuple[Told, Told]", verified: Verified, *, rotated: bool) -> dict[str, bool]:
    """Everything the demonstration claims -> whether it is so."""
    first, second = runs
    kept = {
        "run 1 succeeded on a model's rung": first.run["phase"] == "succeeded"
        and first.run["rung"] in ("model", "fallback_model"),
        "run 2 succeeded on the rules rung": second.run["phase"] == "succeeded" and second.run["rung"] == "rules",
        "run 2 says why no model answered": bool(second.run["result"] and second.run["result"].get("degraded")),
        "every call has a verdict, a rule and an outcome": all(
            c.verdict and c.rule and c.outcome for t in runs for c in t.story.calls.values()
        ),
        "tools really ran": all(any(c.outcome == "succeeded" for c in t.story.calls.values()) for t in runs),
        "each run wrote its report": all(t.report.strip() for t in runs),
        "the audit log verifies": verified.ok and verified.count >= sum(t.story.records for t in runs),
        "each run's record is complete": all(
            t.story.closed is not None and t.story.closed.get("records") == t.story.records for t in runs
        ),
    }
    if rotated:
        kept["run 1 waited for the reviewer, who approved; then it was deleted"] = _deletion(first) == (
            "ask", "approved by demo-reviewer", "succeeded",
        )  # fmt: skip
        kept["run 2 waited for the reviewer, who denied; nothing was deleted"] = _deletion(second) == (
            "ask", "denied by demo-reviewer", "denied",
        )  # fmt: skip
    return kept


def _deletion(told: "Told") -> tuple[str, str, str]:
    calls = [c for c in told.story.calls.values() if c.tool == "delete_files"]
    return (calls[0].verdict, calls[0].answer, calls[0].outcome) if len(calls) == 1 else ("", "", "")


def _check(kept: dict[str, bool]) -> int:
    put(paint("\nDid all of it happen?", "bold"))
    for promise, is_so in kept.items():
        put(f"  {paint('yes', 'green') if is_so else paint('NO ', 'red')}  {promise}")
    return 0 if all(kept.values()) else 1
