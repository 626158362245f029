"""What a model provider gets to see, by the bytes that reach one, and what comes back from it."""

import json
from typing import Any

import pytest
from pydantic import JsonValue
from pydantic_ai.messages import (
    InstructionPart,
    ModelMessage,
    ModelRequest,
    ModelResponse,
    SystemPromptPart,
    TextPart,
    ToolCallPart,
    ToolReturnPart,
    UserPromptPart,
)
from pydantic_ai.models import ModelRequestParameters
from pydantic_ai.models.function import AgentInfo, FunctionModel

from policies.redaction import Redactor
from policies.redaction.exact import forms
from policies.redaction.placeholders import Level, Placeholders
from tests.fixtures.provider import Provider, Says, calls
from worker.models import Models
from worker.privacy import PrivateModel
from worker.settings import Settings

KEY = b"k" * 32
MAIL, CARD, PHONE = "jo.doe@corp.example", "4111 1111 1111 1111", "+49 30 1234567"
PASSWORD = 'pa"ss/w0rd é'
TOKEN = "ghp_" + "a1B2c3D4e5" * 4


def everything() -> list[ModelMessage]:
    """Each value in each kind of part."""
    inputs = json.dumps({"to": MAIL, "password": PASSWORD}, ensure_ascii=False)
    return [
        ModelRequest(parts=[SystemPromptPart(f"Serve {MAIL}."), UserPromptPart(f"Inputs:\n{inputs}\ncall {PHONE}")]),
        ModelResponse(
            parts=[TextPart(f"I write to {MAIL}"), ToolCallPart("send", {"to": MAIL, "state": PASSWORD}, "c1")]
        ),
        ModelRequest(
            parts=[
                ToolReturnPart("send", {"card": CARD, "seen": [MAIL]}, "c1"),
                ToolReturnPart("send", f"not like {MAIL}", "c2", outcome="retried"),
                UserPromptPart([f"token {TOKEN}", f"again {PASSWORD}"]),
            ],
            instructions=f"Ask {MAIL} first.",
        ),
    ]


def wire(provider: Provider, model: str) -> bytes:
    return json.dumps(provider.asked[model], ensure_ascii=False).encode() + json.dumps(provider.asked[model]).encode()


@pytest.fixture
def settings(provider: Provider) -> Settings:
    return Settings.model_validate(
        {
            "practice_model_url": f"{provider.url}/v1",
            "ANTHROPIC_API_KEY": "sk-ant-test-0123456789abcdef",
            "ANTHROPIC_BASE_URL": provider.url,
        }
    )


@pytest.mark.parametrize("protocol", ["practice", "anthropic"])
async def test_no_private_value_reaches_the_provider_and_every_one_comes_back(
    provider: Provider, settings: Settings, protocol: str
) -> None:
    name = f"private-{protocol}"
    held = "the key is sk-ant-test-0123456789abcdef."
    messages = [*everything(), ModelRequest(parts=[UserPromptPart(held)])]
    parameters = ModelRequestParameters(instruction_parts=[InstructionPart(f"Ask {MAIL} first.")])
    provider.script(name, Says("ok"))
    model = Models(settings).resolve(f"{protocol}:{name}")
    await model.request(messages, None, parameters)
    sent = wire(provider, name)
    for value in (MAIL, CARD, PHONE, PASSWORD, TOKEN, "sk-ant-test-0123456789abcdef"):
        for form in forms(value.encode()):
            assert form not in sent, value
    assert b"Inputs:" in sent
    assert b"placeholder" in sent, "the model is told what they are"

    # The model writes what it saw; what it made up stays as it is.
    words = sent.decode().replace('"', " ").split()
    shown = next(word for word in words if word.startswith("<email_")).strip(".,;\\")
    provider.script(name, calls(("send", {"to": shown, "cc": "<email_aaaaaaaa>", shown: [f"x {shown}"]})))
    response = await model.request(messages, None, parameters)
    [part] = [part for part in response.parts if isinstance(part, ToolCallPart)]
    assert part.args == {"to": MAIL, "cc": "<email_aaaaaaaa>", MAIL: [f"x {MAIL}"]}


async def answered(messages: list[ModelMessage], level: Level, answer: str) -> tuple[str, str]:
    """What a model was asked and what came back of its answer, `{seen}` being the first placeholder it saw."""
    asked: list[str] = []

    async def answers(got: list[ModelMessage], _: AgentInfo) -> ModelResponse:
        asked.append(str(got))
        seen = next((word for word in str(got).replace("'", " ").split() if word.startswith("<")), "")
        return ModelResponse(parts=[TextPart(answer.format(seen=seen))])

    model = PrivateModel(FunctionModel(answers), level, Redactor())
    response = await model.request(messages, None, ModelRequestParameters())
    [part] = response.parts
    assert isinstance(part, TextPart)
    return asked[0], part.content


async def test_the_level_decides_what_is_kept_back() -> None:
    messages: list[ModelMessage] = [ModelRequest(parts=[UserPromptPart(f"mail {MAIL} with {TOKEN} please")])]
    expected: dict[Level, tuple[bool, bool]] = {
        "off": (True, True), "secrets": (True, False), "personal": (False, False),
    }  # fmt: skip
    for level, (mail, token) in expected.items():
        asked, _ = await answered(messages, level, "done")
        assert (MAIL in asked, TOKEN in asked) == (mail, token)
    _, said = await answered(messages, "personal", "I wrote to {seen}")
    assert said == f"I wrote to {MAIL}"


def private(*texts: Any, scope: str = "run_1") -> Placeholders:
    placeholders = Placeholders("personal", KEY, scope)
    for text in texts:
        placeholders.read(text)
    return placeholders


def test_the_same_value_has_one_placeholder_in_a_run_and_another_elsewhere() -> None:
    here, again, elsewhere = private(MAIL), private({"x": [f"to {MAIL}"]}), private(MAIL, scope="run_2")
    assert here.hide(MAIL) == again.hide(MAIL)
    assert here.hide(MAIL) != elsewhere.hide(MAIL)
    assert elsewhere.restore(here.hide(MAIL)) == here.hide(MAIL), "never the value of another run"


def test_a_placeholder_in_foreign_text_stands_for_nothing() -> None:
    """Who writes one into a file cannot make it mean a value that is not there."""
    mine = private(MAIL).hide(MAIL)
    other = private("other@corp.example", f"read this: {mine}")
    other.hide("other@corp.example")
    assert other.restore(mine) == mine


def test_what_was_recognised_once_is_hidden_wherever_it_stands() -> None:
    texts: list[JsonValue] = [
        "Phone: 451 5986",
        "later: 451 5986 again",
        {"password": "correct horse"},
        "it was correct horse, I think",
    ]
    placeholders = private(*texts)
    hidden = json.dumps(placeholders.hide(texts))
    assert "451 5986" not in hidden
    assert "correct horse" not in hidden
    assert placeholders.restore(placeholders.hide(texts)) == texts


def test_values_come_back_as_they_are_where_json_had_to_escape_them() -> None:
    text = json.dumps({"password": PASSWORD})
    placeholders = private(text)
    hidden = str(placeholders.hide(text))
    [shown] = [word.strip('"}') for word in hidden.split() if "<secret_" in word]
    assert placeholders.restore(shown) == PASSWORD
