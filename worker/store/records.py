"""What is put into the audit log, and what comes out of it. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any, NamedTuple

from tools.contract import JsonObject
from worker.store import chain, times
from worker.store.emptying import EMPTY


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


class Row(NamedTuple):
    """A record as it is stored, its columns in the table's order."""

    seq: int
    event_id: str
    ts: str
    tenant: str
    run_id: str | None
    run_seq: int | None
    type: str
    actor: str
    body: bytes
    leaf_hash: bytes
    chain_hash: bytes


@dataclass(frozen=True)
class AuditRecord:
    """A recorded fact, read from its row as it is asked for: whoever appends seldom looks at what was stored."""

    row: Row

    @property
    def seq(self) -> int:
        """Dense over the log."""
        return self.row.seq

    @property
    def event_id(self) -> str:
        """Names the fact."""
        return self.row.event_id

    @cached_property
    def ts(self) -> datetime:
        """When it was recorded, UTC, as the clock had it."""
        return times.from_text(self.row.ts)

    @property
    def tenant(self) -> str:
        """Whose it is."""
        return self.row.tenant

    @property
    def run_id(self) -> str | None:
        """The run it belongs to, if any."""
        return self.row.run_id

    @property
    def run_seq(self) -> int | None:
        """Dense within the run; None without one."""
        return self.row.run_seq

    @property
    def type(self) -> str:
        """One of `worker.store.events.EVENT_TYPES`."""
        return self.row.type

    @property
    def actor(self) -> str:
        """Who did it."""
        return self.row.actor

    @cached_property
    def body(self) -> JsonObject:
        """What is recorded; empty when retention removed it."""
        return {} if self.row.body == EMPTY else chain.read_body(self.row.body)

    @property
    def leaf_hash(self) -> str:
        """Hex."""
        return self.row.leaf_hash.hex()

    @property
    def chain_hash(self) -> str:
        """Hex."""
        return self.row.chain_hash.hex()


def read_rows(rows: Iterable[Mapping[Any, Any]]) -> list[AuditRecord]:
    """The records of stored rows."""
    return [read_row(row) for row in rows]


def read_row(row: Mapping[Any, Any]) -> AuditRecord:
    """The record of a stored row."""
    return AuditRecord(Row(**{name: row[name] for name in Row._fields}))
