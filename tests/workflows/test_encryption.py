"""Nothing a run reads, writes or says lies readable in Temporal; every payload is bound to its run and its tenant."""

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, cast

import pytest
from pydantic_ai.durable_exec.temporal import PydanticAIPlugin
from temporalio.client import WorkflowHistory
from temporalio.worker import Replayer

from policies.redaction import Redactor
from tests.fixtures.provider import answer, calls
from tests.workflows.house import House, automation
from worker.codec import ENCODING, RUN, TENANT, EncryptingCodec
from worker.encryption import open_keyring
from worker.store.keyring import Keyring, open_generated
from worker.temporal import data_converter, workflow_runner
from workflows.automation import AutomationWorkflow
from workflows.contracts import Phase

WORD = "Zanzibar1964"
NAMED = "Ouagadougou1983"
"""Of the inputs; a call about it would be as the operator wants, and pass unasked."""


class Found(NamedTuple):
    """One payload of a history."""

    metadata: dict[str, str]
    data: bytes


def payloads(value: Any) -> Iterator[Found]:
    """Every payload in a history as JSON but search attributes, which Temporal must read."""
    if isinstance(value, dict):
        fields = cast("dict[str, Any]", value)
        found = fields.get("metadata")
        if isinstance(found, dict) and "encoding" in found:
            texts = cast("dict[str, str]", found)
            metadata = {name: base64.b64decode(text).decode() for name, text in texts.items()}
            yield Found(metadata, base64.b64decode(str(fields.get("data", ""))))
        for inner in (inner for name, inner in fields.items() if name != "indexedFields"):
            yield from payloads(inner)
    elif isinstance(value, list):
        for inner in cast("list[Any]", value):
            yield from payloads(inner)


@pytest.fixture(scope="module")
async def sealed(house: House) -> tuple[str, str]:
    """Run id and history of a run that says words in inputs, arguments, results, a failure, an answer and its end."""
    house.provider.script(
        "sealed",
        calls(("erase", {"text": WORD}), ("note", {"text": WORD, "padding": 60_000})),
        calls(("note", {"text": WORD, "fail": True})),
        answer(said=WORD),
    )
    run = await house.start(automation("practice:sealed", instructions=f"Mind {NAMED}."), inputs={"about": NAMED})
    await house.say(run, await run.question(), "approve", reason=WORD)
    result = await run.result()
    assert (result.phase, result.output) == (Phase.SUCCEEDED, {"said": WORD})
    return run.id, (await run.handle.fetch_history()).to_json()


def test_nothing_is_readable(sealed: tuple[str, str]) -> None:
    _, history = sealed
    found = list(payloads(json.loads(history)))
    encrypted = [payload for payload in found if payload.metadata["encoding"] == ENCODING.decode()]
    assert len(encrypted) > 30
    # What is left is the SDK's own book-keeping of local activities, and claims.
    left = [payload.data for payload in found if payload not in encrypted]
    for text in (history.encode(), *left):
        assert WORD.encode() not in text
        assert NAMED.encode() not in text


def test_every_payload_is_bound_to_its_run_and_tenant(sealed: tuple[str, str]) -> None:
    run_id, history = sealed
    found = [payload.metadata for payload in payloads(json.loads(history))]
    owners = {(each[RUN], each[TENANT]) for each in found if each["encoding"] == ENCODING.decode()}
    assert owners == {(run_id, "default")}


async def replayed(house: House, keys: Keyring, run_id: str, history: str) -> Exception | None:
    """What keeps the history from replaying with these keys, under that id."""
    codec = EncryptingCodec(keys, house.settings.temporal_namespace)
    replayer = Replayer(
        workflows=[AutomationWorkflow],
        workflow_runner=workflow_runner(),
        data_converter=data_converter(house.blobs, Redactor([]), codec),
        plugins=[PydanticAIPlugin()],
    )
    stored = WorkflowHistory.from_json(run_id, history)
    return (await replayer.replay_workflow(stored, raise_on_replay_failure=False)).replay_failure


async def test_it_replays_with_its_key_alone(house: House, sealed: tuple[str, str], tmp_path: Path) -> None:
    keys = open_keyring(house.settings)
    assert await replayed(house, keys, *sealed) is None
    assert await replayed(house, keys, "run_of_somebody_else", sealed[1]) is not None
    assert await replayed(house, open_generated(tmp_path / "other.keys"), *sealed) is not None


async def test_a_failure_s_words_are_for_those_with_the_key(house: House) -> None:
    house.provider.script("unsaid", answer(said=WORD, unasked=WORD))
    run = await house.start(automation("practice:unsaid"))
    question = await run.question()
    await house.say(run, question, "deny", reason=f"not {WORD}")
    result = await run.result()
    assert result.phase is Phase.FAILED
    history = (await run.handle.fetch_history()).to_json()
    assert "Encoded failure" in history
    plain = [each for each in payloads(json.loads(history)) if each.metadata["encoding"] != ENCODING.decode()]
    assert all(WORD.encode() not in text for text in (history.encode(), *(each.data for each in plain)))
