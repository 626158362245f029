"""The conversation with a model: one turn is one agent run, and workflow code makes the calls it asks for.

Tools are declared to the model as external, so pydantic-ai never executes one: a turn ends with the final answer or
with the calls the model wants. Whatever happens between two turns is plain workflow code.
"""

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any, cast

from pydantic import TypeAdapter
from pydantic_ai import DeferredToolRequests, DeferredToolResults, StructuredDict, ToolDefinition, capture_run_messages
from pydantic_ai.exceptions import ToolFailed
from pydantic_ai.messages import ModelMessage, ModelMessagesTypeAdapter, ModelResponse, ToolCallPart
from pydantic_ai.output import ToolOutput
from pydantic_ai.toolsets import ExternalToolset
from pydantic_ai.usage import UsageLimits
from temporalio.exceptions import is_cancelled_exception

from tools.contract import JsonObject, Outcome, ToolCall, ToolResult
from workflows import ports
from workflows.agents import AGENT, UNPARSED_ARGUMENTS
from workflows.contracts import Carried, ModelRequested, RunRequest
from workflows.faults import MODEL_ERRORS, is_unconfigured, model_fault
from workflows.live import LiveRun
from workflows.recording import record

OUTPUT_TOOL = "final-answer"
"""Name of the tool that carries the result. The hyphen keeps it apart from every real tool's name."""

_JSON_OBJECT: TypeAdapter[JsonObject] = TypeAdapter(JsonObject)


class ModelGaveUpError(Exception):
    """This model cannot be used any further; the message says why, for people. The next one may go on."""


@dataclass
class Conversation:
    """Everything the next model request will be made from; any model of the chain can take it over."""

    messages: list[ModelMessage] = field(default_factory=list[ModelMessage])
    results: dict[str, ToolResult] = field(default_factory=dict[str, ToolResult])
    """Call id -> result of the calls the last response asked for."""
    prompt: str | None = None
    """What is said besides the results: the job at first, later why a final answer was refused."""

    @classmethod
    def opened(cls, request: RunRequest) -> "Conversation":
        """The conversation where the run stands: at its start, or where a former part left it."""
        if request.carried is None:
            return cls(prompt=_job(request))
        return cls(
            messages=ModelMessagesTypeAdapter.validate_json(request.carried.messages_json),
            results=dict(request.carried.results),
            prompt=request.carried.prompt,
        )

    def carried(self, run: LiveRun, model_index: int) -> Carried:
        """What the next part of the run needs to go on exactly here."""
        before = run.request.carried
        return Carried(
            part=(before.part if before else 0) + 1,
            messages_json=ModelMessagesTypeAdapter.dump_json(self.messages).decode(),
            results=self.results,
            prompt=self.prompt,
            steps=run.spent.steps,
            tool_calls=run.spent.tool_calls,
            input_tokens=run.spent.input_tokens,
            output_tokens=run.spent.output_tokens,
            cost_microusd=run.spent.cost_microusd,
            unpriced=run.spent.unpriced,
            worked_s=run.worked_s(),
            model_index=model_index,
            degraded=tuple(run.degraded),
            questions=run.desk.asked,
            holds=run.holds.all,
            trail=run.trail.carry(),
        )


@dataclass(frozen=True)
class Reply:
    """What a model said: the final answer (not checked yet), or the calls it wants, in its order."""

    answer: JsonObject | None
    calls: tuple[ToolCall, ...] = ()


async def turn(run: LiveRun, talk: Conversation, model: str) -> Reply:
    """Make one turn with `model` and record its model requests. Raises ModelGaveUpError; `talk` is then unchanged."""
    definition = run.definition
    with capture_run_messages() as seen:
        try:
            result = await AGENT.run(
                talk.prompt,
                message_history=talk.messages or None,
                deferred_tool_results=_deferred(talk.results) if talk.results else None,
                model=model,
                instructions=definition.instructions,
                toolsets=[_declared(run)],
                output_type=[_output(definition.output), DeferredToolRequests],
                usage_limits=UsageLimits(request_limit=max(1, definition.budgets.steps - run.spent.steps)),
            )
        except MODEL_ERRORS as error:
            if is_cancelled_exception(error):
                raise
            reason = model_fault(model, error)
            await _record(run, model, seen[len(talk.messages) :], None if is_unconfigured(error) else reason)
            raise ModelGaveUpError(reason) from error
    await _record(run, model, seen[len(talk.messages) :], None)
    talk.messages, talk.results, talk.prompt = result.all_messages(), {}, None
    if isinstance(result.output, DeferredToolRequests):
        return Reply(answer=None, calls=tuple(_call(part) for part in result.output.calls))
    return Reply(answer=_JSON_OBJECT.validate_python(result.output))


async def _record(run: LiveRun, model: str, new: list[ModelMessage], failure: str | None) -> None:
    """Record each request of the turn that was answered, and the one that failed if the last one did."""
    prompt = hashlib.sha256()
    for message in new:
        prompt.update(ModelMessagesTypeAdapter.dump_json([message]))
        if isinstance(message, ModelResponse):
            cost = run.spent.add(message)
            requested = ModelRequested(
                run=run.ref, step=run.spent.steps, model=model, prompt_digest=prompt.hexdigest(), outcome="answered",
                input_tokens=message.usage.input_tokens, output_tokens=message.usage.output_tokens, cost_microusd=cost,
            )  # fmt: skip
            await record(ports.record_model, requested, f"model request {run.spent.steps}: {model}")
    if failure is not None and not (new and isinstance(new[-1], ModelResponse)):
        run.spent.steps += 1
        requested = ModelRequested(
            run=run.ref, step=run.spent.steps, model=model, prompt_digest=prompt.hexdigest(), outcome="failed",
            failure=failure,
        )  # fmt: skip
        await record(ports.record_model, requested, f"model request {run.spent.steps} failed: {model}")


def _deferred(results: dict[str, ToolResult]) -> DeferredToolResults:
    """Results as pydantic-ai takes them: a success is content, everything else a failed tool result with its reason."""
    return DeferredToolResults(
        calls={
            call_id: result.content if result.outcome is Outcome.SUCCEEDED else ToolFailed(_told(result))
            for call_id, result in results.items()
        }
    )


def _told(result: ToolResult) -> str:
    return f"{result.outcome.value}: {result.content}"


def _declared(run: LiveRun) -> ExternalToolset[None]:
    return ExternalToolset[None](
        [
            ToolDefinition(
                name=t.name, description=t.description, parameters_json_schema=cast("dict[str, Any]", t.parameters)
            )
            for t in run.request.automation.tools
        ],
        id="tools",
    )


def _output(schema: JsonObject) -> ToolOutput[Any]:
    return ToolOutput(
        StructuredDict(cast("dict[str, Any]", schema)),
        name=OUTPUT_TOOL,
        description="Give the job's result. Call it once, alone, when the job is done.",
    )


def _call(part: ToolCallPart) -> ToolCall:
    """The call as asked; arguments that are no JSON object go on under `UNPARSED_ARGUMENTS` and fail their check."""
    arguments = part.args if isinstance(part.args, dict) else json.loads(part.args or "{}")
    if not isinstance(arguments, dict):
        arguments = {UNPARSED_ARGUMENTS: json.dumps(arguments)}
    return ToolCall(id=part.tool_call_id, tool=part.tool_name, arguments=cast("JsonObject", arguments))


def _job(request: RunRequest) -> str:
    """The first thing a model reads: inputs and files of the run. Only data; what to do is in the instructions."""
    files = "\n".join(f"- in/{f.name} ({f.size} bytes)" for f in request.files) or "(none)"
    inputs = json.dumps(request.inputs, ensure_ascii=False, sort_keys=True)
    return f"Inputs of this run, as JSON:\n{inputs}\n\nFiles in the workspace:\n{files}"
