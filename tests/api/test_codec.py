"""The Temporal UI shows payloads to those who may read histories: of their tenant, redacted, on record. Nobody else
gets more than lies in Temporal anyway."""

import asyncio
import base64
import json
import subprocess
from collections.abc import AsyncIterator

import httpx
import pytest
from google.protobuf.json_format import MessageToDict
from temporalio.api.common.v1 import Payload, Payloads
from temporalio.client import WorkflowHandle
from temporalio.converter import WorkflowSerializationContext

from tests.api.running import Api, Json
from tests.fixtures.temporal import BINARY
from worker import temporal
from worker.codec import ENCODING

WORD, SECRET = "Valparaiso", "ghp_" + "a1B2" * 9


@pytest.fixture(scope="module")
async def payloads(api: Api) -> AsyncIterator[list[Json]]:
    """Payloads of a run's start, as they lie in Temporal."""
    operator = await api.client("operator")
    asked = {"automation": "tidy", "inputs": {"path": f"in/{WORD} {SECRET}"}}
    run = (await operator.post("/runs", json=asked)).json()
    client = await api.services.gateway.client()
    handle: WorkflowHandle[object, object] = client.get_workflow_handle(run["id"])
    history = await handle.fetch_history()
    started = history.events[0].workflow_execution_started_event_attributes
    sent = MessageToDict(Payloads(payloads=[*started.input.payloads, history.events[0].user_metadata.details]))
    api.keys["run of the codec"] = run["id"]
    yield sent["payloads"]
    await handle.terminate()


async def decode(client: httpx.AsyncClient, payloads: list[Json], **headers: str) -> list[Json]:
    answer = await client.post("/codec/decode", json={"payloads": payloads}, headers=headers)
    assert answer.status_code == 200, answer.text
    return answer.json()["payloads"]


def text(payloads: list[Json]) -> str:
    return " ".join(base64.b64decode(payload["data"]).decode(errors="replace") for payload in payloads)


async def test_who_may_reads_them_redacted_and_it_is_on_record(api: Api, payloads: list[Json]) -> None:
    assert WORD not in text(payloads)
    shown = await decode(await api.client("auditor"), payloads, **{"X-Namespace": api.settings.temporal_namespace})
    assert len(shown) == len(payloads) == 2
    assert WORD in text(shown)
    assert "for `operator`" in text(shown[1:])
    assert SECRET not in text(shown)
    record = (await api.records("history.decoded"))[-1]
    assert (record["actor"], record["runs"], record["read"], record["left"]) == (
        "auditor", [api.keys["run of the codec"]], 2, 0,
    )  # fmt: skip


async def test_another_tenant_gets_back_what_it_sent(api: Api, payloads: list[Json]) -> None:
    stranger = await api.client("auditor@elsewhere", "auditor", "admin")
    assert await decode(stranger, payloads) == payloads
    relabelled = json.loads(json.dumps(payloads))
    for payload in relabelled:
        payload["metadata"]["gatehouse-tenant"] = base64.b64encode(b"elsewhere").decode()
    assert await decode(stranger, relabelled) == relabelled
    unlabelled = json.loads(json.dumps(payloads))
    for payload in unlabelled:
        payload["metadata"]["gatehouse-tenant"] = ""
    assert await decode(stranger, unlabelled) == unlabelled
    record = (await api.records("history.decoded"))[-1]
    assert (record["tenant"], record["runs"], record["left"]) == ("elsewhere", [], 2)


async def test_a_claim_is_followed_and_reads_no_other_blob(api: Api) -> None:
    blobs = api.services.blobs
    client = await api.services.gateway.client()
    temporal.belongs(client, "run_claimed", "default")
    context = WorkflowSerializationContext(client.namespace, "run_claimed")
    codec = client.data_converter.with_context(context).payload_codec
    assert codec is not None
    plain = Payload(metadata={"encoding": b"json/plain"}, data=json.dumps(WORD * 1000).encode())
    [sealed] = await codec.encode([plain])
    assert sealed.metadata["encoding"] == ENCODING
    claimed = await blobs.put(sealed.SerializeToString())
    artifact = await blobs.put(plain.SerializeToString())
    claims = [claim(claimed.sha256), claim(artifact.sha256), claim("0" * 64), claim("../../etc/passwd")]
    shown = await decode(await api.client("auditor"), claims)
    assert WORD in text(shown[:1])
    assert shown[1:] == claims[1:]


def claim(sha256: str) -> Json:
    found = Payload(
        metadata={"encoding": b"json/protobuf", "messageType": b"temporal.api.sdk.v1.ExternalStorageReference"},
        data=json.dumps({"claimData": {"sha256": sha256}, "driverName": "gatehouse-blobs"}).encode(),
    )
    return MessageToDict(found)


@pytest.mark.parametrize("body", ["", "7", "{", '{"payloads": 1}', '{"payloads": [7]}'])
async def test_what_are_no_payloads_is_said_so(api: Api, body: str) -> None:
    answer = await (await api.client("auditor")).post("/codec/decode", content=body)
    assert (answer.status_code, answer.json()["kind"]) == (422, "invalid_request")


async def test_another_namespace_is_not_here(api: Api, payloads: list[Json]) -> None:
    auditor = await api.client("auditor")
    answer = await auditor.post("/codec/decode", json={"payloads": payloads}, headers={"X-Namespace": "other"})
    assert answer.status_code == 404


async def test_a_browser_may_ask_from_the_temporal_ui_alone(api: Api) -> None:
    asking = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,x-namespace"}

    async def preflight(origin: str, path: str = "/codec/decode") -> httpx.Response:
        return await api.anonymous().options(path, headers={"Origin": origin, **asking})

    for ours in (api.settings.temporal_ui, api.settings.temporal_ui.replace("127.0.0.1", "localhost")):
        answer = await preflight(ours)
        assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (200, ours)
        assert answer.headers["access-control-allow-credentials"] == "true"
    for other in ("https://example.org", f"{api.settings.temporal_ui}.example.org", "null"):
        assert "access-control-allow-origin" not in (await preflight(other)).headers
    assert "access-control-allow-origin" not in (await preflight(api.settings.temporal_ui, "/runs")).headers


async def test_a_console_session_counts_on_pages_of_the_temporal_ui_alone(api: Api, payloads: list[Json]) -> None:
    ui = api.settings.temporal_ui

    async def ask(who: str, origin: str | None) -> httpx.Response:
        await api.client(who)
        async with httpx.AsyncClient(base_url=api.url) as browser:
            entered = await browser.post("/console/sign-in", data={"key": api.keys[who]}, headers={"Origin": api.url})
            assert entered.status_code == 303
            headers = {} if origin is None else {"Origin": origin}
            return await browser.post("/api/v1/codec/decode", json={"payloads": payloads}, headers=headers)

    for origin in (ui, api.url):
        answer = await ask("auditor", origin)
        assert answer.status_code == 200
        assert WORD in text(answer.json()["payloads"])
        assert answer.headers.get("access-control-allow-origin") == (ui if origin == ui else None)
    assert (await api.records("history.decoded"))[-1]["actor"] == "auditor"
    for origin in ("https://example.org", f"{ui}.example.org", "null", None):
        refused = await ask("auditor", origin)
        assert refused.status_code == 401, origin
        assert "access-control-allow-origin" not in refused.headers
    assert (await ask("viewer", ui)).status_code == 403


async def test_temporal_s_own_command_line_reads_by_it(api: Api, payloads: list[Json]) -> None:
    await api.client("auditor")
    done = await asyncio.to_thread(
        subprocess.run,
        [
            str(BINARY), "workflow", "show", "--workflow-id", api.keys["run of the codec"], "--output", "json",
            "--address", api.settings.temporal_address, "--namespace", api.settings.temporal_namespace,
            "--codec-endpoint", f"{api.url}/api/v1/codec",
            "--codec-auth", f"Bearer {api.keys['auditor']}",
        ],
        capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    started = json.loads(done.stdout)["events"][0]["workflowExecutionStartedEventAttributes"]
    assert WORD in json.dumps(started["input"]) + text([p for p in started["input"]["payloads"] if "data" in p])
