"""What leaves the models worker: prices, ids unique in the run, whole arguments, and never a provider-run tool."""

import dataclasses

import pytest
from pydantic_ai.exceptions import ModelTimeoutError, UnexpectedModelBehavior
from pydantic_ai.messages import (
    ModelMessage,
    ModelRequest,
    ModelResponse,
    NativeToolCallPart,
    TextPart,
    ToolCallPart,
    UserPromptPart,
)
from pydantic_ai.models import ModelRequestParameters
from pydantic_ai.models.function import AgentInfo, FunctionModel
from pydantic_ai.native_tools import WebSearchTool
from pydantic_ai.usage import RequestUsage
from temporalio.exceptions import ApplicationError

from tests.fixtures.provider import Provider, Silence, calls
from worker.models import AccountedModel, Models, price_microusd, renumbered
from worker.settings import Settings
from workflows.agents import UNPARSED_ARGUMENTS, ModelName
from workflows.spending import COST_KEY

ASKED: list[ModelMessage] = [ModelRequest(parts=[UserPromptPart("go")])]


def call(text: str, id_: str = "x") -> ToolCallPart:
    return ToolCallPart("note", {"text": text}, tool_call_id=id_)


def ids(response: ModelResponse) -> list[str]:
    return [part.tool_call_id for part in response.parts if isinstance(part, ToolCallPart)]


def test_ids_are_unique_in_the_conversation_and_the_providers_are_kept() -> None:
    parts, provider_ids = renumbered([TextPart("hm"), call("a", "same"), call("b", "same")], ASKED)
    first = ModelResponse(parts=parts)
    assert ids(first) == ["c1-1", "c1-2"]
    assert provider_ids == {"c1-1": "same", "c1-2": "same"}
    parts, _ = renumbered([call("c", "same")], [*ASKED, first])
    assert ids(ModelResponse(parts=parts)) == ["c2-1"]


def test_ids_stay_unique_when_the_history_was_shortened() -> None:
    late = ModelResponse(parts=[call("a", "c2-1")])
    parts, _ = renumbered([call("b")], [late])
    assert ids(ModelResponse(parts=parts)) == ["c3-1"]


@pytest.mark.parametrize("text", ['{"text": "cut', "[1]", "7", '"text"'])
def test_arguments_that_are_no_object_are_kept_as_text(text: str) -> None:
    [part], _ = renumbered([ToolCallPart("note", text, tool_call_id="x")], ASKED)
    assert isinstance(part, ToolCallPart)
    assert part.args == {UNPARSED_ARGUMENTS: text}


def response(tokens: int = 1000) -> ModelResponse:
    return ModelResponse(parts=[TextPart("x")], usage=RequestUsage(input_tokens=tokens, output_tokens=tokens // 10))


def test_a_known_price_is_taken_in_millionths_and_rounded_up() -> None:
    assert (price_microusd("openai:gpt-5.2", response()) or 0) > 1000
    assert (price_microusd("anthropic:claude-sonnet-4-5", response()) or 0) > 1000


@pytest.mark.parametrize("model", ["practice:planner", "openai:no-such-model", "openai:", "x"])
def test_an_unknown_price_is_not_zero(model: str) -> None:
    assert price_microusd(model, response()) is None


def test_a_response_without_usage_has_no_known_price() -> None:
    assert price_microusd("openai:gpt-5.2", response(0)) is None


@pytest.mark.parametrize(
    ("model", "says"),
    [
        ("openai:gpt-5.2", "OPENAI_API_KEY is not set"),
        ("anthropic:claude-sonnet-4-5", "ANTHROPIC_API_KEY is not set"),
        ("practice:planner", "GATEHOUSE_PRACTICE_MODEL_URL is not set"),
        ("mistral:large", "known are openai:<name>"),
        ("openai", "known are openai:<name>"),
        ("openai:", "known are openai:<name>"),
    ],
)
def test_what_is_not_configured_is_refused_for_good_and_says_what_to_set(model: str, says: str) -> None:
    none = Settings.model_validate({"OPENAI_API_KEY": None, "ANTHROPIC_API_KEY": None, "practice_model_url": None})
    with pytest.raises(ApplicationError, match=says) as refused:
        Models(none).resolve(model)
    assert (refused.value.type, refused.value.non_retryable) == ("model_unconfigured", True)


async def test_a_tool_the_provider_would_run_is_refused_before_the_request() -> None:
    asked: list[int] = []

    async def answers(_: list[ModelMessage], __: AgentInfo) -> ModelResponse:
        asked.append(1)
        return response()

    model = AccountedModel(FunctionModel(answers), "practice:x", 5)
    with pytest.raises(UnexpectedModelBehavior, match="would pass no gate"):
        await model.request(ASKED, None, ModelRequestParameters(native_tools=[WebSearchTool()]))
    assert asked == []


async def test_a_tool_the_provider_ran_unasked_is_refused() -> None:
    async def answers(_: list[ModelMessage], __: AgentInfo) -> ModelResponse:
        return ModelResponse(parts=[NativeToolCallPart("web_search", {})])

    model = AccountedModel(FunctionModel(answers), "practice:x", 5)
    with pytest.raises(UnexpectedModelBehavior, match="ran a tool itself"):
        await model.request(ASKED, None, ModelRequestParameters())


@pytest.fixture
def settings(provider: Provider) -> Settings:
    return Settings.model_validate(
        {
            "practice_model_url": f"{provider.url}/v1",
            "ANTHROPIC_API_KEY": "sk-ant-test-0123456789abcdef",
            "ANTHROPIC_BASE_URL": provider.url,
            "model_timeout_s": 2.5,
        }
    )


@pytest.mark.parametrize("protocol", ["practice", "anthropic"])
async def test_a_request_is_bounded_in_time(provider: Provider, settings: Settings, protocol: str) -> None:
    provider.script(f"slow-{protocol}", Silence(60))
    with pytest.raises(ModelTimeoutError):
        await Models(settings).resolve(f"{protocol}:slow-{protocol}").request(ASKED, None, ModelRequestParameters())
    assert len(provider.asked[f"slow-{protocol}"]) == 1, "the client does not retry by itself"


async def test_a_response_carries_its_price_and_ids(provider: Provider, settings: Settings) -> None:
    provider.script("priced", calls(("note", {"text": "a"}), ids=("given",)))
    got = await Models(settings).resolve("practice:priced").request(ASKED, None, ModelRequestParameters())
    assert got.metadata == {COST_KEY: None, "gatehouse_provider_call_ids": {"c1-1": "given"}}
    assert dataclasses.is_dataclass(got)


async def test_a_model_name_never_makes_a_request() -> None:
    name = ModelName("openai:gpt-5.2")
    assert (name.system, name.model_name) == ("openai", "gpt-5.2")
    with pytest.raises(NotImplementedError):
        await name.request(ASKED, None, ModelRequestParameters())
