"""An automation as data: what a person writes in YAML, and the resolved value a run carries. Pure data."""

import hashlib
from typing import Annotated, Literal

from pydantic import Field, model_validator

from tools.contract import NAME_PATTERN, JsonObject, Strict, ToolSpec, Wire, canonical_json

AUTOMATION_NAME_PATTERN = r"^[a-z][a-z0-9-]{0,47}$"


class Budgets(Strict):
    """Hard ceilings of one run. Reaching one ends the model rung; it never extends anything."""

    steps: Annotated[int, Field(ge=1, le=500)] = 30
    """Model requests."""
    tool_calls: Annotated[int, Field(ge=0, le=1000)] = 60
    tokens: Annotated[int, Field(ge=1)] = 400_000
    """Input plus output tokens over all models: the backstop where a model has no known price."""
    money_usd: Annotated[float, Field(ge=0)] = 2.0
    wall_time_s: Annotated[int, Field(ge=1, le=30 * 86400)] = 3600
    """Working time: waiting for humans does not count."""


class ApprovalDefaults(Strict):
    """How long a question may wait. The deadline can only deny."""

    deadline_s: Annotated[int, Field(ge=1, le=30 * 86400)] = 24 * 3600
    handover_deadline_s: Annotated[int, Field(ge=1, le=30 * 86400)] = 7 * 86400
    handover_role: str = "approver"


class FileRules(Strict):
    """What input files a run may bring; they are staged under `in/` of the workspace."""

    required: bool = False
    max_count: Annotated[int, Field(ge=0, le=1000)] = 20
    max_bytes: Annotated[int, Field(ge=1, le=4 << 30)] = 256 << 20
    """Over all files together."""


class RuleCall(Strict):
    """A tool call picked by a rule. String values may hold `${CEL}` over `inputs`, `files`, `results`."""

    id: Annotated[str, Field(pattern=NAME_PATTERN)]
    """Name under which later expressions read this call's result: `results.<id>`."""
    tool: Annotated[str, Field(pattern=NAME_PATTERN)]
    args: JsonObject = Field(default_factory=dict)
    when: Annotated[str, Field(min_length=1, max_length=1000)] | None = None
    """CEL; the call is skipped (it has no entry in `results`) unless this is true."""
    optional: bool = False
    """The rule goes on when this call is denied, expires or fails; otherwise that ends the rule."""


class RuleThen(Strict):
    """What a rule does: tool calls in order, then, if given, the answer that ends the run."""

    calls: tuple[RuleCall, ...] = ()
    answer: JsonObject | None = None
    """The run's output (checked against the output schema); without it the run goes on to a human."""

    @model_validator(mode="after")
    def _does_something(self) -> "RuleThen":
        if not self.calls and self.answer is None:
            raise ValueError("a rule needs `calls` or an `answer`")
        return self


class FallbackRule(Strict):
    """`when` is CEL over `inputs`, `files` (names) and `failure`; the first rule that matches is followed."""

    id: Annotated[str, Field(pattern=AUTOMATION_NAME_PATTERN)]
    when: Annotated[str, Field(min_length=1, max_length=1000)]
    then: RuleThen


class AutomationFile(Strict):
    """An automation as written in YAML: `automations/<name>.yaml`."""

    apiVersion: Literal["gatehouse/v1"]  # noqa: N815  (the spelling people know from other YAML)
    name: Annotated[str, Field(pattern=AUTOMATION_NAME_PATTERN)]
    version: Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+){0,2}$")]
    description: Annotated[str, Field(min_length=1, max_length=500)]
    owner: str
    instructions: Annotated[str, Field(min_length=1, max_length=20_000)]
    inputs: JsonObject
    """JSON Schema of the run's inputs."""
    files: FileRules = FileRules()
    tools: Annotated[tuple[str, ...], Field(min_length=1)]
    models: tuple[str, ...] = ()
    """Model ids `provider:name`, tried in order; may be empty (rules first)."""
    budgets: Budgets = Budgets()
    approvals: ApprovalDefaults = ApprovalDefaults()
    targets: Annotated[tuple[Annotated[str, Field(min_length=1, max_length=300)], ...], Field(max_length=500)] = ()
    """Where its calls may go: the only values that target arguments (and links in texts that change something) may
    have. `*` stands for any characters but `@`, `/` and a space: `*@corp.example`. Empty: no such list."""
    rules: tuple[FallbackRule, ...] = ()
    output: JsonObject
    """JSON Schema of the result, an object."""


class AutomationSpec(Wire):
    """An automation resolved for one run: the definition and its tools by value, under one digest."""

    definition: AutomationFile
    tools: tuple[ToolSpec, ...]
    digest: str

    @property
    def name(self) -> str:
        """The automation's name."""
        return self.definition.name

    def tool(self, name: str) -> ToolSpec | None:
        """The tool of that name, or None when this automation may not ask for it."""
        return next((t for t in self.tools if t.name == name), None)


def resolve(definition: AutomationFile, tools: tuple[ToolSpec, ...]) -> AutomationSpec:
    """Bind a definition to the tools it names (same order) and take the digest over both."""
    body: JsonObject = {
        "definition": definition.model_dump(mode="json"),
        "tools": [t.model_dump(mode="json") for t in tools],
    }
    return AutomationSpec(definition=definition, tools=tools, digest=hashlib.sha256(canonical_json(body)).hexdigest())
