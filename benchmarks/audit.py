"""What a proof costs: recording a tool call against one plain insert per transaction, on the same database.

Rounds of each alternate within one run, so that a busy machine slows all alike; trust the ratios. Measured are

- `bare`    one INSERT of a row of the same size, committed durably
- `append`  one audit record: head locked, chained, committed durably
- `call`    a call's whole way through the store: `call.open` (intent and decision, two commits), the ledger's claim,
            and `settle` (result and outcome together)
- `append_32`, `bare_32`   one of 32 callers at once, in this process: records that come together share a commit
- `append_p50`   how long each of these 32 waits for its own record
- `verify`   checking a record of the stored log, in processor time of this process; the best of some turns
- `verify_export`   checking a record of an export against its anchor, by the clock, in a process of its own that uses
                    every processor; the best of some turns

Exit status 1 when a limit is not held.

    python -m benchmarks.audit [--rounds N] [--database sqlite|postgresql]
"""

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import sqlalchemy as sa

from policies.engine import PolicyEngine
from policies.rules import load_rules, rule_paths
from tests.fixtures import postgres
from tests.worker.activities.payloads import Job
from tests.worker.store.facts import fact
from tools.contract import Outcome, ToolResult
from worker.activities.gate import GateActivities
from worker.store.audit import AuditEvent, AuditLog
from worker.store.checkpoints import Publisher
from worker.store.database import Database
from worker.store.events import outcome_body, outcome_id
from worker.store.ids import new_id
from worker.store.keyring import open_generated
from worker.store.ledger import Ledger
from worker.store.verification import verify_blocking

CALLERS = 32
VERIFIED = 40_000
LIMITS = {"append_p50_ms": 3.0, f"times_faster_{CALLERS}": 5.0, "verify": 100_000.0, "verify_export": 100_000.0}
"""At most so many milliseconds; at least so many times as fast as plain inserts; at least so many records a second."""
_EXPORT = """
import sys, time, pathlib
from worker.store import checkpoints, offline
export, keys, anchor = map(pathlib.Path, sys.argv[1:])
start = time.perf_counter()
found = offline.verify_export(export, checkpoints.public_keys(keys), anchor)
print(time.perf_counter() - start, found.count, found.ok)
"""

Step = Callable[[], Awaitable[object]]


def steps(db: Database, waits: list[float]) -> dict[str, Step]:
    """What is measured, by name. How long each of many callers waited for its record goes to `waits`."""
    audit = AuditLog(db)
    ledger = Ledger(db, audit)
    gate = GateActivities(PolicyEngine(load_rules(rule_paths(None), {"read_file", "http_request"})), audit)
    insert = sa.text("INSERT INTO bare (id, ts, kind, body) VALUES (:id, :ts, :kind, :body)")
    result = ToolResult(outcome=Outcome.SUCCEEDED, content="x" * 400)

    async def bare() -> None:
        row = {"id": new_id("bare"), "ts": "2026-11-22T18:00:00.000000Z", "kind": "bare", "body": b"x" * 400}
        async with db.begin() as conn:
            await conn.execute(insert, row)

    async def append() -> None:
        event = fact(new_id("run"), 1, words="x" * 300)
        await audit.append(event)

    async def call() -> None:
        job = Job.new()
        await gate.open_call(job.call())
        key = f"{job.id}/c1"
        await ledger.claim(key, generation=1, tool="read_file", attempt=1, owner="benchmark")
        body = outcome_body(call_id="c1", tool="read_file", key=key, result=result)
        event = AuditEvent(outcome_id(job.id, "c1"), "call.outcome", "default", job.id, "system:sandbox", body)
        await ledger.settle(key, result, event)

    async def waited() -> None:
        start = time.perf_counter()
        await append()
        waits.append((time.perf_counter() - start) * 1000)

    async def at_once(step: Step) -> None:
        await asyncio.gather(*(step() for _ in range(CALLERS)))

    return {
        "bare": bare,
        "append": append,
        "call": call,
        f"bare_{CALLERS}": lambda: at_once(bare),
        f"append_{CALLERS}": lambda: at_once(waited),
    }


async def measure(url: str, rounds: int) -> dict[str, float]:
    """Median milliseconds of each step; of the steps of many callers, per caller."""
    with tempfile.TemporaryDirectory() as keys:
        db = Database(url, open_generated(Path(keys) / "data.keys"))
    await db.migrate()
    async with db.begin() as conn:
        kind = "BLOB" if db.dialect == "sqlite" else "BYTEA"
        await conn.execute(sa.text(f"CREATE TABLE bare (id TEXT PRIMARY KEY, ts TEXT, kind TEXT, body {kind})"))
    waits: list[float] = []
    measured = steps(db, waits)
    taken: dict[str, list[float]] = {name: [] for name in measured}
    for turn in range(rounds + 5):
        for name, step in measured.items():
            start = time.perf_counter()
            await step()
            if turn >= 5:  # the first ones compile statements and open connections
                taken[name].append((time.perf_counter() - start) * 1000)
    medians = {
        name: round(statistics.median(values) / (CALLERS if name.endswith(f"_{CALLERS}") else 1), 4)
        for name, values in taken.items()
    }
    medians["append_p50"] = round(statistics.median(waits), 3)
    medians |= await _verifying(db)
    await db.close()
    return medians


async def _verifying(db: Database) -> dict[str, float]:
    """Milliseconds for checking one record."""
    log = AuditLog(db)
    for n in range(VERIFIED // 500):
        run = new_id("run")
        await log.append(*(fact(run, 500 * n + m, words="x" * 300) for m in range(500)))
    with tempfile.TemporaryDirectory() as folder:
        where = Path(folder)
        Publisher(db, where / "keys", where / "anchor").publish()
        export = where / "log.jsonl"
        export.write_bytes(b"".join([line async for line in log.export()]))
        records = export.read_bytes().count(b"\n")
        best = {"verify": min([_verified(db, records) for _ in range(5)])}
        best["verify_export"] = min([_export_verified(records, export, where) for _ in range(5)])
    return {name: round(seconds * 1000 / records, 5) for name, seconds in best.items()}


def _verified(db: Database, records: int) -> float:
    """Processor seconds that it took to verify the stored log."""
    start = time.process_time()
    found = verify_blocking(db)
    taken = time.process_time() - start
    if (found.count, found.ok) != (records, True):
        raise RuntimeError(f"the log does not verify: {found.problem}")
    return taken


def _export_verified(records: int, export: Path, where: Path) -> float:
    """Seconds that a process of its own took to verify the export."""
    command = [sys.executable, "-c", _EXPORT, export, where / "keys", where / "anchor"]
    told = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    if told[1:] != [str(records), "True"]:
        raise RuntimeError("the export does not verify")
    return float(told[0])


def main() -> int:
    """Measure on each database, print a table and the JSON line."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    options.add_argument("--rounds", type=int, default=150)
    options.add_argument("--database", choices=("sqlite", "postgresql"))
    chosen = options.parse_args()
    medians: dict[str, float] = {}
    for database in [chosen.database] if chosen.database else ["sqlite", "postgresql"]:
        with tempfile.TemporaryDirectory() as folder:
            if database == "sqlite":
                found = asyncio.run(measure(f"sqlite:///{Path(folder) / 'bench.db'}", chosen.rounds))
            else:
                url, stop = postgres.start(durable=True)
                try:
                    found = asyncio.run(measure(url, chosen.rounds))
                finally:
                    stop()
        medians |= {f"{database}.{name}_ms": value for name, value in found.items()}
    ratios = {
        f"{name.removesuffix('_ms')}/bare": round(value / medians[_bare(name)], 3)
        for name, value in medians.items()
        if _bare(name) != name and "verify" not in name and "p50" not in name
    }
    ratios |= {
        f"{database}.times_faster_{CALLERS}": round(
            medians[f"{database}.bare_{CALLERS}_ms"] / medians[f"{database}.append_{CALLERS}_ms"], 1
        )
        for database in ("sqlite", "postgresql")
        if f"{database}.bare_ms" in medians
    }
    rates = {
        f"{name.removesuffix('_ms')}_records_per_s": round(1000 / value)
        for name, value in medians.items()
        if "verify" in name
    }
    for name, value in medians.items():
        print(f"{name:44} {value:8.3f} ms{_limit(name, value)}")
    for name, value in ratios.items():
        print(f"{name:44} {value:8.2f} x{_limit(name, value)}")
    for name, value in rates.items():
        print(f"{name:44} {value:8,} / s{_limit(name, value)}")
    load = [round(value, 2) for value in os.getloadavg()]
    missed = [name for name, value in (medians | ratios | rates).items() if not _holds(name, value)]
    found = {"name": "audit", "medians": medians, "ratios": ratios, "rates": rates, "load": load}
    print(json.dumps({**found, "limits": LIMITS, "missed": missed, "holds": not missed}))
    return 1 if missed else 0


def _limit(name: str, value: float) -> str:
    """What is asked of that number, and how it stands to it."""
    limit = LIMITS.get(_asked(name))
    if limit is None:
        return ""
    sign = "at most" if name.endswith("_ms") else "at least"
    return f"   limit {sign} {limit:,g}, ratio {value / limit:.2f}: {'held' if _holds(name, value) else 'MISSED'}"


def _holds(name: str, value: float) -> bool:
    limit = LIMITS.get(_asked(name))
    return limit is None or (value <= limit if name.endswith("_ms") else value >= limit)


def _asked(name: str) -> str:
    return name.partition(".")[2].removesuffix("_records_per_s")


def _bare(name: str) -> str:
    """The bare step a step is compared with."""
    database, step = name.split(".")
    return f"{database}.bare_{CALLERS}_ms" if step.endswith(f"_{CALLERS}_ms") else f"{database}.bare_ms"


if __name__ == "__main__":
    sys.exit(main())
