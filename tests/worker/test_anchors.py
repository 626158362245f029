"""Copies of the anchor are the anchor: in order, whole, caught up after an outage."""

import asyncio
import socket
from pathlib import Path

import pytest
import structlog

from tests.fixtures.receivers import receiver
from tests.fixtures.s3 import S3Server
from tests.worker.store.facts import fact
from worker.anchors import Bucket, Copies, Hook, Syslog
from worker.store import anchor
from worker.store.audit import AuditLog
from worker.store.checkpoints import Publisher, public_keys

pytestmark = pytest.mark.parametrize("backend", ["sqlite"])


class House:
    def __init__(self, audit: AuditLog, folder: Path) -> None:
        self.audit = audit
        self.file = folder / "anchor.jsonl"
        self.keys = folder / "keys"
        self.publisher = Publisher(audit.db, self.keys, self.file)
        self.runs = 0

    async def publish(self) -> None:
        self.runs += 1
        await self.audit.append(fact("run_a", self.runs))
        await asyncio.to_thread(self.publisher.publish)


@pytest.fixture
def house(audit: AuditLog, tmp_path: Path) -> House:
    return House(audit, tmp_path)


async def test_a_bucket_holds_what_the_file_holds(house: House, s3_server: S3Server, tmp_path: Path) -> None:
    await house.publish()
    await Copies(house.file, Bucket(s3_server.bucket("anchor"))).catch_up()
    await house.publish()
    await asyncio.to_thread(house.publisher.rotate)
    again = Copies(house.file, Bucket(s3_server.bucket("anchor")))
    await again.catch_up()
    await house.publish()
    await again.catch_up()
    objects = sorted((s3_server.folder / "anchor").iterdir())
    joined = b"".join(path.read_bytes() for path in objects)
    assert joined == house.file.read_bytes()
    (tmp_path / "joined").write_bytes(joined)
    assert anchor.read(tmp_path / "joined", public_keys(house.keys)).size == 3


async def test_a_bucket_that_is_not_there_is_told_of_and_holds_nothing_up(house: House, s3_server: S3Server) -> None:
    await house.publish()
    with structlog.testing.capture_logs() as logs:
        await Copies(house.file, Bucket(s3_server.bucket("anchor", secret="wrong"))).catch_up()
    assert [entry["event"] for entry in logs] == ["audit.not_copied"]


async def test_a_webhook_gets_every_line_in_order_also_after_an_outage(house: House) -> None:
    async with receiver(answers=["503 Service Unavailable"]) as hook:
        copied = Copies(house.file, Hook(f"http://127.0.0.1:{hook.port}/in"))
        await house.publish()
        await copied.catch_up()
        await house.publish()
        await copied.catch_up()
        await copied.catch_up()
    lines = house.file.read_bytes().splitlines(keepends=True)
    assert [got.body for got in hook.got] == [lines[0], lines[0], lines[1]]


async def test_a_syslog_server_gets_the_signed_note(house: House) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(30)
        await house.publish()
        await Copies(house.file, Syslog(f"udp://127.0.0.1:{server.getsockname()[1]}")).catch_up()
        message = (await asyncio.to_thread(server.recv, 65536)).decode()
    assert message.startswith("<109>1 - ")
    assert "\\n1\\n" in message
    with pytest.raises(ValueError, match="syslog"):
        Syslog("tcp://127.0.0.1")
