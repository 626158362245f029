"""What a model provider gets to see: private values as placeholders, put back in what the model answers.

Made anew for each request from its messages; the history holds the true values, so gate, approval, taint and sandbox
see what really runs. Thinking is left as the provider wrote it: it is signed.
"""

import json
import secrets
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, Final, cast

from pydantic import JsonValue
from pydantic_ai import RunContext
from pydantic_ai.exceptions import UnexpectedModelBehavior
from pydantic_ai.messages import (
    InstructionPart,
    ModelMessage,
    ModelMessagesTypeAdapter,
    ModelResponse,
    ModelResponsePart,
    TextPart,
    ToolCallPart,
)
from pydantic_ai.models import Model, ModelRequestContext, ModelRequestParameters, StreamedResponse
from pydantic_ai.models.wrapper import WrapperModel
from pydantic_ai.settings import ModelSettings
from pydantic_ai.usage import RequestUsage
from temporalio import activity

from policies.redaction import Redactor
from policies.redaction.placeholders import Level, Placeholders

_NOTE: Final = (
    "Private values are replaced by placeholders such as <email_k3f9q2ab>. Write a placeholder exactly as it stands "
    "where its value is meant; tools get the value."
)
# Ours or the provider's own words about a message, never content; some are matched by value later.
_STRUCTURE: Final = frozenset(
    {"kind", "part_kind", "timestamp", "tool_name", "tool_call_id", "tool_kind", "run_id", "conversation_id", "usage",
     "model_name", "model_id", "provider_name", "provider_url", "provider_details", "provider_response_id", "signature",
     "finish_reason", "state", "media_type", "outcome"}
)  # fmt: skip


class PrivateModel(WrapperModel):
    """A model whose provider sees no private value, and never a secret that this process holds."""

    def __init__(self, wrapped: Model, level: Level, redacts: Redactor) -> None:
        super().__init__(wrapped)
        self._level: Level = level
        self._redacts = redacts
        # Of this process: another one makes other placeholders, and no request needs those of an earlier one.
        self._key = secrets.token_bytes(32)

    async def request(
        self,
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
    ) -> ModelResponse:
        """As the wrapped model, with placeholders in what it gets and the values in what it answers."""
        private, hidden, parameters = self._hidden(messages, model_request_parameters)
        response = await super().request(hidden, model_settings, parameters)
        return replace(response, parts=[_restored(part, private) for part in response.parts])

    async def count_tokens(
        self,
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
    ) -> RequestUsage:
        """As the wrapped model, of what it would get."""
        _, hidden, parameters = self._hidden(messages, model_request_parameters)
        return await super().count_tokens(hidden, model_settings, parameters)

    async def compact_messages(
        self,
        request_context: ModelRequestContext,  # noqa: ARG002  (interface)
        *,
        instructions: str | None = None,  # noqa: ARG002  (interface)
    ) -> ModelResponse:
        """Never: a provider's summary cannot be restored."""
        raise UnexpectedModelBehavior("messages are not given to a provider to be shortened: refused")

    @asynccontextmanager
    async def request_stream(
        self,
        messages: list[ModelMessage],  # noqa: ARG002  (interface)
        model_settings: ModelSettings | None,  # noqa: ARG002
        model_request_parameters: ModelRequestParameters,  # noqa: ARG002
        run_context: RunContext[Any] | None = None,  # noqa: ARG002
    ) -> AsyncGenerator[StreamedResponse]:
        """Never: nothing here streams, and a placeholder may be cut in two."""
        raise UnexpectedModelBehavior("a streamed answer cannot be restored: refused")
        yield  # pyright: ignore[reportUnreachable]

    def _hidden(
        self, messages: list[ModelMessage], parameters: ModelRequestParameters
    ) -> tuple[Placeholders, list[ModelMessage], ModelRequestParameters]:
        scope = activity.info().workflow_id if activity.in_activity() else None
        private = Placeholders(self._level, self._key, scope or "")
        dumped = cast("list[dict[str, JsonValue]]", ModelMessagesTypeAdapter.dump_python(messages, mode="json"))
        said = parameters.instruction_parts or []
        _each(dumped, lambda content: private.read(self._without_held(content)))
        private.read([part.content for part in said])

        def hide(content: JsonValue) -> JsonValue:
            return self._without_held(private.hide(self._without_held(content)))

        hidden = ModelMessagesTypeAdapter.validate_python(_each(dumped, hide))
        parts = [replace(part, content=str(hide(part.content))) for part in said]
        if private.used:
            parts.append(InstructionPart(content=_NOTE))
        return private, hidden, replace(parameters, instruction_parts=parts or parameters.instruction_parts)

    def _without_held(self, value: JsonValue) -> JsonValue:
        """Secrets of this process are taken out for good: no tool has any business with them."""
        if isinstance(value, str):
            return self._redacts.held(value)
        if isinstance(value, list):
            return [self._without_held(item) for item in value]
        if isinstance(value, dict):
            return {name: self._without_held(item) for name, item in value.items()}
        return value


def _each(messages: list[dict[str, JsonValue]], change: Callable[[JsonValue], JsonValue | None]) -> list[JsonValue]:
    """The messages with every content changed; what is only structure stays."""

    def part(fields: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
        return {name: value if name in _STRUCTURE else change(value) for name, value in fields.items()}

    return [
        {
            name: [part(cast("dict[str, JsonValue]", item)) for item in cast("list[JsonValue]", value)]
            if name == "parts"
            else value
            if name in _STRUCTURE
            else change(value)
            for name, value in message.items()
        }
        for message in messages
    ]


def _restored(part: ModelResponsePart, private: Placeholders) -> ModelResponsePart:
    if isinstance(part, TextPart):
        return replace(part, content=str(private.restore(part.content)))
    if isinstance(part, ToolCallPart) and part.args is not None:
        args = cast("str | dict[str, Any]", private.restore(_parsed(cast("str | dict[str, Any]", part.args))))
        return replace(part, args=args)
    return part


def _parsed(args: str | dict[str, Any]) -> JsonValue:
    """Arguments as an object where they are one: a value put into JSON text would have to be escaped."""
    if not isinstance(args, str):
        return cast("JsonValue", args)
    try:
        parsed: JsonValue = json.loads(args)
    except ValueError:
        return args
    return parsed if isinstance(parsed, dict) else args
