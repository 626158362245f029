"""Starting a run's workflow: by the API when somebody asks, by the keeper when a crash came between the two.

The workflow id is the run id, and Temporal takes an id once: whoever starts a run first, it starts once.
"""

import asyncio
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path

from temporalio.client import Client
from temporalio.common import (
    SearchAttributeKey,
    SearchAttributePair,
    TypedSearchAttributes,
    WorkflowIDConflictPolicy,
    WorkflowIDReusePolicy,
)
from temporalio.exceptions import WorkflowAlreadyStartedError
from temporalio.service import RPCError, RPCStatusCode

from policies.source import SourceError
from policies.switches import refused_run
from tools.catalog import BUILT_IN, load_tools
from tools.errors import ToolError
from worker import temporal
from worker.automations import specs
from worker.store.runs import Run
from worker.store.switches import Switches
from workflows.contracts import QUEUE_RUNS, SA_AUTOMATION, SA_PHASE, SA_TENANT, WORKFLOW, Phase, RunRequest
from workflows.spec import AutomationSpec

START_S = 5.0

_AUTOMATION = SearchAttributeKey.for_keyword(SA_AUTOMATION)
_TENANT = SearchAttributeKey.for_keyword(SA_TENANT)
_PHASE = SearchAttributeKey.for_keyword(SA_PHASE)
_NEVER = {RPCStatusCode.INVALID_ARGUMENT, RPCStatusCode.FAILED_PRECONDITION, RPCStatusCode.OUT_OF_RANGE}
"""What Temporal would say again however often it is asked."""


def request_of(run: Run, spec: AutomationSpec, answer_keys: Mapping[str, str], sandbox_wait_s: float) -> RunRequest:
    """The workflow's input, as the row has it: the principal as first authenticated, which its first step compares."""
    return RunRequest(
        run_id=run.id, principal=run.principal, automation=spec, inputs=run.inputs, files=run.files,
        answer_keys=dict(answer_keys), sandbox_wait_s=sandbox_wait_s,
    )  # fmt: skip


async def start_workflow(client: Client, request: RunRequest, details: str) -> None:
    """Start it under the run's id; starting it again does nothing. Raises RPCError.

    `details`: markdown shown in the Temporal UI. Search attributes are not encrypted, so they hold names only.
    """
    temporal.belongs(client, request.run_id, request.principal.tenant)
    definition = request.automation.definition
    names = [(_AUTOMATION, definition.name), (_TENANT, request.principal.tenant), (_PHASE, Phase.QUEUED.value)]
    try:
        await client.start_workflow(
            WORKFLOW,
            request,
            id=request.run_id,
            task_queue=QUEUE_RUNS,
            id_reuse_policy=WorkflowIDReusePolicy.REJECT_DUPLICATE,
            id_conflict_policy=WorkflowIDConflictPolicy.FAIL,
            search_attributes=TypedSearchAttributes([SearchAttributePair(key, name) for key, name in names]),
            memo={"automation": f"{definition.name} {definition.version}", "requester": request.principal.id},
            static_summary=f"{definition.name} {definition.version} for {request.principal.id}",
            static_details=details,
            rpc_timeout=timedelta(seconds=START_S),
        )
    except WorkflowAlreadyStartedError:
        return


def details_of(run: Run, url: str) -> str:
    """Markdown about a run for the Temporal UI. `url`: of the run in the API."""
    files = ", ".join(f"`{f.name}`" for f in run.files[:10]) or "none"
    return (
        f"**{run.automation} {run.automation_version}** for `{run.requester}` (tenant `{run.tenant}`)\n\n"
        f"- run: [{run.id}]({url})\n- events: `{url}/events`\n- files: {files}\n"
    )


def read_definitions(home: Path | None) -> Mapping[str, AutomationSpec]:
    """Every automation as its files are now. Raises SourceError, ToolError."""
    tools = load_tools([BUILT_IN, *([home / "tools"] if home else [])])
    return specs(home, {name: tool.spec for name, tool in tools.items()})


class Starting:
    """Starts runs that were asked for, and whose workflow does not exist."""

    def __init__(
        self, switches: Switches, answer_keys: Mapping[str, str], read: Callable[[], Mapping[str, AutomationSpec]], *,
        sandbox_wait_s: float, api: str = "",
    ) -> None:  # fmt: skip
        """`read`: the automations as they are now. `api`: address people reach the API at."""
        self._switches = switches
        self._answer_keys = answer_keys
        self._read = read
        self._sandbox_wait_s = sandbox_wait_s
        self._api = api

    async def held(self, run: Run) -> bool:
        """Whether a kill switch keeps runs of its automation from starting. Raises StoreUnavailable."""
        return refused_run(await self._switches.in_force(), run.tenant, run.automation) is not None

    async def start(self, client: Client, run: Run) -> str | None:
        """None when it is started; else why it cannot be. Raises RPCError for what may pass."""
        try:
            spec = (await asyncio.to_thread(self._read)).get(run.automation)
        except (SourceError, ToolError, OSError) as error:
            return f"the automations cannot be read: {error}"
        if spec is None:
            return f"there is no automation {run.automation} any more"
        if spec.digest != run.digest:
            return f"{run.automation} has changed since it was asked for"
        request = request_of(run, spec, self._answer_keys, self._sandbox_wait_s)
        try:
            await start_workflow(client, request, details_of(run, f"{self._api}/api/v1/runs/{run.id}"))
        except RPCError as error:
            if error.status not in _NEVER:
                raise
            return f"Temporal refuses it: {error.message}"
        return None
