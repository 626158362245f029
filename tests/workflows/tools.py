"""Tools of the tests. Each appends one line per execution to an artifact, so that effects can be counted."""

import hashlib
from dataclasses import dataclass

from tools.contract import Effect, Limits, Repeat, ToolSpec

_PROGRAM = b"""\
import json, sys, time
asked = json.load(sys.stdin)
arguments = asked["arguments"]
with open("out/effects.jsonl", "a+") as file:
    file.seek(0)
    again = asked["key"] in file.read()
    file.write(json.dumps({"text": arguments.get("text", ""), "call": asked["call_id"], "key": asked["key"]}) + "\\n")
if not again:
    time.sleep(arguments.get("seconds", 0))
if arguments.get("fail"):
    sys.exit("asked to fail")
print(json.dumps({"did": arguments.get("text", ""), "padding": "x" * arguments.get("padding", 0)}))
"""


@dataclass(frozen=True)
class TestTool:
    """A tool and its program."""

    __test__ = False

    spec: ToolSpec
    program: bytes


def _tool(name: str, effect: Effect, repeat: Repeat = Repeat.SAFE) -> TestTool:
    spec = ToolSpec(
        name=name,
        version="1",
        description=f"{name} something",
        parameters={
            "type": "object",
            "additionalProperties": False,
            "required": ["text"],
            "properties": {
                "text": {"type": "string", "maxLength": 100},
                "seconds": {"type": "number"},
                "padding": {"type": "integer"},
                "fail": {"type": "boolean"},
            },
        },
        effect=effect,
        repeat=repeat,
        workspace="write",
        limits=Limits(timeout_s=30, memory_mb=64),
        program_sha256=hashlib.sha256(_PROGRAM).hexdigest(),
    )
    return TestTool(spec, _PROGRAM)


TOOLS = {
    "note": _tool("note", Effect.WRITE),
    "erase": _tool("erase", Effect.DESTRUCTIVE, Repeat.AT_MOST_ONCE),
    "grant": _tool("grant", Effect.ACCESS),
}
"""note is allowed, erase asks, grant is denied, by the built-in rules."""
