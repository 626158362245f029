"""Operations on the policy: what the gate would say, why, and how that is changed."""

from collections.abc import Mapping, Sequence
from typing import Any

from gatehouse_client.models.policy import (
    Decision,
    Document,
    Explanation,
    Facts,
    Lint,
    Policy,
    PolicyChange,
    PolicyDiff,
    PolicyDocuments,
    PolicyReport,
    PolicyText,
    Proposal,
    Simulation,
    SuggestedRule,
)
from gatehouse_client.transport import Transport, segment

IN_FORCE = PolicyDocuments()
"""The policy in force."""


class PolicyOperations(Transport):
    """Ask the gate, and propose another policy."""

    async def check_policy(
        self, automation: str, tool: str, arguments: Mapping[str, Any] | None = None, *,
        roles: Sequence[str] | None = None, facts: Facts | None = None,
    ) -> Decision:  # fmt: skip
        """What the gate would say of a call. `facts` left out are the most distrustful ones."""
        return await self._call(
            Decision, "POST", "/policy/check", body=_asked(automation, tool, arguments, roles, facts)
        )

    async def explain_policy(
        self, automation: str, tool: str, arguments: Mapping[str, Any] | None = None, *,
        roles: Sequence[str] | None = None, facts: Facts | None = None,
    ) -> Explanation:  # fmt: skip
        """The decision, and the rows behind it."""
        body = _asked(automation, tool, arguments, roles, facts)
        return await self._call(Explanation, "POST", "/policy/explain", body=body)

    async def get_policy(self) -> Policy:
        """What is in force, and what is wrong with a newer one."""
        return await self._call(Policy, "GET", "/policy")

    async def get_policy_version(self, version: str) -> PolicyText:
        """A whole policy as one rules file."""
        return await self._call(PolicyText, "GET", f"/policy/versions/{segment(version)}")

    async def lint_policy(self, policy: PolicyDocuments = IN_FORCE) -> Lint:
        """What is wrong or strange about its rules."""
        return await self._call(Lint, "POST", "/policy/lint", body=policy.model_dump())

    async def test_policy(self, cases: Document, *, policy: PolicyDocuments = IN_FORCE) -> PolicyReport:
        """Whether it decides a table of cases as expected."""
        return await self._call(PolicyReport, "POST", "/policy/test", body={"cases": cases, "policy": policy})

    async def diff_policy(self, after: PolicyDocuments, *, before: PolicyDocuments = IN_FORCE) -> PolicyDiff:
        """What differs, in rows and in verdicts."""
        return await self._call(PolicyDiff, "POST", "/policy/diff", body={"after": after, "before": before})

    async def simulate_policy(self, policy: PolicyDocuments = IN_FORCE) -> Simulation:
        """Which of the decisions on record it would have taken otherwise."""
        return await self._call(Simulation, "POST", "/policy/simulate", body=policy.model_dump())

    async def list_policy_changes(self, *, limit: int = 50) -> tuple[PolicyChange, ...]:
        """When which policy came into force, the newest first."""
        return await self._all(PolicyChange, "/policy/history", {"limit": limit})

    async def list_policy_proposals(self, *, state: str | None = None, limit: int = 50) -> tuple[Proposal, ...]:
        """What somebody wants to be the policy."""
        return await self._all(Proposal, "/policy/proposals", {"state": state, "limit": limit})

    async def propose_policy(self, policy: PolicyDocuments, *, note: str = "") -> Proposal:
        """Propose another policy; nothing changes yet."""
        return await self._call(Proposal, "POST", "/policy/proposals", body={"policy": policy, "note": note})

    async def apply_policy(self, proposal_id: str) -> PolicyChange:
        """Put a proposal in force. Somebody else than who proposed it, where that is asked for."""
        return await self._call(PolicyChange, "POST", f"/policy/proposals/{segment(proposal_id)}/apply")

    async def reject_policy(self, proposal_id: str, reason: str) -> Proposal:
        """Turn a proposal down."""
        path = f"/policy/proposals/{segment(proposal_id)}/reject"
        return await self._call(Proposal, "POST", path, body={"reason": reason})

    async def suggest_policy(self, *, times: int = 3) -> tuple[SuggestedRule, ...]:
        """Rules that would spare people questions they approved `times` times and never denied."""
        return await self._all(SuggestedRule, "/policy/suggestions", {"times": times})


def _asked(
    automation: str, tool: str, arguments: Mapping[str, Any] | None, roles: Sequence[str] | None, facts: Facts | None
) -> dict[str, Any]:
    asked = {"automation": automation, "tool": tool, "arguments": dict(arguments or {}), "roles": roles}
    return asked | {"facts": facts}
