"""What can be asked for, and what it may use."""

from typing import Literal

from pydantic import Field

from gatehouse_client.models.wire import JsonObject, Told


class FileRules(Told):
    """What input files a run may bring; they are staged under `in/` of the workspace."""

    required: bool = False
    max_count: int = 20
    max_bytes: int = 268435456


class Budgets(Told):
    """Hard ceilings of one run. Reaching one ends the model rung; it never extends anything."""

    steps: int = 30
    tool_calls: int = 60
    tokens: int = 400000
    money_usd: float = 2.0
    wall_time_s: int = 3600


class ApprovalDefaults(Told):
    """How long a question may wait. The deadline can only deny."""

    deadline_s: int = 86400
    handover_deadline_s: int = 604800
    handover_role: str = "approver"


class Automation(Told):
    """An automation as a client needs it to start a run; `digest` covers the whole definition and its tools."""

    name: str
    version: str
    description: str
    owner: str
    digest: str
    inputs: JsonObject
    """JSON Schema of the inputs."""
    output: JsonObject
    files: FileRules
    tools: tuple[str, ...]
    models: tuple[str, ...]
    budgets: Budgets
    approvals: ApprovalDefaults
    rules: tuple[str, ...]
    """Ids of the fallback rules, in order."""
    instructions: str


Effect = Literal["read", "write", "send", "financial", "destructive", "access"] | str
"""What a tool does to the world, from harmless to grave. Policy rules match on it."""


Repeat = Literal["safe", "at_most_once"] | str
"""Whether a call may be run again when nobody knows if the first attempt took effect."""


class EgressCredential(Told):
    """A header that the egress proxy adds to requests for one host; the container never sees its value.
    The program asks the proxy for `http://<host>:443/...`; the proxy adds the header and speaks TLS with the host."""

    host: str
    secret: str
    header: str = "Authorization"
    prefix: str = "Bearer "


class EgressLimits(Told):
    """What one call may do through the egress proxy, over all its hosts."""

    requests: int = 100
    sent_bytes: int = 8388608
    received_bytes: int = 67108864


class Limits(Told):
    """What one call may use. Enforced by the sandbox from outside and inside."""

    timeout_s: float = 30.0
    memory_mb: int = 256
    cpus: float = 1.0
    pids: int = 64
    output_bytes: int = 1048576
    tmp_mb: int = 64


class Tool(Told):
    """A tool as resolved for a run: manifest plus the digest of its program. Carried by value in the workflow input."""

    name: str
    version: str
    description: str
    parameters: JsonObject
    effect: Effect
    repeat: Repeat = "safe"
    workspace: Literal["none", "read", "write"] | str = "read"
    egress: tuple[str, ...] = ()
    egress_credentials: tuple[EgressCredential, ...] = ()
    egress_limits: EgressLimits = EgressLimits()
    secrets: tuple[str, ...] = ()
    image: str = "base"
    limits: Limits = Limits()
    results: Literal["own", "ack", "vendor", "untrusted"] | str = "untrusted"
    roles: dict[str, Literal["target", "handle", "quantity", "content"] | str] = Field(default_factory=dict)
    program_sha256: str
    reconcile_sha256: str | None = None
