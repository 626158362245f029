"""How values travel: compressed, large ones as claims, failures without secrets; and how a missing server shows."""

import json
from datetime import timedelta
from pathlib import Path

import pytest
from temporalio.api.common.v1 import Payload
from temporalio.api.failure.v1 import Failure
from temporalio.converter import DefaultFailureConverter, DefaultPayloadConverter
from temporalio.exceptions import ApplicationError

from policies.redaction import Redactor
from tests.fixtures.temporal import TemporalServer, free_port
from tools.contract import Outcome, ToolResult
from worker import codec as codec_module
from worker import temporal
from worker.codec import CompressingCodec
from worker.settings import Settings
from worker.store.blobs import BlobMissing, Blobs
from worker.temporal import CLAIM_BYTES, RedactingFailureConverter

KEY = "sk-proj-abcdefghijklmnopqrstuvwx"


def result(chars: int) -> ToolResult:
    # Digits of pi would do too: something that does not compress to nothing.
    text = "".join(str(n * 7919 % 9973) for n in range(chars // 3))[:chars]
    return ToolResult(outcome=Outcome.SUCCEEDED, content=text)


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


@pytest.mark.parametrize("chars", [10, 5_000, 200_000])
async def test_a_value_comes_back_as_it_went(tmp_path: Path, chars: int) -> None:
    converter = temporal.data_converter(Blobs(tmp_path), Redactor([]), CompressingCodec())
    sent = await converter.encode([result(chars)])
    [back] = await converter.decode(sent, [ToolResult])
    assert back == result(chars)
    assert len(files(tmp_path)) == (1 if chars == 200_000 else 0)
    assert all(len(payload.data) <= CLAIM_BYTES for payload in sent)


async def test_a_claim_without_its_blob_is_an_error(tmp_path: Path) -> None:
    there = temporal.data_converter(Blobs(tmp_path / "a"), Redactor([]), CompressingCodec())
    sent = await there.encode([result(200_000)])
    elsewhere = temporal.data_converter(Blobs(tmp_path / "b"), Redactor([]), CompressingCodec())
    with pytest.raises((BlobMissing, RuntimeError)):
        await elsewhere.decode(sent, [ToolResult])


async def test_what_does_not_get_smaller_passes_unchanged() -> None:
    codec = CompressingCodec()
    small = Payload(metadata={"encoding": b"json/plain"}, data=b'"x"')
    assert await codec.encode([small]) == [small]
    assert await codec.decode([small]) == [small]


async def test_a_payload_that_unpacks_to_too_much_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    codec = CompressingCodec()
    [packed] = await codec.encode([Payload(metadata={"encoding": b"json/plain"}, data=b"x" * 100_000)])
    monkeypatch.setattr(codec_module, "MAX_PAYLOAD_BYTES", 1000)
    with pytest.raises(ValueError, match="unpacks to more"):
        await codec.decode([packed])


def test_a_failure_leaves_without_secrets_also_in_causes_and_details() -> None:
    failure = Failure()
    try:
        try:
            raise ValueError(f"Authorization: Bearer {KEY}")
        except ValueError as inner:
            raise ApplicationError(f"refused by {KEY}", {"body": f"key {KEY}", "api_key": "hunter2hunter2"}) from inner
    except ApplicationError as outer:
        RedactingFailureConverter(Redactor(["tops3cret-value"])).to_failure(outer, DefaultPayloadConverter(), failure)
    whole = str(failure)
    assert KEY not in whole
    assert "hunter2" not in whole
    details = json.loads(failure.application_failure_info.details.payloads[0].data)
    assert details == {"body": "key [redacted]", "api_key": "[redacted]"}
    assert failure.message == failure.cause.message == "Encoded failure"
    back = DefaultFailureConverter().from_failure(failure, DefaultPayloadConverter())
    assert str(back) == "refused by [redacted]"
    assert str(back.__cause__).startswith("ValueError: Authorization")


def test_a_secret_of_this_process_is_known_by_its_value() -> None:
    settings = Settings.model_validate({"OPENAI_API_KEY": "no-known-shape-at-all"})
    assert temporal.redactor(settings).text("it is no-known-shape-at-all!") == "it is [redacted]!"


async def test_no_server_is_said_with_its_address(tmp_path: Path) -> None:
    settings = Settings(data=tmp_path, temporal_address=f"127.0.0.1:{free_port()}")
    with pytest.raises(temporal.TemporalUnavailable, match=settings.temporal_address):
        await temporal.connect(settings, timeout=timedelta(seconds=2))


async def test_search_attributes_are_added_once(tmp_path: Path, temporal_server: TemporalServer) -> None:
    client = await temporal.connect(Settings(data=tmp_path, temporal_address=temporal_server.address))
    await temporal.ensure_search_attributes(client)
    await temporal.ensure_search_attributes(client)
