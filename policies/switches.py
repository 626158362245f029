"""Kill switches and safe mode: what a switch in force refuses. Pure; asked by the gate, by the sandbox right before a
program starts, by the models worker and by the API, so that all of them mean the same.

A switch has no exceptions and no conditions: whoever is in its scope is stopped. Several may be in force; the strictest
counts.
"""

from collections.abc import Iterable
from datetime import datetime
from typing import Final, Literal, NamedTuple

from policies.decision import Decision, Verdict
from policies.glob import glob
from tools.contract import Effect, Wire

Scope = Literal["global", "tenant", "automation", "tool", "model"]
"""What is stopped: everything; a tenant's runs; runs of automations; calls of tools; requests to models."""
SwitchState = Literal["stop", "safe_mode", "released"]
"""`stop`: nothing. `safe_mode`: only calls whose effect is read. `released`: no effect any more."""
Running = Literal["pause", "cancel"]
"""What becomes of runs under way: they stand still until the switch is eased, or end."""

EVERYWHERE: Final = "*"
"""Tenant of a switch that counts for all of them."""
RUN_WIDE: Final = ("global", "tenant", "automation")
"""Scopes that stop whole runs; the others stop single calls or requests."""

KILL_SWITCH: Final = "kill-switch"
"""Rule id of a refusal because the whole run is stopped."""
TOOL_SWITCH: Final = "tool-switch"
SAFE_MODE: Final = "safe-mode"
RULES: Final = (KILL_SWITCH, TOOL_SWITCH, SAFE_MODE)
"""No rule of a policy may have one of these ids."""


class Switch(Wire):
    """One switch as it stands."""

    id: str
    scope: Scope
    tenant: str
    """Whose runs it counts for; `*` for all tenants'."""
    target: str = ""
    """Pattern of automation, tool or model names; empty for the scopes global and tenant."""
    state: SwitchState
    running: Running = "pause"
    reason: str
    set_by: str
    set_at: datetime
    revision: int
    """1 when set, +1 with each step of its release: tells a late message from a new one."""
    changed_by: str
    changed_at: datetime


class Hold(Wire):
    """What a switch says to a run (`run.freeze`, `run.thaw`), and what the run remembers of it. Crosses the Temporal
    boundary: add optional fields, never reshape."""

    switch_id: str
    revision: int
    """Of the switch: what is older than the last one heard of counts for nothing."""
    reason: str = ""
    held: bool = True
    """Set by the run itself."""


class Refusal(NamedTuple):
    """Why something may not be: the rule id for the record, and the switch."""

    rule: str
    switch: Switch

    @property
    def reason(self) -> str:
        """For people and the agent. Names the switch, so that somebody can ask who set it."""
        switch = self.switch
        return f"{told(switch)} by {switch.id}: {switch.reason}"

    def decision(self, policy_version: str) -> Decision:
        """The denial, as the gate records it."""
        return Decision(verdict=Verdict.DENY, rule=self.rule, reason=self.reason, policy_version=policy_version)


def told(switch: Switch) -> str:
    """What is stopped, in words."""
    what = {
        "global": "everything", "tenant": f"tenant {switch.tenant}", "automation": f"automation {switch.target}",
        "tool": f"tool {switch.target}", "model": f"model {switch.target}",
    }[switch.scope]  # fmt: skip
    return f"{what} is {'stopped' if switch.state == 'stop' else 'in safe mode'}"


def covers(switch: Switch, tenant: str, automation: str) -> bool:
    """Whether a run of that tenant and automation is in the scope of a run-wide switch."""
    if switch.scope not in RUN_WIDE or not _of(switch, tenant):
        return False
    return switch.scope != "automation" or glob(automation, switch.target)


def refused_run(switches: Iterable[Switch], tenant: str, automation: str) -> Refusal | None:
    """The stop that covers a run: it may not start, nor go on. Safe mode lets runs work."""
    for switch in switches:
        if switch.state == "stop" and covers(switch, tenant, automation):
            return Refusal(KILL_SWITCH, switch)
    return None


def refused_call(
    switches: Iterable[Switch], tenant: str, automation: str, tool: str, effect: Effect
) -> Refusal | None:  # fmt: skip
    """Why a call may not run now, or None. A stop of the run is named before a stop of the tool, that before safe
    mode."""
    known = [s for s in switches if s.state != "released"]
    if (refusal := refused_run(known, tenant, automation)) is not None:
        return refusal
    for switch in known:
        if switch.scope == "tool" and switch.state == "stop" and _of(switch, tenant) and glob(tool, switch.target):
            return Refusal(TOOL_SWITCH, switch)
    if effect is Effect.READ:
        return None
    for switch in known:
        if switch.state == "safe_mode" and covers(switch, tenant, automation):
            return Refusal(SAFE_MODE, switch)
    return None


def refused_model(switches: Iterable[Switch], tenant: str, model: str) -> Refusal | None:
    """Why a model may not be asked now, or None."""
    for switch in switches:
        if switch.scope == "model" and switch.state == "stop" and _of(switch, tenant) and glob(model, switch.target):
            return Refusal(KILL_SWITCH, switch)
    return None


def _of(switch: Switch, tenant: str) -> bool:
    return switch.tenant in (EVERYWHERE, tenant)
