"""Whether a switch in force stops a call: asked by the sandbox worker itself, right before a program may start."""

from temporalio.exceptions import ApplicationError

from policies.switches import Refusal, refused_call
from worker.store.audit import AuditLog
from worker.store.switches import Switches
from workflows.contracts import ToolRun
from workflows.faults import STOPPED


class Brake:
    """Reads the switches each time and remembers nothing. Raises StoreUnavailable: nobody can say, so nothing runs."""

    def __init__(self, audit: AuditLog) -> None:
        self._switches = Switches(audit.db, audit)

    async def stopped(self, run: ToolRun) -> Refusal | None:
        """The switch that stops the call, if one does."""
        ref, tool = run.run, run.tool
        return refused_call(await self._switches.in_force(), ref.tenant, ref.automation, tool.name, tool.effect)

    async def refuse_stopped(self, run: ToolRun) -> None:
        """Raise ApplicationError `stopped`, not retried, when a switch stops the call."""
        if (refusal := await self.stopped(run)) is not None:
            raise ApplicationError(refusal.reason, type=STOPPED, non_retryable=True)
