"""The vocabulary of a decision: who asks, what is asked, what policy says. Pure data."""

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

from tools.contract import Effect, JsonObject, Wire

NO_RULE = "default-deny"
"""Rule id of a decision no rule matched."""


class Verdict(StrEnum):
    """What policy says of one call; the most restrictive matching rule wins, and no rule means deny."""

    ALLOW = "allow"
    ASK = "ask"
    DENY = "deny"


class Principal(Wire):
    """Somebody who may act: a person or a service, in one tenant, with roles; identity comes from auth."""

    id: Annotated[str, Field(min_length=1, max_length=128)]
    tenant: Annotated[str, Field(min_length=1, max_length=64)] = "default"
    roles: tuple[str, ...] = ()
    kind: Literal["person", "service"] = "person"


class GateRequest(Wire):
    """One question to the gate, with the final arguments of the call."""

    principal: Principal
    """On whose behalf the run works: the principal who started it."""
    automation: str
    tool: str
    effect: Effect
    arguments: JsonObject


class Decision(Wire):
    """The gate's answer. `rule` names the row that decided, or `default-deny`."""

    verdict: Verdict
    rule: str
    reason: str = ""
    """Written by the rule's author, shown to the reviewer and to the model."""
    approvers: str = "approver"
    """Role a person needs to answer, when the verdict is ask."""
    policy_version: str
    """Digest of the policy snapshot that decided."""
