"""The fixed plans of the practice model: which tool call comes next, by what was called and what came back. Pure.

There is no intelligence here. A plan reads a conversation in the chat completions format and names the next step; the
same conversation always gets the same step. It knows the two built-in automations and nothing else.
"""

import fnmatch
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from pydantic import JsonValue

from tools.contract import JsonObject

LABEL = "Practice model: fixed rules, no intelligence."
MAX_SHOWN = 10

_COUNT_BY_HOUR = """\
import collections, gzip, json, pathlib, re
pattern = re.compile({pattern!r})
hour = re.compile(r"\\d{{4}}-\\d\\d-\\d\\d[T ]\\d\\d|[A-Z][a-z]{{2}} [ \\d]\\d \\d\\d")
counts = collections.Counter()
for path in sorted(p for p in pathlib.Path("in").rglob("*") if p.is_file()):
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rt", errors="replace") as lines:
        for line in lines:
            if pattern.search(line):
                found = hour.search(line[:200])
                counts[found.group().replace("T", " ") + "h" if found else "without time"] += 1
print(json.dumps(dict(sorted(counts.items()))))
"""


@dataclass(frozen=True)
class Step:
    """One earlier call of the conversation and what came back; `data` is the result parsed, None if it is no JSON."""

    tool: str
    arguments: JsonObject
    content: str
    data: JsonValue


@dataclass(frozen=True)
class Wanted:
    """One tool call to make next."""

    tool: str
    arguments: JsonObject


@dataclass(frozen=True)
class Conversation:
    """What a plan looks at: the job's inputs, the calls so far, and the names of the tools on offer."""

    inputs: JsonObject
    steps: tuple[Step, ...]
    offered: frozenset[str]
    output_tool: str

    def done(self, tool: str) -> Step | None:
        """The last call of that tool, if there was one."""
        return next((step for step in reversed(self.steps) if step.tool == tool), None)

    def ask(self, *wanted: Wanted) -> list[Wanted]:
        """Those of the calls whose tool is on offer."""
        return [w for w in wanted if w.tool in self.offered]


class NoPlanError(Exception):
    """The conversation belongs to no automation these rules know, or cannot be read."""


def next_calls(request: Mapping[str, JsonValue]) -> list[Wanted]:
    """The calls to make next, the final answer's call among them. Raises NoPlanError."""
    plan, conversation = _read(request)
    return plan(conversation)


# ---------------------------------------------------------------- plans


def _triage(c: Conversation) -> list[Wanted]:
    """list and search -> look closer -> report -> ask to delete rotated files -> answer."""
    pattern = _text(c.inputs, "pattern") or "ERROR|FATAL"
    listed, found, report, cleaned = map(c.done, ("list_files", "search_text", "write_file", "delete_files"))
    if found is None or listed is None:
        return c.ask(
            Wanted("list_files", {"path": "in"}),
            Wanted("search_text", {"path": "in", "pattern": pattern, "samples": MAX_SHOWN}),
        )
    samples = _rows(found.data, "samples")
    counted = c.done("run_python")
    if counted is None and "run_python" in c.offered:
        closer = [Wanted("run_python", {"code": _COUNT_BY_HOUR.format(pattern=pattern)})]
        if samples:
            start = max(1, _number(samples[0], "line") - 3)
            closer.append(Wanted("read_file", {"path": _text(samples[0], "path"), "offset": start, "limit": 7}))
        return c.ask(*closer)
    rotated = [path for path in _paths(listed) if fnmatch.fnmatch(path, "*.log.[0-9]*")]
    if report is None:
        content = _triage_report(listed, found, counted, c.done("read_file"), rotated)
        return c.ask(Wanted("write_file", {"path": "out/report.md", "content": content}))
    if rotated and cleaned is None:
        return c.ask(Wanted("delete_files", {"paths": [*rotated[:100]]}))
    deleted = _deleted(cleaned)
    matches = _number(found.data, "matches", default=-1)
    kept = "" if deleted or not rotated else f" Rotated files were kept: {_outcome(cleaned)}."
    summary = f"{LABEL} {max(matches, 0)} lines match {pattern} in {len(_paths(listed))} files.{kept}"
    answer: JsonObject = {"summary": summary, "report": "out/report.md", "deleted": [*deleted]}
    answer["matches"] = matches if matches >= 0 else None
    return [Wanted(c.output_tool, answer)]


def _cleanup(c: Conversation) -> list[Wanted]:
    """list -> report -> ask to delete -> answer."""
    listed, report, cleaned = map(c.done, ("list_files", "write_file", "delete_files"))
    if listed is None:
        return c.ask(Wanted("list_files", {"path": "in", "limit": 1000}))
    patterns = [p] if (p := _text(c.inputs, "pattern")) else ["*.tmp", "*.bak"]
    files = [f for f in _rows(listed.data, "files") if any(fnmatch.fnmatch(_text(f, "path"), p) for p in patterns)]
    paths = [_text(f, "path") for f in files]
    if report is None:
        rows = "\n".join(f"| `{_text(f, 'path')}` | {_number(f, 'size')} | {_text(f, 'modified')} |" for f in files)
        total = sum(_number(f, "size") for f in files)
        content = (
            f"# Disk clean-up\n\n{LABEL}\n\n| file | bytes | date |\n|---|---|---|\n{rows}\n\n"
            f"Together {total} bytes in {len(files)} files; {len(_paths(listed)) - len(files)} files stay.\n"
        )
        return c.ask(Wanted("write_file", {"path": "out/report.md", "content": content}))
    if paths and cleaned is None:
        return c.ask(Wanted("delete_files", {"paths": [*paths[:100]]}))
    deleted = _deleted(cleaned)
    freed = _number(cleaned.data, "freed_bytes") if cleaned else 0
    kept = "" if deleted or not paths else f" They were kept: {_outcome(cleaned)}."
    summary = f"{LABEL} {len(paths)} files fit {' or '.join(patterns)}.{kept}"
    return [
        Wanted(
            c.output_tool,
            {"summary": summary, "report": "out/report.md", "deleted": [*deleted], "freed_bytes": freed},
        )
    ]


Plan = Callable[[Conversation], list[Wanted]]

# A field of the output schema that only this automation has -> its plan.
_PLANS: Mapping[str, Plan] = {"matches": _triage, "freed_bytes": _cleanup}


def _triage_report(listed: Step, found: Step, counted: Step | None, around: Step | None, rotated: Sequence[str]) -> str:
    top = _rows(found.data, "top")[:MAX_SHOWN]
    samples = _rows(found.data, "samples")[:MAX_SHOWN]
    sections = [
        f"# Incident report\n\n{LABEL} It counts and quotes; it judges nothing.",
        "## Files\n\n" + _list(f"`{path}`" for path in _paths(listed)),
        f"## Matching lines\n\n{_number(found.data, 'matches')} of {_number(found.data, 'lines')} lines match.",
        "### Most frequent\n\n"
        + _list(f"{_number(t, 'count')} times, first in `{_text(t, 'path')}`: `{_text(t, 'example')}`" for t in top),
        "### Samples\n\n"
        + _list(f"`{_text(s, 'path')}` line {_number(s, 'line')}: `{_text(s, 'text')}`" for s in samples),
    ]
    if counted is not None:
        sections.append(f"### By hour\n\n```\n{_printed(counted)}\n```")
    if around is not None:
        sections.append(f"### Around the first\n\n```\n{_text(around.data, 'text') or around.content[:2000]}\n```")
    sections.append("## Rotated files\n\n" + _list(f"`{path}`" for path in rotated))
    return "\n\n".join(sections) + "\n"


# ---------------------------------------------------------------- reading


def _read(request: Mapping[str, JsonValue]) -> tuple[Plan, Conversation]:
    messages, tools = _objects(request.get("messages")), _objects(request.get("tools"))
    functions = [f for t in tools if isinstance(f := t.get("function"), dict)]
    for function in functions:
        schema = function.get("parameters")
        fields = schema.get("properties") if isinstance(schema, dict) else None
        for field, plan in _PLANS.items():
            if isinstance(fields, dict) and {"report", field} <= fields.keys():
                conversation = Conversation(
                    inputs=_inputs(messages),
                    steps=tuple(_steps(messages)),
                    offered=frozenset(_text(f, "name") for f in functions),
                    output_tool=_text(function, "name"),
                )
                return plan, conversation
    raise NoPlanError("no fixed plan fits this automation")


def _inputs(messages: Sequence[JsonObject]) -> JsonObject:
    """The JSON object on the line after the first one of the first user message."""
    first = next((m for m in messages if m.get("role") == "user"), None)
    content = first.get("content") if first else None
    text = content if isinstance(content, str) else "".join(_text(part, "text") for part in _objects(content))
    lines = text.splitlines()
    parsed = _parsed(lines[1]) if len(lines) > 1 else None
    return parsed if isinstance(parsed, dict) else {}


def _steps(messages: Sequence[JsonObject]) -> list[Step]:
    results = {_text(m, "tool_call_id"): _text(m, "content") for m in messages if m.get("role") == "tool"}
    steps: list[Step] = []
    for message in messages:
        for call in _objects(message.get("tool_calls")):
            function, content = call.get("function"), results.get(_text(call, "id"))
            if content is not None and isinstance(function, dict):
                arguments = _parsed(_text(function, "arguments"))
                fields = arguments if isinstance(arguments, dict) else {}
                steps.append(Step(_text(function, "name"), fields, content, _parsed(content)))
    return steps


def _objects(value: JsonValue) -> list[JsonObject]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _rows(data: JsonValue, field: str) -> list[JsonObject]:
    return _objects(data.get(field)) if isinstance(data, dict) else []


def _text(data: JsonValue, field: str) -> str:
    value = data.get(field) if isinstance(data, dict) else None
    return value if isinstance(value, str) else ""


def _number(data: JsonValue, field: str, default: int = 0) -> int:
    value = data.get(field) if isinstance(data, dict) else None
    return value if isinstance(value, int) and not isinstance(value, bool) else default


def _paths(listed: Step) -> list[str]:
    return [_text(f, "path") for f in _rows(listed.data, "files")]


def _deleted(step: Step | None) -> list[str]:
    return [_text(f, "path") for f in _rows(step.data, "deleted")] if step else []


def _outcome(step: Step | None) -> str:
    return step.content[:200] if step else "nobody was asked"


def _printed(step: Step) -> str:
    return (_text(step.data, "stdout") or step.content)[:2000]


def _list(lines: Iterable[str]) -> str:
    return "\n".join(f"- {line}" for line in lines) or "(none)"


def _parsed(text: str) -> JsonValue:
    try:
        return cast("JsonValue", json.loads(text))
    except ValueError:
        return None
