"""What is put into the audit log, and what comes out of it. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from tools.contract import JsonObject
from worker.store import chain, times


class UnknownEventType(ValueError):  # noqa: N818  (says what is the case)
    """The type is not in the catalogue (`worker.store.events.EVENT_TYPES`)."""


class RunAlreadyClosed(Exception):  # noqa: N818
    """The run's `run.closed` is recorded: nothing but late refusals may follow it."""


@dataclass(frozen=True)
class AuditEvent:
    """A fact to record. `event_id` names the fact, not the report of it: `<run id>/call/<call id>/intent`."""

    event_id: str
    type: str
    tenant: str
    run_id: str | None
    actor: str
    """Who did it: a principal's id, or `system:<part>` when no person or service did."""
    body: JsonObject


@dataclass(frozen=True)
class AuditRecord:
    """A recorded fact. `seq` is dense over the log, `run_seq` dense within the run (None without a run)."""

    seq: int
    event_id: str
    ts: datetime
    tenant: str
    run_id: str | None
    run_seq: int | None
    type: str
    actor: str
    body: JsonObject
    leaf_hash: str
    chain_hash: str


def read_rows(rows: Iterable[Mapping[Any, Any]]) -> list[AuditRecord]:
    """The records of stored rows."""
    return [read_row(row) for row in rows]


def read_row(row: Mapping[Any, Any]) -> AuditRecord:
    """The record of a stored row."""
    return AuditRecord(
        seq=row["seq"],
        event_id=row["event_id"],
        ts=times.from_text(row["ts"]),
        tenant=row["tenant"],
        run_id=row["run_id"],
        run_seq=row["run_seq"],
        type=row["type"],
        actor=row["actor"],
        body=chain.read_body(row["body"]),
        leaf_hash=row["leaf_hash"].hex(),
        chain_hash=row["chain_hash"].hex(),
    )
