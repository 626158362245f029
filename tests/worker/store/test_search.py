"""Promises: a search of the log finds each record that fits and no other, from either end and over however many pages;
no page looks at more of a long log than it should."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from tests.worker.store.facts import calls, loose
from worker.store import search as searching
from worker.store.audit import AuditEvent, AuditLog, AuditRecord
from worker.store.database import Database
from worker.store.search import Sought, search

TEXTS = ('say "zwölf"\nor 12', "100%_\\", "zwölf")


@pytest.fixture
async def records(db: Database) -> list[AuditRecord]:
    audit = AuditLog(db)
    for event in (*calls("run_a", 3), *(loose() for _ in range(8)), *calls("run_b", 3)):
        await audit.append(event)  # one by one: what shares a commit has one time
    for n, text in enumerate(TEXTS):
        await audit.append(AuditEvent(f"text/{n}", "access.denied", "default", None, "ruth", {"said": text, "x": n}))
    await audit.append(AuditEvent("their/0", "access.denied", "others", None, "ruth", {"said": "zwölf"}))
    return await audit.page(tenant="default", limit=1000)


def says(text: str) -> Callable[[AuditRecord], bool]:
    return lambda record: text in str(record.body.get("said", ""))


def wanted(records: list[AuditRecord]) -> dict[str, tuple[Sought, list[int]]]:
    """What may be sought, and what should be found."""
    middle = records[len(records) // 2].ts
    rules: dict[str, tuple[Sought, Callable[[AuditRecord], bool]]] = {
        "all": (Sought(), lambda r: r.seq > 0),
        "run": (Sought(run="run_b"), lambda r: r.run_id == "run_b"),
        "type": (Sought(type="call.intent"), lambda r: r.type == "call.intent"),
        "actor": (Sought(actor="ruth"), lambda r: r.actor == "ruth"),
        "since": (Sought(since=middle), lambda r: r.ts >= middle),
        "until": (Sought(until=middle), lambda r: r.ts < middle),
        "span": (Sought(since=middle, until=middle + timedelta(microseconds=1)), lambda r: r.ts == middle),
        "both": (Sought(run="run_a", type="call.outcome"), lambda r: (r.run_id, r.type) == ("run_a", "call.outcome")),
        "none": (Sought(actor="nobody"), lambda r: r.seq < 0),
    }
    for n, text in enumerate(TEXTS):
        rules[f"text {n}"] = (Sought(text=text, actor="ruth"), says(text))
    return {name: (sought, [r.seq for r in records if fits(r)]) for name, (sought, fits) in rules.items()}


@pytest.mark.parametrize("newest", [False, True])
async def test_each_page_of_each_search(
    db: Database, records: list[AuditRecord], monkeypatch: pytest.MonkeyPatch, newest: bool
) -> None:
    monkeypatch.setattr(searching, "WINDOW", 4)
    monkeypatch.setattr(searching, "WINDOWS", 2)
    for name, (sought, fitting) in wanted(records).items():
        assert name == "none" or fitting
        found: list[int] = []
        span: dict[str, Any] = {}
        for _ in range(100):
            page = await search(db, "default", sought, newest=newest, limit=3, **span)
            assert len(page.records) <= 3
            found += [r.seq for r in page.records]
            if page.next is None:
                break
            span = {"before" if newest else "after": page.next}
        assert found == (fitting[::-1] if newest else fitting), name


async def test_a_page_gives_up_in_a_long_log(
    db: Database, records: list[AuditRecord], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And says where to go on; what the store finds by itself it finds at once."""
    monkeypatch.setattr(searching, "WINDOW", 4)
    monkeypatch.setattr(searching, "WINDOWS", 2)
    head = records[-1].seq + 1  # another tenant's comes last
    nobody = Sought(actor="nobody")
    assert await search(db, "default", nobody) == ([], 8)
    assert await search(db, "default", nobody, newest=True) == ([], head - 7)
    assert (await search(db, "default", Sought(run="run_b"))).next is None
    assert await search(db, "default", nobody, after=head) == ([], None)
    assert await search(db, "default", nobody, before=1, newest=True) == ([], None)
