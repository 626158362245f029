"""Whether a call may run: the sandbox worker looks for itself, whoever ordered it.

The workflow asks the gate and people before it orders a call. Here the order is held against what the gate and people
are on record with, so that an order that came any other way runs nothing.
"""

from temporalio.exceptions import ApplicationError

from policies.decision import Decision, Verdict
from tools.contract import arguments_digest
from worker.store.approvals import ApprovalRow, Approvals
from worker.store.audit import AuditLog
from worker.store.events import gate_id
from workflows.contracts import ApprovalState, ToolRun
from workflows.faults import REFUSED


class Permission:
    """Reads the log and the questions each time. Raises StoreUnavailable: nobody can say, so nothing runs."""

    def __init__(self, audit: AuditLog) -> None:
        self._audit = audit
        self._approvals = Approvals(audit.db)

    async def refuse_unpermitted(self, run: ToolRun) -> None:
        """Raise ApplicationError `refused`, not retried, unless the gate allowed this very call, or a human did."""
        problem = _unsound(run) or await self._missing(run)
        if problem is not None:
            raise ApplicationError(problem, type=REFUSED, non_retryable=True)

    async def _missing(self, run: ToolRun) -> str | None:
        """What the call lacks to run, if anything."""
        ref = run.run
        record = await self._audit.get(gate_id(ref.run_id, run.call.id, run.gate_pass))
        if record is None or record.tenant != ref.tenant:
            return "the gate decided nothing about this call"
        if (record.body["tool"], record.body["digest"]) != (run.tool.name, run.digest):
            return "the gate decided about another call"
        decision = Decision.model_validate(record.body["decision"])
        if decision.verdict is Verdict.DENY:
            return f"the gate denied this call: {decision.rule}"
        if decision.verdict is Verdict.ALLOW and run.generation == 1:
            return None
        # Nobody repeats what may have happened without a human's order, whatever policy allows.
        asked = None if run.approval_id is None else await self._approvals.get(ref.tenant, run.approval_id)
        if asked is None or not _approved(asked, run):
            return "no human approved this call"
        return None


def _approved(asked: ApprovalRow, run: ToolRun) -> bool:
    """Whether the answer to the question is a yes to exactly what is to run."""
    call = asked.request.call
    if asked.state is not ApprovalState.APPROVED or asked.answer is None or call is None:
        return False
    edited = asked.answer.edited_arguments
    digest = arguments_digest(call.tool, call.arguments if edited is None else edited)
    return (asked.request.run_id, call.id, digest) == (run.run.run_id, run.call.id, run.digest)


def _unsound(run: ToolRun) -> str | None:
    """What the gate allowed must be what runs."""
    if run.call.tool != run.tool.name:
        return f"the call is for {run.call.tool}, the tool is {run.tool.name}"
    if arguments_digest(run.call.tool, run.call.arguments) != run.digest:
        return "the arguments are not the ones the gate allowed"
    return None
