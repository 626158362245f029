"""Finding records of the audit log: by run, type, actor, time and a text, from either end, page by page.

Only tenant and run are indexed, so a search for anything else looks at many records and may find none. It goes through
the log in windows, gives up after so many records, and says where to go on: no page makes anybody wait for a long log.
"""

import json
from collections.abc import Iterator
from datetime import datetime
from itertools import islice
from typing import Final, NamedTuple

import sqlalchemy as sa

from tools.contract import Wire
from worker.store import times
from worker.store.database import Database
from worker.store.head import last_seq
from worker.store.records import AuditRecord, read_rows
from worker.store.tables import audit_event

WINDOW: Final = 50_000
"""Records that one statement looks at."""
WINDOWS: Final = 10
"""That one page looks at."""


class Sought(Wire):
    """What is looked for; what is None does not matter."""

    run: str | None = None
    type: str | None = None
    actor: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    """Exclusive."""
    text: str | None = None
    """Anywhere in the body, in a name or a value, exactly as it is written there."""

    @property
    def indexed(self) -> bool:
        """Whether the store finds the records without looking at others."""
        return self.run is not None or self == Sought()


class Found(NamedTuple):
    """One page. `next` is where another begins, the `after` (or `before`) to ask with; None at the end."""

    records: list[AuditRecord]
    next: int | None


async def search(
    db: Database, tenant: str, sought: Sought, *, after: int = 0, before: int | None = None, newest: bool = False,
    limit: int = 100,
) -> Found:  # fmt: skip
    """The tenant's records with `after` < seq < `before`, oldest or `newest` first. One with fewer than `limit` records
    need not be the last page. Raises StoreUnavailable."""
    head = await last_seq(db)
    last = head if before is None else min(head, before - 1)
    windows = _windows(after, last, max(1, last - after) if sought.indexed else WINDOW, newest)
    found: list[AuditRecord] = []
    edge = None
    async with db.read() as conn:
        for low, high in islice(windows, WINDOWS):
            query = _query(tenant, sought, low, high, newest, conn.dialect.name)
            found += read_rows((await conn.execute(query.limit(limit - len(found)))).mappings())
            if len(found) == limit:
                return Found(found, found[-1].seq)
            edge = low if newest else high
    if edge is None or edge == (after if newest else last):
        return Found(found, None)
    return Found(found, edge + 1 if newest else edge)


def _windows(after: int, last: int, step: int, newest: bool) -> Iterator[tuple[int, int]]:
    """`after` < seq <= `last` in parts, in the order they are looked at."""
    if newest:
        return ((max(after, end - step), end) for end in range(last, after, -step))
    return ((start, min(start + step, last)) for start in range(after, last, step))


def _query(
    tenant: str, sought: Sought, low: int, high: int, newest: bool, dialect: str
) -> sa.Select[tuple[object, ...]]:  # fmt: skip
    at = audit_event.c
    query = sa.select(audit_event).where(at.tenant == tenant, at.seq > low, at.seq <= high)
    query = query.order_by(at.seq.desc() if newest else at.seq)
    for column, wanted in (at.run_id, sought.run), (at.type, sought.type), (at.actor, sought.actor):
        if wanted is not None:
            query = query.where(column == wanted)
    if sought.since is not None:
        query = query.where(at.ts >= times.to_text(sought.since))
    if sought.until is not None:
        query = query.where(at.ts < times.to_text(sought.until))
    return query if sought.text is None else query.where(_in_body(sought.text, dialect))


def _in_body(text: str, dialect: str) -> sa.ColumnElement[bool]:
    """Bodies are JSON as bytes, so the text is looked for as JSON writes it; both databases tell where it is, or 0."""
    position = sa.func.instr if dialect == "sqlite" else sa.func.pg_catalog.position
    return position(audit_event.c.body, sa.literal(in_json(text).encode(), sa.LargeBinary())) > 0


def in_json(text: str) -> str:
    """The text as it stands within a JSON string."""
    return json.dumps(text, ensure_ascii=False)[1:-1]
