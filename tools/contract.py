"""The vocabulary of a tool call: what a tool is, what a call asks, what came of it.

Runs everywhere (workflow, workers, API); imports nothing of ours but text rules (`egress`) and does no I/O. Models here
cross the Temporal payload converter, so their fields are durable contracts: add optional fields, never reshape.
"""

import hashlib
import json
from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from tools.egress import NAMED_HOST_PATTERN

# A JSON object, as tool arguments and results are.
JsonObject = dict[str, JsonValue]

NAME_PATTERN = r"^[a-z][a-z0-9_]{0,47}$"
SHA256_PATTERN = r"^[0-9a-f]{64}$"


class Wire(BaseModel):
    """Base of every model that crosses a process boundary: frozen, and tolerant of fields a newer version added."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Strict(BaseModel):
    """Base of everything a person writes (YAML, request bodies): frozen, and an unknown field is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Effect(StrEnum):
    """What a tool does to the world, from harmless to grave. Policy rules match on it."""

    READ = "read"
    """Looks only; running it twice or never changes nothing."""
    WRITE = "write"
    """Changes the run's own workspace."""
    SEND = "send"
    """Lets data leave: messages, HTTP requests."""
    FINANCIAL = "financial"
    """Moves or commits money."""
    DESTRUCTIVE = "destructive"
    """Removes something that is not ours to recreate."""
    ACCESS = "access"
    """Grants or revokes rights."""


class Repeat(StrEnum):
    """Whether a call may be run again when nobody knows if the first attempt took effect."""

    SAFE = "safe"
    """Running it again is harmless: retried automatically."""
    AT_MOST_ONCE = "at_most_once"
    """Never repeated by the machine: an uncertain outcome becomes a question to a human."""


Trust = Literal["own", "ack", "vendor", "untrusted"]
"""Who can have written what a tool gives back.

own: only the organisation (its own settings, its own sent mail, the clock).
ack: a confirmation of a write. Ids it gives are the organisation's own; what it repeats of the call is no more trusted
than it was, and longer text in it counts as untrusted.
vendor: a known supplier (a catalogue, a price list).
untrusted: anybody (mail, web pages, files, tickets). Once read, the run is tainted.
"""

ArgumentRole = Literal["target", "handle", "quantity", "content"]
"""What an argument is for.

target: where something goes or what it acts on: an address, an account, a URL, a path, a password. Judged strictest.
handle: the id of an object, as some earlier result gave it.
quantity: an amount, a number, a date.
content: free text or data. Addresses and links inside it count as targets.
"""
ROLES: tuple[ArgumentRole, ...] = ("target", "handle", "quantity", "content")


class Outcome(StrEnum):
    """What happened to a call. Exactly one is recorded for each intent."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    """The asked-for work failed, or our machinery could not run it; nothing further will happen."""
    DENIED = "denied"
    """Policy or a human refused it; it never ran."""
    EXPIRED = "expired"
    """Nobody answered before the deadline; it never ran."""
    CANCELLED = "cancelled"
    """The run was cancelled before the call finished."""
    UNKNOWN = "unknown"
    """It may or may not have taken effect and must not be repeated blindly."""


class Limits(Strict):
    """What one call may use. Enforced by the sandbox from outside and inside."""

    timeout_s: Annotated[float, Field(gt=0, le=900)] = 30.0
    memory_mb: Annotated[int, Field(ge=32, le=4096)] = 256
    cpus: Annotated[float, Field(gt=0, le=4)] = 1.0
    pids: Annotated[int, Field(ge=4, le=512)] = 64
    output_bytes: Annotated[int, Field(ge=1024, le=16 << 20)] = 1 << 20
    """Cap on stdout plus stderr together; beyond it the program is killed and the failure names this limit."""
    tmp_mb: Annotated[int, Field(ge=1, le=1024)] = 64


class EgressLimits(Strict):
    """What one call may do through the egress proxy, over all its hosts."""

    requests: Annotated[int, Field(ge=1, le=10_000)] = 100
    sent_bytes: Annotated[int, Field(ge=0, le=1 << 30)] = 8 << 20
    received_bytes: Annotated[int, Field(ge=0, le=4 << 30)] = 64 << 20


class EgressCredential(Strict):
    """A header that the egress proxy adds to requests for one host; the container never sees its value.

    The program asks the proxy for `http://<host>:443/...`; the proxy adds the header and speaks TLS with the host.
    """

    host: Annotated[str, Field(pattern=NAMED_HOST_PATTERN)]
    """One exact host of `egress`; `host:80` sends the secret without TLS."""
    secret: Annotated[str, Field(pattern=NAME_PATTERN)]
    """Name of a secret, resolved on the sandbox worker."""
    header: Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9-]{0,63}$")] = "Authorization"
    prefix: Annotated[str, Field(pattern=r"^[ -~]{0,32}$")] = "Bearer "


class ToolSpec(Wire):
    """A tool as resolved for a run: manifest plus the digest of its program. Carried by value in the workflow input."""

    name: Annotated[str, Field(pattern=NAME_PATTERN)]
    version: str
    description: str
    """Shown to the model: what the tool does and when to use it."""
    parameters: JsonObject
    """JSON Schema (draft 2020-12) of the arguments object."""
    effect: Effect
    repeat: Repeat = Repeat.SAFE
    workspace: Literal["none", "read", "write"] = "read"
    """How the run's workspace is mounted at /workspace."""
    egress: tuple[str, ...] = ()
    """Hosts the tool may reach, through the egress proxy only; see `tools.egress` for how they are written."""
    egress_credentials: tuple[EgressCredential, ...] = ()
    egress_limits: EgressLimits = EgressLimits()
    secrets: tuple[str, ...] = ()
    """Names of secrets the program finds as files `/work/secrets/<name>`, resolved on the sandbox worker."""
    image: str = "base"
    """Name of a sandbox image known to the sandbox worker."""
    limits: Limits = Limits()
    results: Trust = "untrusted"
    """Who can have written what the tool gives back."""
    roles: dict[str, ArgumentRole] = Field(default_factory=dict)
    """Argument path -> role. `message.to` names a field of an object and everything below it, lists are left out of the
    path. What is not named, and has no named parent, is a target."""
    program_sha256: Annotated[str, Field(pattern=SHA256_PATTERN)]
    """Digest of run.py; the sandbox worker fetches exactly this program from the blob store."""
    reconcile_sha256: Annotated[str, Field(pattern=SHA256_PATTERN)] | None = None
    """Digest of the program that finds out whether a call took effect whose attempt was lost."""


class ToolCall(Wire):
    """One request of an agent, a rule or a human for one tool. `id` is unique within the run."""

    id: str
    tool: str
    arguments: JsonObject


class ToolResult(Wire):
    """What came of one call; `content` is what the model reads (redacted and capped)."""

    outcome: Outcome
    content: str
    """JSON or plain text, at most `CONTENT_LIMIT_CHARS` characters."""
    error: str | None = None
    """Short machine-readable kind when not succeeded: timeout, oom, output_limit, exit_code, bad_output,
    sandbox_unavailable, policy, human, deadline, cancelled, worker_lost, invalid_arguments."""
    full_sha256: str | None = None
    """Blob digest of the full output when `content` was capped."""
    duration_ms: int = 0
    exit_code: int | None = None


CONTENT_LIMIT_CHARS = 16_000

RECONCILE_S = 15.0
"""How long a tool's reconcile program may take, whatever the tool's own limit."""


def canonical_json(value: JsonValue | Mapping[str, JsonValue]) -> bytes:
    """UTF-8 JSON with sorted keys and no spaces: the byte form that digests are taken over. NaN is refused."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def arguments_digest(tool: str, arguments: JsonObject) -> str:
    """Hex SHA-256 that binds an approval to exactly one tool and one set of arguments."""
    return hashlib.sha256(canonical_json({"tool": tool, "arguments": arguments})).hexdigest()
