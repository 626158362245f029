"""Operations of people who answer: questions, standing grants, stand-ins."""

from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Literal

from gatehouse_client.models.approvals import (
    Absent,
    Approval,
    ApprovalState,
    BatchChoice,
    BatchItem,
    Grant,
    Remember,
    StandIn,
)
from gatehouse_client.transport import Transport, segment


class ApprovalOperations(Transport):
    """An answer carries the `digest` of the question as it was seen: had it changed, the answer would not count."""

    def list_approvals(
        self, *, state: ApprovalState | None = None, run: str | None = None, automation: str | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[Approval]:  # fmt: skip
        """Newest first, `limit` at most; `state="pending"` is what waits."""
        return self._items(Approval, "/approvals", limit, {"state": state, "run": run, "automation": automation})

    async def get_approval(self, approval_id: str) -> Approval:
        """One question, with the exact arguments that would run."""
        return await self._call(Approval, "GET", f"/approvals/{segment(approval_id)}")

    async def approve(
        self, approval_id: str, digest: str, *, reason: str = "", edited_arguments: Mapping[str, Any] | None = None,
        output: Mapping[str, Any] | None = None, on_behalf_of: str | None = None, break_glass: bool = False,
        remember: Remember | None = None, policy_version: str | None = None, tool_version: str | None = None,
    ) -> Approval:  # fmt: skip
        """Let it run, as asked or with `edited_arguments`, which the gate checks again. `output`: the job's result,
        when a run was handed over. `remember`: do not ask about like calls. The versions, when given, must be those
        in force. Raises ConflictError, ForbiddenError and InvalidError with the refusal's `kind`."""
        body = {
            "digest": digest, "reason": reason, "edited_arguments": edited_arguments, "output": output,
            "on_behalf_of": on_behalf_of, "break_glass": break_glass, "remember": remember,
            "policy_version": policy_version, "tool_version": tool_version,
        }  # fmt: skip
        return await self._act(approval_id, "approve", body)

    async def deny(
        self, approval_id: str, digest: str, reason: str, *, on_behalf_of: str | None = None,
        policy_version: str | None = None, tool_version: str | None = None,
    ) -> Approval:  # fmt: skip
        """Refuse it; the agent is told the reason and goes on without the call."""
        body = {
            "digest": digest, "reason": reason, "on_behalf_of": on_behalf_of, "policy_version": policy_version,
            "tool_version": tool_version,
        }  # fmt: skip
        return await self._act(approval_id, "deny", body)

    async def answer_many(
        self, verdict: Literal["approve", "deny"], items: Sequence[BatchChoice], *, reason: str = ""
    ) -> tuple[BatchItem, ...]:
        """The same answer to many questions, each answered by itself; each item says what came of it."""
        body = {"verdict": verdict, "items": items, "reason": reason}
        page = await self._call(dict[str, Any], "POST", "/approvals/answers", body=body)
        return tuple(self._typed(BatchItem, item) for item in page["items"])

    async def ask_back(self, approval_id: str, digest: str, text: str, *, on_behalf_of: str | None = None) -> Approval:
        """Ask the run's requester something; the deadline runs on."""
        return await self._act(approval_id, "ask", {"digest": digest, "text": text, "on_behalf_of": on_behalf_of})

    async def reply(self, approval_id: str, digest: str, text: str, *, on_behalf_of: str | None = None) -> Approval:
        """Reply to an approver about a run of yours."""
        return await self._act(approval_id, "reply", {"digest": digest, "text": text, "on_behalf_of": on_behalf_of})

    async def delegate(self, approval_id: str, digest: str, to: str, *, text: str = "") -> Approval:
        """Let somebody else answer; the two of you have one voice."""
        return await self._act(approval_id, "delegate", {"digest": digest, "to": to, "text": text})

    async def escalate(self, approval_id: str, digest: str, *, text: str = "") -> Approval:
        """Let the next group of the rule's chain answer at once."""
        return await self._act(approval_id, "escalate", {"digest": digest, "text": text})

    async def list_grants(self) -> tuple[Grant, ...]:
        """Calls that need not be asked about again, the newest first."""
        return await self._all(Grant, "/grants")

    async def create_grant(
        self, automation: str, tool: str, arguments: Mapping[str, Any], *, uses: int, until: datetime, reason: str,
        rule: str | None = None,
    ) -> Grant:  # fmt: skip
        """Stop asking about like calls. `arguments`: each by name, its value, a pattern with `*`, or `*` for any."""
        body = {
            "automation": automation, "tool": tool, "arguments": arguments, "uses": uses, "until": until,
            "reason": reason, "rule": rule,
        }  # fmt: skip
        return await self._call(Grant, "POST", "/grants", body=body)

    async def revoke_grant(self, grant_id: str) -> Grant:
        """End a grant."""
        return await self._call(Grant, "DELETE", f"/grants/{segment(grant_id)}")

    async def list_delegations(self) -> tuple[StandIn, ...]:
        """Who answers for whom."""
        return await self._all(StandIn, "/delegations")

    async def create_delegation(
        self, stand_in: str, until: datetime, *, reason: str = "", absent: Absent | None = None
    ) -> StandIn:
        """Let somebody answer for you; administrators may say so for somebody `absent`."""
        body = {"stand_in": stand_in, "until": until, "reason": reason, "absent": absent}
        return await self._call(StandIn, "POST", "/delegations", body=body)

    async def revoke_delegation(self, delegation_id: str) -> StandIn:
        """End it before its time."""
        return await self._call(StandIn, "DELETE", f"/delegations/{segment(delegation_id)}")

    async def _act(self, approval_id: str, verb: str, body: Mapping[str, Any]) -> Approval:
        return await self._call(Approval, "POST", f"/approvals/{segment(approval_id)}/{verb}", body=body)
