"""Promises: on a disk that is full nothing is done that cannot be recorded, the answer says what to free, and when
there is room again everything goes on with a log that is whole."""

import asyncio
import secrets

import httpx

from tests.api.running import Api, running
from tests.fixtures.disk import SmallDisk, fill
from tests.fixtures.temporal import TemporalServer
from worker.store.audit import AuditLog

BODY = {"automation": "tidy", "inputs": {"path": "in/a"}}


async def start(client: httpx.AsyncClient, key: str) -> httpx.Response:
    return await client.post("/runs", json=BODY, headers={"Idempotency-Key": key})


def is_full(response: httpx.Response) -> bool:
    """Whether it was refused for want of room; nothing else may be said to a request that is not served."""
    if response.status_code in {200, 201, 202}:
        return False
    told = response.json()
    assert (response.status_code, told["kind"]) == (503, "store_unavailable"), response.text
    assert "no room left" in told["detail"], response.text
    assert "free some space" in told["remedy"]
    assert response.headers["retry-after"]
    return True


async def test_the_log_has_no_room(small_disk: SmallDisk, temporal_server: TemporalServer) -> None:
    async with running(small_disk("12m"), temporal_server.address) as api:
        client = await api.client("admin")
        assert (await start(client, "before")).status_code == 202
        ballast = fill(api.settings.data, but=64 << 10)
        asked = 0
        while not is_full(await start(client, f"full-{asked}")):
            asked += 1
            assert asked < 2000, "the disk does not fill"
        refused = f"full-{asked}"
        answers = await asyncio.gather(*(start(client, f"{refused}-{n}") for n in range(8)))
        taken = [answer.json()["id"] for answer in answers if not is_full(answer)]
        reads = await asyncio.gather(client.get("/runs"), client.get("/audit/verify"))
        assert [(r.status_code, r.json().get("ok", True)) for r in reads] == [(200, True)] * 2, "reading needs no room"

        ballast.unlink()
        again = await start(client, refused)
        assert again.status_code == 202, again.text
        assert (await start(client, refused)).json()["id"] == again.json()["id"]
        requested = [record["run_id"] for record in await api.records("run.requested")]
        assert len(requested) == len(set(requested)), "once each"
        assert {*taken, again.json()["id"]} <= set(requested), "what was taken is on record"
        assert await whole(api)


async def test_artifacts_have_no_room(small_disk: SmallDisk, temporal_server: TemporalServer) -> None:
    async with running(small_disk("16m"), temporal_server.address) as api:
        client = await api.client("operator")
        content = secrets.token_bytes(1 << 20)
        ballast = fill(api.settings.data, but=512 << 10)
        assert is_full(await client.post("/files", params={"name": "big"}, content=content))
        assert not list((api.settings.blobs / "partial").iterdir()), "nothing half-written is left"
        ballast.unlink()
        kept = await client.post("/files", params={"name": "big"}, content=content)
        assert (kept.status_code, kept.json()["size"]) == (201, len(content))
        assert await whole(api)


async def whole(api: Api) -> bool:
    """Whether the log verifies from its beginning."""
    found = await AuditLog(api.services.database).verify()
    return found.ok and found.count > 0
