"""The product's real gate for a scorer that replays recorded tool calls.

`decide(call, ctx)` answers allow, approve or deny. A suite's labels become tool manifests, the prompt becomes what the
operator said, each executed call goes through the same `Trail` as in a run, and the built-in policy decides. A task's
list of tools stands for the tools of an automation: it may not change anything by another one. `decide_unlisted` leaves
that list away, so that only taint and provenance decide.

Needs of `ctx`: `prompt`, `history` (executed calls with `result`), `label(function)`, `effect(call)`, and, where it is
there, `allow_task`.
"""

import json
import re
from typing import Protocol, cast, get_args

import yaml
from pydantic import JsonValue

from policies.decision import GateRequest, Principal, Verdict
from policies.engine import PolicyEngine
from policies.rules import BUILT_IN, load_rules
from policies.taint import Trail
from tools.catalog import BUILT_IN_NAMES
from tools.contract import ArgumentRole, Effect, JsonObject, ToolCall, ToolSpec, Trust

EFFECTS = {
    "read": Effect.READ, "egress": Effect.SEND, "write_internal": Effect.WRITE, "send_outward": Effect.SEND,
    "financial": Effect.FINANCIAL, "destructive": Effect.DESTRUCTIVE, "access": Effect.ACCESS,
}  # fmt: skip
ANSWERS = {Verdict.ALLOW: "allow", Verdict.ASK: "approve", Verdict.DENY: "deny"}
ROLES: tuple[ArgumentRole, ...] = ("content", "quantity", "handle", "target")
OPERATOR = Principal(id="evaluation", roles=("operator",))
ENGINE = PolicyEngine(load_rules([BUILT_IN], BUILT_IN_NAMES))

Label = dict[str, JsonValue]
Recorded = dict[str, JsonValue]


class Context(Protocol):
    """What the scorer knows at one moment of a task."""

    prompt: str
    history: list[Recorded]

    def label(self, f: str) -> Label:
        """The labels of a tool."""
        ...

    def effect(self, call: Recorded) -> str:
        """The effect of a call; for some tools it depends on the arguments."""
        ...


def decide(call: Recorded, ctx: Context) -> str:
    """As an automation that has exactly the tools its task needs for changing things."""
    allowed = cast("set[str] | None", getattr(ctx, "allow_task", None))
    if allowed is not None and call["function"] not in allowed and ctx.effect(call) not in ("read", "egress"):
        return "deny"
    return decide_unlisted(call, ctx)


def decide_unlisted(call: Recorded, ctx: Context) -> str:
    """Taint, provenance and the built-in policy alone."""
    tool = _tool(call, ctx)
    arguments = cast("JsonObject", call["args"])
    facts = _trail(ctx).facts(tool, ToolCall(id="c", tool=tool.name, arguments=arguments))
    asked = GateRequest(
        principal=OPERATOR,
        automation="evaluation",
        tool=tool.name,
        effect=tool.effect,
        arguments=arguments,
        facts=facts,
    )
    return ANSWERS[ENGINE.decide(asked).verdict]


def _tool(call: Recorded, ctx: Context) -> ToolSpec:
    """The manifest that says what the suite's labels say; what they leave out is left at its most careful default."""
    name = cast("str", call["function"])
    label = ctx.label(name)
    roles: dict[str, ArgumentRole] = {}
    for role in ROLES:
        roles |= dict.fromkeys(cast("list[str]", label.get(role) or []), role)
    result = label.get("result")
    trust: Trust = cast("Trust", result) if result in get_args(Trust) else "untrusted"
    name = re.sub(r"[^a-z0-9_]", "_", name.lower())
    return ToolSpec(
        name=f"t_{name}"[:48], version="1", description=name, parameters={"type": "object"},
        effect=EFFECTS.get(ctx.effect(call), Effect.ACCESS), workspace="none", results=trust, roles=roles,
        program_sha256="0" * 64,
    )  # fmt: skip


def _trail(ctx: Context) -> Trail:
    """The run's trail, brought up to date with what was executed since it was last asked for."""
    kept = cast("tuple[Trail, int] | None", getattr(ctx, "gate_trail", None))
    trail, seen = kept or (Trail([ctx.prompt]), 0)
    for call in ctx.history[seen:]:
        tool = _tool(call, ctx)
        trail.count(tool.name)
        trail.saw(tool, cast("JsonObject", call["args"]), _as_json(str(call.get("result", ""))))
    setattr(ctx, "gate_trail", (trail, len(ctx.history)))  # noqa: B010  (the scorer's object, not of our type)
    return trail


def _as_json(text: str) -> str:
    """Results are recorded as printed YAML; a tool of ours prints JSON, whose structure is its own."""
    try:
        value = yaml.load(text, yaml.CBaseLoader)  # noqa: S506  (text, lists and mappings only)
    except yaml.YAMLError:
        return text
    return json.dumps(value) if isinstance(value, dict | list) else text
