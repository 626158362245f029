"""The one generic durable agent: automations are data, so one agent serves them all. Same module on both sides.

The workflow side knows a model only by its id (`provider:name`); `ModelName` never makes a request. The models worker
builds the same agent with a resolver that turns an id into a real model; that alone needs provider keys.
"""

import sys
from collections.abc import Callable
from datetime import timedelta
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType

from pydantic_ai import Agent
from pydantic_ai.capabilities import ResolveModelId
from pydantic_ai.durable_exec.temporal import TemporalDurability
from pydantic_ai.exceptions import (
    ModelQuotaExceededError,
    ModelRequestRejectedError,
    ModelRequestTimeout,
    ModelTimeoutError,
)
from pydantic_ai.messages import ModelMessage, ModelResponse
from pydantic_ai.models import Model, ModelRequestParameters, ModelResolutionContext
from pydantic_ai.settings import ModelSettings
from temporalio.common import RetryPolicy
from temporalio.workflow import ActivityConfig

from workflows.contracts import QUEUE_MODELS

AGENT_NAME = "automation"
"""Part of the activity names in every history: never change it."""

UNPARSED_ARGUMENTS = "unparsed_arguments"
"""Where the models worker puts the text of tool arguments that are no JSON object, so that the history stays valid
JSON and the model is told. No tool may have a parameter of this name."""

MAX_RETRY_AFTER_S = 20.0
"""The longest a provider's Retry-After is honoured; who asks for more is left for the next model."""

ATTEMPTS = 3

Resolver = Callable[[str], Model]


def _settle_optional_import() -> None:
    """Decide here, on the host, whether pydantic-ai has its optional MCP module.

    It looks for it in every run that brings toolsets. Two workflow threads doing so at once meet a half-imported
    module, and the run fails with ImportError; with the extra installed the late import trips Temporal's deadlock
    detector instead. So it is imported now, or, where the extra is missing (as it is meant to be), a module without
    any MCP toolset takes its place.
    """
    if find_spec("fastmcp") is not None:
        import_module("pydantic_ai.mcp")
        return
    absent = ModuleType("pydantic_ai.mcp", "Stands for the extra that is not installed.")
    absent.__dict__["MCPToolset"] = type("MCPToolset", (), {})
    sys.modules.setdefault(absent.__name__, absent)


_settle_optional_import()


class ModelName(Model):
    """A model id in workflow code: carries the name through the agent; requests happen on the models worker."""

    def __init__(self, model_id: str) -> None:
        super().__init__()
        self._vendor, _, self._name = model_id.partition(":")

    @property
    def model_name(self) -> str:
        """The name within its provider."""
        return self._name

    @property
    def system(self) -> str:
        """The provider."""
        return self._vendor

    async def request(
        self,
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
    ) -> ModelResponse:
        """Never: a request in workflow code would bypass the durable activity."""
        raise NotImplementedError(f"{self.model_id} is only a name here; requests are made by the models worker")


def build_agent(resolver: Resolver) -> Agent[None, str]:
    """The agent with `resolver` for its model ids; the activities it brings have the same names on both sides."""

    def resolve(_: ModelResolutionContext[None], model_id: str) -> Model:
        return resolver(model_id)

    return Agent(
        ModelName("none:none"),
        name=AGENT_NAME,
        deps_type=type(None),
        retries=2,
        capabilities=[
            ResolveModelId[None](resolve),
            TemporalDurability[None](
                # What another attempt would not mend. A time-out is among them: the next model answers sooner.
                non_retryable_model_errors=(
                    ModelRequestRejectedError,
                    ModelQuotaExceededError,
                    ModelRequestTimeout,
                    ModelTimeoutError,
                ),
                model_activity_config=ActivityConfig(
                    task_queue=QUEUE_MODELS,
                    schedule_to_start_timeout=timedelta(minutes=2),
                    start_to_close_timeout=timedelta(minutes=5),
                    schedule_to_close_timeout=timedelta(minutes=15),
                    heartbeat_timeout=timedelta(seconds=10),
                    retry_policy=RetryPolicy(
                        initial_interval=timedelta(seconds=1),
                        backoff_coefficient=2,
                        maximum_interval=timedelta(seconds=MAX_RETRY_AFTER_S),
                        maximum_attempts=ATTEMPTS,
                    ),
                ),
            ),
        ],
    )


AGENT = build_agent(ModelName)
"""The workflow's side."""
