"""Models that a switch can stop: looked at in the models worker, right before a request leaves."""

from collections.abc import Callable

from pydantic_ai.messages import ModelMessage, ModelResponse
from pydantic_ai.models import Model, ModelRequestParameters
from pydantic_ai.models.wrapper import WrapperModel
from pydantic_ai.settings import ModelSettings
from temporalio import activity
from temporalio.exceptions import ApplicationError

from policies.switches import EVERYWHERE, refused_model
from worker.store.database import StoreUnavailable
from worker.store.runs import Runs
from worker.store.switches import Switches
from workflows.faults import STOPPED


def stoppable(resolve: Callable[[str], Model], switches: Switches, runs: Runs) -> Callable[[str], Model]:
    """The same models by the same ids, each behind the switches."""
    known: dict[str, Model] = {}

    def resolved(model_id: str) -> Model:
        if model_id not in known:
            known[model_id] = StoppableModel(resolve(model_id), model_id, switches, runs)
        return known[model_id]

    return resolved


class StoppableModel(WrapperModel):
    """A model that is not asked while a switch stops it for the run's tenant."""

    def __init__(self, wrapped: Model, model_id: str, switches: Switches, runs: Runs) -> None:
        super().__init__(wrapped)
        self._id = model_id
        self._switches = switches
        self._runs = runs

    async def request(
        self,
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
    ) -> ModelResponse:
        """Raises ApplicationError `stopped` (not retried: the ladder goes on), and `store_unavailable` (retried) when
        nobody can say whether the model is stopped."""
        await self._refuse_stopped()
        return await super().request(messages, model_settings, model_request_parameters)

    async def _refuse_stopped(self) -> None:
        try:
            switches = [s for s in await self._switches.in_force() if s.scope == "model"]
            if not switches:
                return
            run = await self._runs.get(None, activity.info().workflow_id or "")
        except StoreUnavailable as fault:
            raise ApplicationError(str(fault), type="store_unavailable") from fault
        # A run that is not on record may be anybody's: any tenant's switch stops it.
        tenants = [run.tenant] if run is not None else [s.tenant for s in switches]
        for tenant in (*tenants, EVERYWHERE):
            if (refusal := refused_model(switches, tenant, self._id)) is not None:
                raise ApplicationError(f"{self._id}: {refusal.reason}", type=STOPPED, non_retryable=True)
