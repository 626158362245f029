"""The workflow with two of its first commands exchanged, to see that the replay test would notice."""

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from workflows import contracts
    from workflows.automation import AutomationWorkflow
    from workflows.contracts import RunRequest, RunResult


@workflow.defn(name=contracts.WORKFLOW)
class ReorderedWorkflow(AutomationWorkflow):
    """Prepares the workspace before the run is opened."""

    @workflow.init
    def __init__(self, request: RunRequest) -> None:
        super().__init__(request)

    @workflow.run
    async def run(self, request: RunRequest) -> RunResult:
        """As before, in another order."""
        return await super().run(request)

    async def _open(self) -> None:
        await self._workspace_problem()
        await super()._open()
