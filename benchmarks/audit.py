"""What a proof costs: recording a tool call against one plain insert per transaction, on the same database.

Rounds of each alternate within one run, so that a busy machine slows all alike; trust the ratios. Measured are

- `bare`    one INSERT of a row of the same size, committed durably
- `append`  one audit record: head locked, chained, committed durably
- `call`    a call's whole way through the store: `call.open` (intent and decision, two commits), the ledger's claim,
            and `settle` (result and outcome together)
- `append_32`, `bare_32`   one of 32 callers at once, in this process: records that come together share a commit
- `append_p50`   how long each of these 32 waits for its own record
- `verify`, `verify_export`   checking a record of the stored log, and of an export against its anchor

    python -m benchmarks.audit [--rounds N] [--database sqlite|postgresql]
"""

import argparse
import asyncio
import json
import os
import statistics
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
from worker.store.checking import Verification
from worker.store.checkpoints import Publisher, public_keys
from worker.store.database import Database
from worker.store.events import outcome_body, outcome_id
from worker.store.ids import new_id
from worker.store.keyring import open_generated
from worker.store.ledger import Ledger
from worker.store.offline import verify_export
from worker.store.verification import verify_blocking

CALLERS = 32
VERIFIED = 20_000

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
    """Processor milliseconds for checking one record; the machine may be busy with other things meanwhile."""
    log = AuditLog(db)
    for n in range(VERIFIED // 500):
        run = new_id("run")
        await log.append(*(fact(run, 500 * n + m, words="x" * 300) for m in range(500)))
    with tempfile.TemporaryDirectory() as folder:
        where = Path(folder)
        Publisher(db, where / "keys", where / "anchor").publish()
        export = where / "log.jsonl"
        export.write_bytes(b"".join([line async for line in log.export()]))
        checks: dict[str, Callable[[], Verification]] = {
            "verify": lambda: verify_blocking(db),
            "verify_export": lambda: verify_export(export, public_keys(where / "keys"), where / "anchor"),
        }
        taken: dict[str, float] = {}
        for name, check in checks.items():
            start = time.process_time()
            found = check()
            taken[name] = round((time.process_time() - start) * 1000 / found.count, 5)
            if not found.ok:
                raise RuntimeError(f"the log does not verify: {found.problem}")
    return taken


def main() -> None:
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
        print(f"{name:44} {value:8.3f} ms")
    for name, value in ratios.items():
        print(f"{name:44} {value:8.2f} x")
    for name, value in rates.items():
        print(f"{name:44} {value:8,} / s")
    load = [round(value, 2) for value in os.getloadavg()]
    print(json.dumps({"name": "audit", "medians": medians, "ratios": ratios, "rates": rates, "load": load}))


def _bare(name: str) -> str:
    """The bare step a step is compared with."""
    database, step = name.split(".")
    return f"{database}.bare_{CALLERS}_ms" if step.endswith(f"_{CALLERS}_ms") else f"{database}.bare_ms"


if __name__ == "__main__":
    main()
