"""The recording activities over a real store and the real policy engine."""

from pathlib import Path

import pytest

from policies.engine import PolicyEngine
from policies.rules import load_rules, rule_paths
from tests.worker.activities.payloads import KEYS, Job
from worker.activities.gate import GateActivities
from worker.activities.records import RecordActivities
from worker.store.approvals import Approvals
from worker.store.audit import AuditLog
from worker.store.database import Database
from worker.store.ledger import Ledger
from worker.store.runs import Runs

TOOLS = {"read_file", "write_file", "delete_files", "http_request"}


@pytest.fixture(scope="session")
def engine() -> PolicyEngine:
    return PolicyEngine(load_rules(rule_paths(None), TOOLS))


@pytest.fixture
def stricter(tmp_path: Path) -> PolicyEngine:
    """The same policy, changed since: reading is denied too."""
    rules = tmp_path / "rules.yaml"
    rules.write_text(
        "apiVersion: gatehouse/v1\n"
        "rules:\n"
        "  - {id: nothing, roles: ['*'], effects: [read], verdict: deny, reason: no}\n"
    )
    return PolicyEngine(load_rules([*rule_paths(None), rules], TOOLS))


@pytest.fixture
def runs(db: Database) -> Runs:
    return Runs(db)


@pytest.fixture
def approvals(db: Database) -> Approvals:
    return Approvals(db)


@pytest.fixture
def records(audit: AuditLog, runs: Runs, approvals: Approvals, db: Database) -> RecordActivities:
    return RecordActivities(audit, runs, approvals, Ledger(db, audit), KEYS)


@pytest.fixture
def gate(engine: PolicyEngine, audit: AuditLog) -> GateActivities:
    return GateActivities(engine, audit)


@pytest.fixture
async def job(runs: Runs) -> Job:
    """A run that was asked for."""
    new = Job.new()
    await runs.insert(new.asked())
    return new
