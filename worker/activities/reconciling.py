"""What a tool's reconcile program says of a lost attempt, and the record of that.

It reads the call as the tool does (arguments, key, call id) and writes one JSON object: `{"happened": true, "output":
...}`, the output being what the tool would have given, or `{"happened": false}`. Everything else is no answer.
"""

import dataclasses
import json
from typing import Final

from pydantic import JsonValue

from tools.contract import JsonObject
from worker.activities.outcomes import checked_json
from worker.sandbox.container import Ending, Ran
from worker.store.audit import AuditEvent
from worker.store.events import reconciled_id
from workflows.contracts import ToolRun

_PROBLEM_CHARS: Final = 500


@dataclasses.dataclass(frozen=True)
class Answer:
    """`happened` None: no answer, and `problem` says why."""

    happened: bool | None
    output: JsonValue = None
    problem: str = ""


def answer(ran: Ran) -> Answer:
    """What the program said. Nothing but a clean end with exactly one of the two answers counts."""
    if ran.ending is not Ending.SUCCEEDED:
        return Answer(None, problem=f"{ran.ending.value}: {ran.stderr.decode(errors='replace').strip()}")
    problem, text = checked_json(ran.stdout)
    if problem is not None:
        return Answer(None, problem=f"its output {problem}")
    try:
        said: JsonValue = json.loads(text, object_pairs_hook=_unique)
    except ValueError as error:
        return Answer(None, problem=str(error))
    match said:
        case {"happened": True, "output": output} if len(said) == 2:
            return Answer(True, output)
        case {"happened": False} if len(said) == 1:
            return Answer(False)
        case _:
            return Answer(None, problem='neither {"happened": true, "output": ...} nor {"happened": false}')


def _unique(pairs: list[tuple[str, JsonValue]]) -> JsonObject:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key is given twice")
    return found


def as_run(ran: Ran, output: JsonValue) -> Ran:
    """The lost attempt's end as it would have been reported: its output, with the numbers of whoever found out."""
    return dataclasses.replace(ran, stdout=json.dumps(output, ensure_ascii=False).encode(errors="replace"))


def reconciled(run: ToolRun, attempt: int, answer: Answer, *, actor: str) -> AuditEvent:
    """The record: what was found of the attempt before this one. `answer.problem` must be redacted already."""
    said = {True: "happened", False: "not_happened", None: "no_answer"}[answer.happened]
    return AuditEvent(
        event_id=reconciled_id(run.run.run_id, run.call.id, run.generation, attempt), type="call.reconciled",
        tenant=run.run.tenant, run_id=run.run.run_id, actor=actor,
        body={
            "call_id": run.call.id, "tool": run.tool.name, "key": run.key, "generation": run.generation,
            "attempt": attempt, "answer": said, "problem": answer.problem[:_PROBLEM_CHARS] or None,
            "reconcile_sha256": run.tool.reconcile_sha256,
        },
    )  # fmt: skip
