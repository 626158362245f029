"""The vocabulary of a decision: who asks, what is asked, what policy says. Pure data."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

from policies.terms import Terms
from tools.contract import ROLES, ArgumentRole, Effect, JsonObject, Wire

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


Origin = Literal["operator", "own_named", "own", "named", "vendor", "untrusted", "unknown"]
"""Where an argument's value stands, from most to least trusted:

operator: in what the requester or the automation's author wrote (inputs, instructions, listed targets).
own_named: in the organisation's own data, in the one record that the operator's words single out; or an id that a write
of this very run gave back.
own: elsewhere in a result of a tool whose results are the organisation's own.
named: in other data, but in the one record that the operator's words single out.
vendor: in a result of a tool whose results a known supplier wrote (a catalogue, a price list).
untrusted: only in results anybody may have written.
unknown: nowhere; composed by the model, or we could not look.
"""
ORIGINS: tuple[Origin, ...] = ("operator", "own_named", "own", "named", "vendor", "untrusted", "unknown")
"""Every origin, most trusted first: a later one is worse."""


class ArgumentFact(Wire):
    """Where one value of a call's arguments comes from."""

    path: str
    """`recipients[0]`, `message.body`; what stands inside a text is `body~https://host/path`."""
    role: ArgumentRole
    origin: Origin


class Facts(Wire):
    """What the gate knows about a call besides the call. Every default is the most distrustful value."""

    tainted: bool = True
    """The run has read content that anybody may have written. Never turns false again."""
    arguments: tuple[ArgumentFact, ...] | None = None
    """One for each value of the arguments; None when nobody looked: then every role counts as unknown."""
    lasting: bool = True
    """The call changes something that outlives the run; false for a write to the run's own workspace."""
    unlisted_target: bool = False
    """The automation lists its targets, and the call names another one."""
    calls_made: int = 0
    """Calls of this run before this one."""
    calls_of_tool: int = 0
    """Those of them that were of the same tool."""
    budget_left_usd: float | None = None
    """None when it is not known (a model without a known price was used)."""
    now: datetime | None = None

    @property
    def origins(self) -> dict[str, str]:
        """Path to origin, of every value."""
        return {fact.path: fact.origin for fact in self.arguments or ()}

    @property
    def worst(self) -> dict[str, str]:
        """The least trusted origin of each role. A role that has no value is `operator`, nothing of it can be bent;
        where nobody looked every role is `unknown`."""
        if self.arguments is None:
            return dict.fromkeys(ROLES, "unknown")
        found: dict[str, Origin] = dict.fromkeys(ROLES, ORIGINS[0])
        for fact in self.arguments:
            if ORIGINS.index(fact.origin) > ORIGINS.index(found[fact.role]):
                found[fact.role] = fact.origin
        return {**found}


class GateRequest(Wire):
    """One question to the gate, with the final arguments of the call."""

    principal: Principal
    """On whose behalf the run works: the principal who started it."""
    automation: str
    tool: str
    effect: Effect
    arguments: JsonObject
    facts: Facts | None = None
    """Taint, provenance and the run's counts; None (an older run, a dry check) counts as `Facts()`."""


class Decision(Wire):
    """The gate's answer. `rule` names the row that decided, or `default-deny`."""

    verdict: Verdict
    rule: str
    reason: str = ""
    """Written by the rule's author, shown to the reviewer and to the model."""
    approvers: str = "approver"
    """Who may answer, when the verdict is ask: a role, or the names of the groups in `terms`."""
    terms: Terms | None = None
    """What an ask demands of its answers; None in decisions of older releases: one person with that role."""
    grant: str | None = None
    """Id of the standing grant by which an ask became an allow."""
    policy_version: str
    """Digest of the policy snapshot that decided."""

    @property
    def demands(self) -> tuple[object, ...]:
        """Whose answer an ask needs. Answers count for another decision only where this is equal."""
        return self.approvers, (self.terms or Terms()).demands
