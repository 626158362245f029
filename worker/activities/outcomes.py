"""What the agent is told of a program that ended, how a long text is cut, and the records of what came of it."""

import hashlib
import json
from collections.abc import Iterable
from typing import Final

from policies.redaction import Redactor
from tools.contract import CONTENT_LIMIT_CHARS, JsonObject, Outcome, ToolResult, ToolSpec
from worker.sandbox.container import WORKSPACE_BYTES, Ending, Ran
from worker.store.audit import AuditEvent
from worker.store.events import outcome_body, outcome_id
from workflows.contracts import ArtifactRef, RunRef, ToolRun

ACTOR: Final = "system:sandbox"
_STDERR_CHARS: Final = 4_000


def told(tool: ToolSpec, ran: Ran) -> tuple[Outcome, str | None, str]:
    """Outcome, error kind and text of a program that ended."""
    limits = tool.limits
    stderr = ran.stderr.decode("utf-8", "replace").strip()[-_STDERR_CHARS:]
    if ran.ending is Ending.SUCCEEDED:
        problem, text = checked_json(ran.stdout)
        if problem is None:
            return Outcome.SUCCEEDED, None, text
        return Outcome.FAILED, "bad_output", f"the program's output {problem}\n{text[:_STDERR_CHARS]}".strip()
    reasons = {
        Ending.TIMEOUT: f"stopped: it ran longer than its limit of {limits.timeout_s:g} s (timeout_s)",
        Ending.OOM: f"stopped: it needed more than its limit of {limits.memory_mb} MB of memory (memory_mb)",
        Ending.OUTPUT_LIMIT: f"stopped: it wrote more than its limit of {limits.output_bytes} bytes (output_bytes)",
        Ending.WORKSPACE_LIMIT: f"stopped: it filled the workspace beyond {WORKSPACE_BYTES >> 20} MB or too many files",
        Ending.KILLED: f"it died by signal {(ran.exit_code or 128) - 128}",
    }
    reason = reasons.get(ran.ending)
    if reason is None:
        return Outcome.FAILED, ran.ending.value, stderr or f"exit status {ran.exit_code}"
    return Outcome.FAILED, ran.ending.value, f"{reason}\n{stderr}".strip()


def checked_json(stdout: bytes) -> tuple[str | None, str]:
    """(None, text) when the output is one JSON value in UTF-8, else what is wrong and what there is to see."""

    def constant(name: str) -> None:
        raise ValueError(f"{name} is not JSON")

    try:
        text = stdout.decode().strip()
        json.loads(text, parse_constant=constant)
    except UnicodeDecodeError:
        return "is not UTF-8", stdout.decode("utf-8", "replace")
    except (ValueError, RecursionError) as error:
        return f"is not one JSON value: {error}", stdout.decode("utf-8", "replace")
    return None, text


def capped(text: str) -> str:
    """Head and tail within CONTENT_LIMIT_CHARS, and between them how much is missing."""
    notice = f"\n[... {len(text)} characters in all; the middle is left out, the full text is kept ...]\n"
    room = CONTENT_LIMIT_CHARS - len(notice)
    head = room * 2 // 3
    return f"{text[:head]}{notice}{text[-(room - head) :]}"


def call_outcome(run: ToolRun, ran: Ran, result: ToolResult, more: JsonObject) -> AuditEvent:
    """The record of a call that ended in its box."""
    body = outcome_body(call_id=run.call.id, tool=run.tool.name, key=run.key, result=result)
    facts: JsonObject = {
        "tool_version": run.tool.version,
        "program_sha256": run.tool.program_sha256,
        "digest": run.digest,
        "rule": run.rule,
        "generation": run.generation,
        "cpu_ms": ran.cpu_ms,
        "peak_memory_bytes": ran.peak_memory_bytes,
        "pooled": ran.pooled,
        **more,
    }
    return AuditEvent(
        event_id=outcome_id(run.run.run_id, run.call.id), type="call.outcome", tenant=run.run.tenant,
        run_id=run.run.run_id, actor=ACTOR, body={**body, **facts},
    )  # fmt: skip


def shown(kept: Iterable[ArtifactRef], redacts: Redactor) -> list[ArtifactRef]:
    """The artifacts under names that may be shown and recorded, each its own."""
    names: set[str] = set()
    done: list[ArtifactRef] = []
    for artifact in kept:
        name = clean = redacts.text(artifact.name)
        while name in names:
            name = f"{clean}.{len(names)}"
        names.add(name)
        done.append(artifact.model_copy(update={"name": name}))
    return done


def artifact_stored(run: RunRef, artifact: ArtifactRef) -> AuditEvent:
    """The record of a file that was kept."""
    name = hashlib.sha256(artifact.name.encode()).hexdigest()[:16]
    return AuditEvent(
        event_id=f"{run.run_id}/artifact/{name}", type="artifact.stored", tenant=run.tenant, run_id=run.run_id,
        actor=ACTOR, body=artifact.model_dump(mode="json"),
    )  # fmt: skip
