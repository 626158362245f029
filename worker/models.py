"""Model ids made into models. Runs on the models worker only, the one process that holds provider keys.

An id is `<provider>:<name>` with provider openai, anthropic or practice. Every model is wrapped so that a response
leaves here with its price, with tool-call ids that are unique in the run, with tool arguments that are JSON objects,
and never with a tool the provider ran itself; and so that the provider sees no private value (`worker.privacy`).
"""

import asyncio
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

from anthropic import AsyncAnthropic
from genai_prices import calc_price
from openai import AsyncOpenAI
from pydantic_ai.exceptions import ModelAPIError, ModelTimeoutError, UnexpectedModelBehavior
from pydantic_ai.messages import ModelMessage, ModelResponse, ModelResponsePart, NativeToolCallPart, ToolCallPart
from pydantic_ai.models import Model, ModelRequestParameters
from pydantic_ai.models.anthropic import AnthropicModel
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.models.wrapper import WrapperModel
from pydantic_ai.providers.anthropic import AnthropicProvider
from pydantic_ai.providers.openai import OpenAIProvider
from pydantic_ai.settings import ModelSettings
from temporalio.exceptions import ApplicationError

from worker.privacy import PrivateModel
from worker.settings import Settings
from worker.temporal import redactor
from workflows.agents import MAX_RETRY_AFTER_S, UNPARSED_ARGUMENTS
from workflows.faults import MODEL_BUSY, MODEL_UNCONFIGURED
from workflows.spending import COST_KEY

PROVIDER_CALL_IDS_KEY = "gatehouse_provider_call_ids"
"""Key of a response's metadata: our tool-call id -> the id the provider gave."""
MAX_OUTPUT_TOKENS = 8192


class Models:
    """Builds each model once. Clients never retry themselves: the activity's retry policy is the only one."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._redacts = redactor(settings)
        self._built: dict[str, Model] = {}
        self._providers: Mapping[str, Callable[[str], Model]] = {
            "openai": self._openai,
            "anthropic": self._anthropic,
            "practice": self._practice,
        }

    def resolve(self, model_id: str) -> Model:
        """The model of that id. Raises ApplicationError `model_unconfigured` (not retryable), saying what to set."""
        if model_id not in self._built:
            provider, colon, name = model_id.partition(":")
            build = self._providers.get(provider)
            if build is None or not colon or not name:
                raise _unconfigured(f"known are {', '.join(f'{p}:<name>' for p in self._providers)}")
            self._built[model_id] = AccountedModel(self._private(build(name)), model_id, self._settings.model_timeout_s)
        return self._built[model_id]

    def _private(self, model: Model) -> Model:
        return PrivateModel(model, self._settings.model_privacy, self._redacts)

    def _openai(self, name: str) -> Model:
        if self._settings.openai_api_key is None:
            raise _unconfigured("OPENAI_API_KEY is not set")
        key = self._settings.openai_api_key.get_secret_value()
        return self._chat(name, key, self._settings.openai_base_url)

    def _practice(self, name: str) -> Model:
        if self._settings.practice_model_url is None:
            raise _unconfigured("GATEHOUSE_PRACTICE_MODEL_URL is not set")
        return self._chat(name, "none", self._settings.practice_model_url)

    def _anthropic(self, name: str) -> Model:
        if self._settings.anthropic_api_key is None:
            raise _unconfigured("ANTHROPIC_API_KEY is not set")
        client = AsyncAnthropic(
            api_key=self._settings.anthropic_api_key.get_secret_value(),
            base_url=self._settings.anthropic_base_url,
            max_retries=0,
            timeout=self._settings.model_timeout_s,
        )
        return AnthropicModel(
            name,
            provider=AnthropicProvider(anthropic_client=client),
            settings=ModelSettings(max_tokens=MAX_OUTPUT_TOKENS),
        )

    def _chat(self, name: str, key: str, base_url: str | None) -> Model:
        """A model behind the chat completions protocol, which every compatible server speaks."""
        client = AsyncOpenAI(api_key=key, base_url=base_url, max_retries=0, timeout=self._settings.model_timeout_s)
        return OpenAIChatModel(name, provider=OpenAIProvider(openai_client=client))


class AccountedModel(WrapperModel):
    """A model whose requests are bounded in time and whose responses are accounted for (see the module's text)."""

    def __init__(self, wrapped: Model, model_id: str, timeout_s: float) -> None:
        super().__init__(wrapped)
        self._id = model_id
        self._timeout_s = timeout_s

    async def request(
        self,
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
    ) -> ModelResponse:
        """One attempt. Raises pydantic-ai's model errors; ApplicationError `model_busy` when told to wait too long."""
        if model_request_parameters.native_tools:
            raise UnexpectedModelBehavior("tools run by the provider would pass no gate: refused")
        try:
            async with asyncio.timeout(self._timeout_s):
                response = await super().request(messages, model_settings, model_request_parameters)
        except TimeoutError as error:
            raise ModelTimeoutError(self._id, f"no answer within {self._timeout_s:g} s") from error
        except ModelAPIError as error:
            if error.retry_after is not None and error.retry_after > MAX_RETRY_AFTER_S:
                text = f"rate limited, asks to wait {error.retry_after:.0f} s"
                raise ApplicationError(text, type=MODEL_BUSY, non_retryable=True) from error
            raise
        if any(isinstance(part, NativeToolCallPart) for part in response.parts):
            raise UnexpectedModelBehavior("the provider ran a tool itself: refused")
        return self._accounted(response, messages)

    def _accounted(self, response: ModelResponse, messages: Sequence[ModelMessage]) -> ModelResponse:
        parts, provider_ids = renumbered(response.parts, messages)
        metadata: dict[str, Any] = {
            **(response.metadata or {}),
            COST_KEY: price_microusd(self._id, response),
            PROVIDER_CALL_IDS_KEY: provider_ids,
        }
        return replace(response, parts=parts, metadata=metadata)


def renumbered(
    parts: Sequence[ModelResponsePart], messages: Sequence[ModelMessage]
) -> tuple[list[ModelResponsePart], dict[str, str]]:
    """The parts with tool-call ids `c<step>-<n>`, unique in the conversation, and our id -> the provider's.

    Providers repeat ids, within a response and across the run; keys, approvals and audit need them unique.
    """
    responses = [message for message in messages if isinstance(message, ModelResponse)]
    used = {part.tool_call_id for message in responses for part in message.parts if isinstance(part, ToolCallPart)}
    step, wanted = len(responses) + 1, sum(isinstance(part, ToolCallPart) for part in parts)
    while any(f"c{step}-{n}" in used for n in range(1, wanted + 1)):
        step += 1  # the history was shortened, so its length alone no longer tells the step
    done: list[ModelResponsePart] = []
    provider_ids: dict[str, str] = {}
    for part in parts:
        if isinstance(part, ToolCallPart):
            ours = f"c{step}-{len(provider_ids) + 1}"
            provider_ids[ours] = part.tool_call_id
            done.append(replace(part, tool_call_id=ours, args=_arguments(part)))
        else:
            done.append(part)
    return done, provider_ids


def _arguments(part: ToolCallPart[Any]) -> dict[str, Any]:
    if isinstance(part.args, dict):
        return part.args
    try:
        parsed = json.loads(part.args or "{}")
    except ValueError:
        parsed = None
    if isinstance(parsed, dict):
        return cast("dict[str, Any]", parsed)
    return {UNPARSED_ARGUMENTS: part.args}


def price_microusd(model_id: str, response: ModelResponse) -> int | None:
    """The price of one response in millionths of a dollar, rounded up; None when not known. Unknown is never free."""
    if not response.usage.input_tokens and not response.usage.output_tokens:
        return None
    provider, _, name = model_id.partition(":")
    try:
        price = calc_price(response.usage, name, provider_id=provider).total_price
    except LookupError:
        return None
    return math.ceil(price * 1_000_000)


def _unconfigured(why: str) -> ApplicationError:
    return ApplicationError(f"not configured: {why}", type=MODEL_UNCONFIGURED, non_retryable=True)
