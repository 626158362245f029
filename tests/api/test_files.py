"""Promises: uploads stream, keep their digest and stay within the limit; names cannot leave their folder; what a run
left comes down unchanged and can do nothing in a browser."""

import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from tests.api.running import Api, running
from tests.fixtures.temporal import TemporalServer


async def test_upload(operator: httpx.AsyncClient) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(40):
            yield b"x" * 65536

    response = await operator.post("/files", params={"name": "größe.log"}, content=chunks())
    assert response.status_code == 201, response.text
    found = response.json()
    assert (found["name"], found["size"]) == ("größe.log", 40 * 65536)
    assert found["sha256"] == hashlib.sha256(b"x" * 40 * 65536).hexdigest()
    assert (await operator.post("/files", params={"name": "empty"}, content=b"")).json()["size"] == 0


@pytest.mark.parametrize("name", ["", "..", "../a", "a/b", "a\\b", ".hidden", "a\nb", "x" * 201, "a\u202eb", "é" * 101])
async def test_bad_names(operator: httpx.AsyncClient, name: str) -> None:
    response = await operator.post("/files", params={"name": name}, content=b"x")
    assert response.status_code == 422, response.text
    assert response.json()["errors"][0]["field"] == "query.name"


async def test_a_nul_in_an_address(operator: httpx.AsyncClient) -> None:
    for path in "/files?name=a%00b", "/runs/run%00", "/audit?run=%00":
        assert (await operator.get(path)).status_code in {400, 403, 405}


async def test_limits(tmp_path: Path, temporal_server: TemporalServer) -> None:
    async with running(tmp_path, temporal_server.address, upload_bytes=100_000) as small:
        client = await small.client("operator")
        assert (await client.post("/files", params={"name": "fits"}, content=b"x" * 100_000)).status_code == 201

        async def endless() -> AsyncIterator[bytes]:
            for _ in range(50):
                yield b"x" * 10_000

        for content in b"x" * 100_001, endless():
            response = await client.post("/files", params={"name": "big"}, content=content)
            assert response.status_code == 413, response.text
            assert response.headers["content-type"] == "application/problem+json"
            assert response.json()["kind"] == "too_large"
        body = b'{"automation": "' + b"x" * (1 << 20) + b'"}'
        response = await client.post("/runs", content=body, headers={"Content-Type": "application/json"})
        assert (response.status_code, response.json()["kind"]) == (413, "too_large")
        assert not list((small.settings.blobs / "partial").iterdir()), "nothing half-written is left"


async def test_download(api: Api, operator: httpx.AsyncClient) -> None:
    content = b"<script>alert(1)</script>" * 30_000
    run = await api.put_artifact('deep/we"ird näme.html', content)
    listed = (await operator.get(f"/runs/{run.id}/artifacts")).json()["items"]
    assert [a["name"] for a in listed] == ['deep/we"ird näme.html']
    response = await operator.get(f"/runs/{run.id}/artifacts/deep/we%22ird%20n%C3%A4me.html")
    assert response.status_code == 200
    assert response.content == content
    digest = hashlib.sha256(content).hexdigest()
    assert response.headers["etag"] == f'"{digest}"'
    assert response.headers["content-type"] == "application/octet-stream"
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["content-disposition"] == (
        "attachment; filename=\"we_ird n_me.html\"; filename*=UTF-8''we%22ird%20n%C3%A4me.html"
    )
    again = await operator.get(
        f"/runs/{run.id}/artifacts/deep/we%22ird%20n%C3%A4me.html", headers={"If-None-Match": f'"{digest}"'}
    )
    assert (again.status_code, again.content) == (304, b"")
    for name in "none", "../../keys/pepper", "..%2f..%2fkeys%2fpepper":
        assert (await operator.get(f"/runs/{run.id}/artifacts/{name}")).status_code == 404
    unfinished = await api.put_run()
    assert (await operator.get(f"/runs/{unfinished.id}/artifacts")).json() == {"items": []}


async def test_download_goes_on_where_it_was_cut_off(api: Api, operator: httpx.AsyncClient) -> None:
    content = b"".join(number.to_bytes(4, "big") for number in range(200_000))
    run = await api.put_artifact("numbers.bin", content)
    address, tag = f"/runs/{run.id}/artifacts/numbers.bin", f'"{hashlib.sha256(content).hexdigest()}"'
    size = len(content)

    async def get(asked: str, **more: str) -> httpx.Response:
        return await operator.get(address, headers={"Range": asked, **more})

    for asked, start, end in (
        ("bytes=0-0", 0, 1), ("bytes=300000-", 300_000, size), ("bytes=-7", size - 7, size),
        ("bytes=262143-262144", 262_143, 262_145), (f"bytes=5-{size * 2}", 5, size), (f"bytes=-{size * 2}", 0, size),
    ):  # fmt: skip
        response = await get(asked, **{"If-Range": tag})
        assert (response.status_code, response.content == content[start:end]) == (206, True), asked
        assert response.headers["content-range"] == f"bytes {start}-{end - 1}/{size}"
        assert response.headers["content-length"] == str(end - start)
    for ignored in ("bytes=0-1,3-4", "lines=0-1", "bytes=-", "bytes=4-2", "bytes=a-b"):
        whole = await get(ignored)
        assert (whole.status_code, len(whole.content)) == (200, size), ignored
    assert (await get("bytes=0-0", **{"If-Range": '"another"'})).status_code == 200
    for outside in (f"bytes={size}-", "bytes=-0"):
        refused = await get(outside)
        assert (refused.status_code, refused.json()["kind"]) == (416, "range")
        assert refused.headers["content-range"] == f"bytes */{size}"
    empty = await api.put_artifact("empty", b"")
    response = await operator.get(f"/runs/{empty.id}/artifacts/empty", headers={"Range": "bytes=0-"})
    assert response.status_code == 416
