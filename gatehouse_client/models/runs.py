"""Runs, what they work on, what they leave, and the records of them."""

from datetime import datetime
from typing import Literal

from gatehouse_client.models.wire import JsonObject, Told

Phase = (
    Literal["queued", "working", "awaiting_approval", "awaiting_human", "frozen", "succeeded", "failed", "cancelled"]
    | str
)
"""Where a run stands. The last three are final."""


Rung = Literal["model", "fallback_model", "rules", "human"] | str
"""Which step of the degrade ladder produced (or is working on) the result."""


class FileRef(Told):
    """An uploaded input file: staged read-write under `in/<name>` of the workspace."""

    name: str
    sha256: str
    size: int


class Artifact(Told):
    """A file the run left under `out/` of its workspace, kept in the blob store."""

    name: str
    sha256: str
    size: int
    media_type: str


class RunResult(Told):
    """How a run ended."""

    phase: Phase
    rung: Rung
    output: JsonObject | None = None
    failure: str | None = None
    model: str | None = None
    artifacts: tuple[Artifact, ...] = ()
    steps: int = 0
    tool_calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost_microusd: int | None = None
    degraded: tuple[str, ...] = ()


class RunLinks(Told):
    """Where to look further."""

    self: str
    events: str
    artifacts: str
    temporal: str


class Run(Told):
    """One run. `phase` says where it stands, `rung` which step of the degrade ladder works or has answered."""

    id: str
    automation: str
    automation_version: str
    phase: Phase
    rung: Rung
    requester: str
    inputs: JsonObject
    files: tuple[FileRef, ...]
    result: RunResult | None
    created_at: datetime
    updated_at: datetime
    contents_removed_at: datetime | None
    links: RunLinks


class UploadedFile(Told):
    """An uploaded file; `sha256` is over its bytes."""

    id: str
    name: str
    size: int
    sha256: str
    media_type: str


class AuditRecord(Told):
    """One record. `seq` is dense over the whole installation, `run_seq` within its run."""

    seq: int
    event_id: str
    ts: datetime
    tenant: str
    run_id: str | None
    run_seq: int | None
    type: str
    actor: str
    body: JsonObject
    leaf_hash: str
    chain_hash: str


class Verification(Told):
    """Whether every record is the one that was written, and none is missing."""

    ok: bool
    count: int
    first_bad: int | None
    problem: str | None
    head: str
