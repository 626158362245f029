"""Stored histories replay on today's workflow code: runs in flight survive an upgrade. And the test bites."""

import base64
import tempfile
from pathlib import Path

import pytest
from pydantic_ai.durable_exec.temporal import PydanticAIPlugin
from temporalio import workflow
from temporalio.client import WorkflowHistory
from temporalio.worker import Replayer

from policies.redaction import Redactor
from tests.workflows.reordered import ReorderedWorkflow
from worker.codec import EncryptingCodec
from worker.store.blobs import Blobs
from worker.store.keyring import open_generated
from worker.temporal import CLAIM_BYTES, data_converter, workflow_runner
from workflows.automation import AutomationWorkflow

HISTORIES = sorted((Path(__file__).parent / "histories").glob("*.json"))


def replayer(workflow_class: type = AutomationWorkflow) -> Replayer:
    """As the runs worker runs it: same runner, same converter. The corpus itself is not encrypted."""
    blobs = Blobs(Path(tempfile.gettempdir()) / "gatehouse-no-blobs")
    codec = EncryptingCodec(open_generated(Path(tempfile.mkdtemp()) / "data.keys"), "default")
    return Replayer(
        workflows=[workflow_class],
        workflow_runner=workflow_runner(),
        data_converter=data_converter(blobs, Redactor([]), codec),
        plugins=[PydanticAIPlugin()],
    )


def stored(path: Path) -> WorkflowHistory:
    return WorkflowHistory.from_json(path.stem, path.read_text())


def test_there_are_histories_of_each_kind() -> None:
    kinds = {path.stem.rsplit("-", 1)[0] if path.stem[-1].isdigit() else path.stem for path in HISTORIES}
    assert kinds == {
        "plain", "approved", "edited", "expired", "degraded", "handed-over", "cancelled", "continued", "frozen",
        "stopped", "asked-of-many", "edited-by-one", "left-to-rules", "withdrawn",
    }  # fmt: skip


def test_there_are_answered_runs_of_before_and_after_the_commit() -> None:
    patched = base64.b64encode(b'{"id":"answers-committed"').decode()[:-3]
    sides = {path.stem: patched in path.read_text() for path in HISTORIES if "UPDATE_ACCEPTED" in path.read_text()}
    assert [name for name, after in sides.items() if not after] == ["approved", "edited", "frozen", "handed-over"]
    assert [name for name, after in sides.items() if after] == ["asked-of-many", "edited-by-one", "withdrawn"]


@pytest.mark.parametrize("path", HISTORIES, ids=lambda path: path.stem)
async def test_a_stored_history_replays(path: Path) -> None:
    result = await replayer().replay_workflow(stored(path), raise_on_replay_failure=False)
    assert result.replay_failure is None


@pytest.mark.parametrize("path", HISTORIES, ids=lambda path: path.stem)
def test_a_stored_history_needs_no_blob(path: Path) -> None:
    assert "gatehouse-blobs" not in path.read_text(), f"payloads above {CLAIM_BYTES} bytes do not belong into a corpus"


async def test_an_exchanged_command_is_noticed() -> None:
    history = stored(next(path for path in HISTORIES if path.stem == "plain"))
    result = await replayer(ReorderedWorkflow).replay_workflow(history, raise_on_replay_failure=False)
    assert isinstance(result.replay_failure, workflow.NondeterminismError)
