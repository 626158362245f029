"""The trail of one run: what it has read and done, as policies.taint keeps it, built from what the run carries.

A continued part reads the results of former parts from the conversation it carries, so nothing is stored twice; what
stands there and what came in live are taken in alike, in the same order.
"""

from pydantic import JsonValue
from pydantic_ai.messages import ModelMessagesTypeAdapter, ModelRequest, ModelResponse, ToolCallPart, ToolReturnPart

from policies.taint import Carry, Trail
from tools.contract import JsonObject, Outcome
from workflows.contracts import RunRequest


def trail_of(request: RunRequest) -> Trail:
    """The trail where the run stands: at its start, or where a former part left it."""
    definition, carried = request.automation.definition, request.carried
    said = [definition.instructions, *_texts(request.inputs)]
    if carried is None:
        return Trail(said, definition.targets)
    trail = Trail(said, definition.targets, carried.trail or Carry(tainted=True))
    calls: dict[str, tuple[str, JsonObject]] = {}
    for message in ModelMessagesTypeAdapter.validate_json(carried.messages_json):
        if isinstance(message, ModelResponse):
            parts = [part for part in message.parts if isinstance(part, ToolCallPart)]
            calls.update({part.tool_call_id: (part.tool_name, _arguments(part)) for part in parts})
        elif isinstance(message, ModelRequest):
            for part in message.parts:
                if isinstance(part, ToolReturnPart) and part.tool_call_id in calls:
                    text = part.model_response_str(wrap_if_error=False)
                    _take_in(trail, request, *calls[part.tool_call_id], text, succeeded=part.outcome == "success")
    for call_id, result in carried.results.items():
        if call_id in calls:
            succeeded = result.outcome is Outcome.SUCCEEDED
            _take_in(trail, request, *calls[call_id], result.content, succeeded=succeeded)
    return trail


def _take_in(
    trail: Trail, request: RunRequest, tool: str, arguments: JsonObject, content: str, *, succeeded: bool
) -> None:
    """A result that is no success is partly our own text, so it must vouch for nothing: only outside tools' count."""
    spec = request.automation.tool(tool)
    if spec is not None and (succeeded or spec.results == "untrusted"):
        trail.saw(spec, arguments, content)


def _arguments(part: ToolCallPart) -> JsonObject:
    try:
        return part.args_as_dict()
    except ValueError:
        return {}


def _texts(value: JsonValue) -> list[str]:
    """Every text and number of the inputs, and their names: `{"ticket_id": 24}` says `ticket_id 24`."""
    found: list[str] = []
    stack: list[tuple[str, JsonValue]] = [("", value)]
    while stack:
        name, item = stack.pop()
        if isinstance(item, dict):
            stack.extend(reversed(list(item.items())))
        elif isinstance(item, list):
            stack.extend((name, inner) for inner in reversed(item))
        elif isinstance(item, str):
            found.append(item)
            found += [f"{name} {item}"] if name and len(item) < 4 else []
        elif isinstance(item, int | float) and not isinstance(item, bool):
            found.append(f"{name} {item}")
    return found
