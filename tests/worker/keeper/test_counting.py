"""Promise: a monitor sees from outside what nobody was told and how long that has been so."""

import httpx

from tests.fixtures.temporal import free_port
from tests.worker.notify.test_senders import asked
from worker import metrics
from worker.keeper.__main__ import Counting
from worker.store.database import Database
from worker.store.outbox import Outbox
from worker.store.stops import Stops


async def test_what_was_not_told_shows(db: Database) -> None:
    address = f"127.0.0.1:{free_port()}"
    async with db.begin() as conn:
        await Outbox(db).add(conn, asked())
    runtime = metrics.runtime(address)
    await Counting(Outbox(db), Stops(db), metrics.Metrics(runtime.metric_meter)).look()
    async with httpx.AsyncClient(timeout=60) as client:
        told = (await client.get(f"http://{address}/metrics")).text
    shown = dict(line.rsplit(" ", 1) for line in told.splitlines() if line.startswith("gatehouse_"))
    level = {name.partition("{")[0]: float(value) for name, value in shown.items()}
    assert level["gatehouse_notices_pending"] == 1
    assert level["gatehouse_notices_dead"] == 0
    assert level["gatehouse_notices_oldest_seconds"] > 3600
    assert level["gatehouse_stops_unconfirmed"] == 0
