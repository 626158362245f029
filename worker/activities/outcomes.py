"""What the agent is told of a program that ended: outcome, error kind, text; and how a long text is cut."""

import json
from typing import Final

from tools.contract import CONTENT_LIMIT_CHARS, Outcome, ToolSpec
from worker.sandbox.container import WORKSPACE_BYTES, Ending, Ran

_STDERR_CHARS: Final = 4_000


def told(tool: ToolSpec, ran: Ran) -> tuple[Outcome, str | None, str]:
    """Outcome, error kind and text of a program that ended."""
    limits = tool.limits
    stderr = ran.stderr.decode("utf-8", "replace").strip()[-_STDERR_CHARS:]
    if ran.ending is Ending.SUCCEEDED:
        problem, text = _checked_json(ran.stdout)
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


def _checked_json(stdout: bytes) -> tuple[str | None, str]:
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
