"""Appends events to the log in a transaction: what is recorded already, what may still be recorded, what is inserted.

`append` does it in the caller's transaction. `worker.store.committing` does the same, in fewer trips, for
events that need no transaction of their own.
"""

import asyncio
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import orjson
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from worker.store import chain, times
from worker.store.chain import Envelope
from worker.store.events import LATE_TYPES, closed_id
from worker.store.records import AuditEvent, AuditRecord, Row, RunAlreadyClosed
from worker.store.tables import audit_event

Answer = list[AuditRecord] | RunAlreadyClosed


@dataclass
class Request:
    """What one caller wants recorded, together or not at all."""

    events: Sequence[AuditEvent]
    bodies: Sequence[bytes]
    done: "asyncio.Future[list[AuditRecord]] | None" = None

    @classmethod
    def of(cls, events: Sequence[AuditEvent]) -> "Request":
        """Encodes the bodies: what cannot be written must not hold the lock. Raises ValueError."""
        return cls(events, [chain.body_bytes(e.body) for e in events])


async def append(conn: AsyncConnection, requests: Sequence[Request]) -> list[Answer]:
    """Append what the requests want, in order. Those that come too late for their run get the exception instead.

    The head stays locked until the transaction ends.
    """
    if not any(request.events for request in requests):
        return [[] for _ in requests]
    seq, previous = await lock_head(conn)
    asked = Asked.of(requests)
    sqlite = conn.dialect.name == "sqlite"
    found = await conn.execute(_text(KNOWN, conn), asked.parameters)
    writing = Writing(seq, previous, asked.found(found))
    answers = [writing.take(request) for request in requests]
    if writing.rows:
        if sqlite:
            await conn.execute(_text(INSERT, conn), [row._asdict() for row in writing.rows])
            await conn.execute(_text(MOVE, conn), writing.moved)
        else:
            await conn.execute(_text(INSERT, conn), writing.whole)
    return answers


@dataclass
class State:
    """What the log holds of the facts at hand, and the last number of each of their runs."""

    known: dict[str, AuditRecord] = field(default_factory=dict[str, AuditRecord])
    run_seqs: dict[str, int] = field(default_factory=dict[str, int])


@dataclass
class Asked:
    """What must be known before requests can be answered: the events themselves, `run.closed` of their runs, and each
    run's last number."""

    ids: set[str]
    runs: list[str]

    @classmethod
    def of(cls, requests: Sequence[Request]) -> "Asked":
        """For these requests."""
        events = [e for request in requests for e in request.events]
        runs = sorted({e.run_id for e in events if e.run_id is not None})
        return cls({e.event_id for e in events} | {closed_id(run_id) for run_id in runs}, runs)

    @property
    def parameters(self) -> dict[str, str]:
        """For the statement KNOWN."""
        return {"ids": json.dumps(sorted(self.ids)), "runs": json.dumps(self.runs)}

    def found(self, rows: Iterable[Sequence[Any]]) -> State:
        """What that statement found."""
        state = State(run_seqs=dict.fromkeys(self.runs, 0))
        for row in map(Row._make, rows):
            if row.event_id in self.ids:
                state.known[row.event_id] = AuditRecord(row)
            if row.run_id in state.run_seqs:
                state.run_seqs[row.run_id] = max(state.run_seqs[row.run_id], row.run_seq or 0)
        return state


@dataclass
class Writing:
    """The end of the log as it moves on with the records of a transaction."""

    seq: int
    previous: bytes
    state: State
    ts: str = field(default_factory=lambda: times.to_text(times.now()))
    """Records that share a commit are recorded at the same time."""

    @cached_property
    def rows(self) -> list[Row]:
        """What is to be inserted."""
        return []

    @property
    def whole(self) -> dict[str, Any]:
        """The rows as one value, and where the log ends with them."""
        rows = [
            {
                **row._asdict(),
                "body": row.body.decode(),
                "leaf_hash": row.leaf_hash.hex(),
                "chain_hash": row.chain_hash.hex(),
            }
            for row in self.rows
        ]
        return {"rows": orjson.dumps(rows).decode(), **self.moved}

    @property
    def moved(self) -> dict[str, Any]:
        """Where the log ends with them."""
        return {"new_seq": self.seq, "new_chain": self.previous}

    def take(self, request: Request) -> Answer:
        """Append one request's events, or none of them."""
        known = self.state.known
        closing: set[str | None] = set()
        for e in request.events:
            if e.event_id in known:
                continue
            late = e.type in LATE_TYPES or e.run_id is None
            if not late and (closed_id(str(e.run_id)) in known or e.run_id in closing):
                return RunAlreadyClosed(f"run {e.run_id} is closed: {e.type} cannot be recorded any more")
            if e.run_id is not None and e.event_id == closed_id(e.run_id):
                closing.add(e.run_id)
        for e, body in zip(request.events, request.bodies, strict=True):
            if e.event_id not in known:
                known[e.event_id] = self._record(e, body)
        return [known[e.event_id] for e in request.events]

    def _record(self, e: AuditEvent, body: bytes) -> AuditRecord:
        self.seq += 1
        run_seq = None
        if e.run_id is not None:
            run_seq = self.state.run_seqs[e.run_id] = self.state.run_seqs[e.run_id] + 1
        envelope = Envelope(e.event_id, self.ts, e.tenant, e.run_id, run_seq, e.type, e.actor, body)
        leaf = chain.leaf_hash(envelope)
        self.previous = chain.chain_hash(self.previous, self.seq, leaf)
        row = Row(self.seq, *envelope, leaf, self.previous)
        self.rows.append(row)
        return AuditRecord(row)


COLUMNS = Row._fields
_TYPES = {
    column.name: {"BIGINT": "bigint", "INTEGER": "int"}.get(str(column.type), "text") for column in audit_event.columns
}
_READ = {
    "body": "convert_to(body, 'UTF8')",
    "leaf_hash": "decode(leaf_hash, 'hex')",
    "chain_hash": "decode(chain_hash, 'hex')",
}
_ALL = ", ".join(COLUMNS)
_LAST = "(SELECT l.seq FROM audit_event l WHERE l.run_id = r.{id} ORDER BY l.run_seq DESC LIMIT 1)"
_HEAD = "SELECT seq, chain_hash FROM audit_head WHERE id = 1"
_MOVE = "UPDATE audit_head SET seq = :new_seq, chain_hash = :new_chain WHERE id = 1"

HEAD = {"sqlite": _HEAD, "postgresql": f"{_HEAD} FOR UPDATE"}
"""By dialect, parameters as `:name`. Locks the end of the log until the transaction ends."""
# Records by event id, and the last record of each run, in one statement: each statement under the lock is a round trip
# that every other writer waits for. Lists go as one value, so that their lengths make no new statements.
KNOWN = {
    "sqlite": f"SELECT {_ALL} FROM audit_event WHERE event_id IN (SELECT value FROM json_each(:ids)) UNION ALL "  # noqa: S608
    f"SELECT {_ALL} FROM audit_event WHERE seq IN (SELECT {_LAST.format(id='value')} FROM json_each(:runs) r)",
    "postgresql": f"SELECT {_ALL} FROM audit_event WHERE event_id = ANY(ARRAY("  # noqa: S608
    "SELECT json_array_elements_text(CAST(:ids AS json)))) UNION ALL "
    f"SELECT {_ALL} FROM audit_event WHERE seq = ANY(ARRAY("
    f"SELECT {_LAST.format(id='id')} FROM json_array_elements_text(CAST(:runs AS json)) AS r(id)))",
}
"""What `Asked` asks."""
INSERT = {
    "sqlite": f"INSERT INTO audit_event ({_ALL}) VALUES ({', '.join(f':{name}' for name in COLUMNS)})",  # noqa: S608
    # One value whatever the number of rows: each row on its own would be a message, each column an array to be quoted.
    "postgresql": f"WITH moved AS ({_MOVE}) INSERT INTO audit_event ({_ALL}) SELECT "  # noqa: S608
    f"{', '.join(_READ.get(name, name) for name in COLUMNS)} FROM json_to_recordset(CAST(:rows AS json)) "
    f"AS r({', '.join(f'{name} {kind}' for name, kind in _TYPES.items())})",
}
"""Takes `Writing.rows` on SQLite, followed by MOVE; `Writing.whole` on PostgreSQL, where it moves the head as well."""
MOVE = {"sqlite": _MOVE}
"""Takes `Writing.moved`."""
_AS_TEXT = {
    (id(which), dialect): sa.text(text) for which in (HEAD, KNOWN, INSERT, MOVE) for dialect, text in which.items()
}


async def lock_head(conn: AsyncConnection) -> tuple[int, bytes]:
    """Sequence and chain value of the last record; nobody else appends until the transaction ends."""
    row = (await conn.execute(_text(HEAD, conn))).one()
    return row.seq, row.chain_hash


def _text(which: dict[str, str], conn: AsyncConnection) -> sa.TextClause:
    return _AS_TEXT[id(which), conn.dialect.name]
