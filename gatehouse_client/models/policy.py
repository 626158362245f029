"""What the gate says, why, and how that is changed."""

from datetime import datetime
from typing import Any, Literal

from gatehouse_client.models.approvals import ArgumentFact, Terms
from gatehouse_client.models.catalog import Effect
from gatehouse_client.models.wire import Given, JsonObject, Told

Verdict = Literal["allow", "ask", "deny"] | str
"""What policy says of one call; the most restrictive matching rule wins, and no rule means deny."""


class Decision(Told):
    """The gate's answer. `rule` names the row that decided, or `default-deny`."""

    verdict: Verdict
    rule: str
    reason: str = ""
    approvers: str = "approver"
    terms: Terms | None = None
    grant: str | None = None
    policy_version: str


class CaseResult(Told):
    """What was said of one case."""

    place: str
    name: str
    passed: bool
    expected: str
    decision: Decision


class SimulatedChange(Told):
    """Decisions that would have been another one, alike in everything named here."""

    tool: str
    tenant: str
    before: Verdict
    before_rule: str
    after: Verdict
    after_rule: str
    looser: bool
    decisions: int
    run_count: int
    runs: tuple[str, ...]


class Clause(Told):
    """One conjunct of a condition and what came of it."""

    text: str
    holds: bool | None
    problem: str = ""


class Document(Given):
    """A file, by what it says."""

    name: str
    text: str


class RowExplained(Told):
    """One row and how it stands to the call."""

    rule: str
    verdict: Verdict
    standing: Literal["decides", "matches", "nearly"] | str
    missed: str = ""
    condition: tuple[Clause, ...] = ()
    place: str = ""


class Explanation(Told):
    """The decision, and the rows behind it, strictest first."""

    decision: Decision
    rows: tuple[RowExplained, ...]


class Facts(Given):
    """What the gate knows about a call besides the call. Every default is the most distrustful value."""

    tainted: bool = True
    arguments: tuple[ArgumentFact, ...] | None = None
    lasting: bool = True
    unlisted_target: bool = False
    calls_made: int = 0
    calls_of_tool: int = 0
    budget_left_usd: float | None = None
    now: datetime | None = None


class FieldChange(Told):
    """One field of one row, before and after."""

    field: str
    before: Any
    after: Any


class Finding(Told):
    """One thing about one rule."""

    level: Literal["error", "warning"] | str
    kind: (
        Literal[
            "unreachable",
            "shadowed",
            "duplicate",
            "never_true",
            "always_true",
            "unknown_argument",
            "wide_open",
            "loose_pattern",
        ]
        | str
    )
    rule: str
    place: str = ""
    problem: str
    remedy: str


class Lint(Told):
    """Everything found; `ok` when nothing of it is an error."""

    ok: bool
    version: str
    findings: tuple[Finding, ...]


class PolicyChange(Told):
    """That a policy came into force."""

    seq: int
    version: str
    origin: Literal["files", "proposal"] | str
    proposal_id: str | None = None
    changed_by: str
    changed_at: datetime


class RowChange(Told):
    """A row that both policies have, with other content."""

    id: str
    fields: tuple[FieldChange, ...]


class VerdictChange(Told):
    """A kind of call that would be decided otherwise."""

    tool: str
    effect: Effect
    roles: tuple[str, ...]
    tenant: str
    automation: str
    tainted: bool
    before: str
    after: str


class PolicyDiff(Told):
    """What differs. Empty when the two policies say the same in the same words."""

    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    changed: tuple[RowChange, ...] = ()
    roles: tuple[str, ...] = ()
    verdicts: tuple[VerdictChange, ...] = ()
    cut: bool = False


class PolicyDocuments(Given):
    """A policy: rules files added to the built-in one, or a version the store knows. Empty: the one in force."""

    documents: tuple[Document, ...] = ()
    whole: bool = False
    version: str | None = None


class Policy(Told):
    """What is in force, how it came to be, and what is wrong with a newer one."""

    version: str
    change: PolicyChange | None
    rules: int
    environment: str
    strict: bool
    problem: str | None


class PolicyText(Told):
    """A whole policy as one rules file."""

    version: str
    text: str


class Proposal(Told):
    """What somebody wants to be the policy."""

    id: str
    version: str
    base_seq: int
    state: Literal["open", "applied", "rejected"] | str
    proposed_by: str
    note: str
    diff: JsonObject
    created_at: datetime
    closed_by: str | None = None
    closed_at: datetime | None = None


class PolicyReport(Told):
    """What a table showed."""

    passed: bool
    results: tuple[CaseResult, ...]
    unhit: tuple[str, ...]


class Tally(Told):
    """Sums over one rule, tool or tenant."""

    name: str
    decisions: int
    looser: int
    stricter: int


class Simulation(Told):
    """What differs, and over how much it was looked at."""

    replayed: int
    changed: int
    not_replayable: dict[str, int]
    runs_touched: int
    changes: tuple[SimulatedChange, ...]
    by_rule: tuple[Tally, ...]
    by_tool: tuple[Tally, ...]
    by_tenant: tuple[Tally, ...]


class Suggestion(Told):
    """A change somebody may want to propose."""

    id: str
    rule: JsonObject
    amended: tuple[JsonObject, ...]
    tool: str
    automation: str
    tenant: str
    approvals: int
    approved_by: tuple[str, ...]
    runs: tuple[str, ...]
    simulation: Simulation


class SuggestedRule(Told):
    """A suggestion, and the whole policy it would make, ready to be proposed with `whole`."""

    suggestion: Suggestion
    version: str
    text: str
