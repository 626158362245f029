"""The practice model: a small real server that speaks the OpenAI chat completions protocol and has no intelligence.

For trying the product without a provider key: it follows fixed plans (`worker.practice_plans`) for the built-in
automations and answers 400 for any other. `python -m worker.practice_model --port N`, on the loopback interface only.
"""

import argparse
import itertools
import json
import time
from collections.abc import Mapping
from typing import cast

import uvicorn
from pydantic import JsonValue
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tools.contract import JsonObject
from worker.practice_plans import LABEL, NoPlanError, next_calls

MODEL = "planner"
MAX_BODY_BYTES = 32 << 20
_CHARS_PER_TOKEN = 4


def create_app() -> Starlette:
    """The server; each instance counts its own responses."""
    serial = itertools.count(1)

    async def complete(request: Request) -> Response:
        body = await request.body()
        try:
            asked = json.loads(body) if len(body) <= MAX_BODY_BYTES else None
        except ValueError:
            asked = None
        if not isinstance(asked, dict):
            return _error(400, "the body is not a JSON object")
        chat = cast("JsonObject", asked)
        if chat.get("stream"):
            return _error(400, "streaming is not spoken here")
        try:
            calls = next_calls(chat)
        except NoPlanError as error:
            return _error(400, f"{LABEL} {error}")
        if not calls:
            return _error(400, f"{LABEL} the tools its plan needs are not on offer")
        number = next(serial)
        return JSONResponse(
            {
                "id": f"practice-{number}",
                "object": "chat.completion",
                "created": int(time.time()),
                "model": str(chat.get("model") or MODEL),
                "system_fingerprint": "fixed-rules-no-intelligence",
                "choices": [
                    {
                        "index": 0,
                        "finish_reason": "tool_calls",
                        "message": {
                            "role": "assistant",
                            "content": None,
                            "tool_calls": [
                                {
                                    "id": f"practice-{number}-{n}",
                                    "type": "function",
                                    "function": {"name": call.tool, "arguments": json.dumps(call.arguments)},
                                }
                                for n, call in enumerate(calls, 1)
                            ],
                        },
                    }
                ],
                "usage": _usage(len(body), sum(len(json.dumps(call.arguments)) for call in calls)),
            }
        )

    async def models(_: Request) -> Response:
        return JSONResponse(
            {
                "object": "list",
                "data": [{"id": MODEL, "object": "model", "owned_by": "gatehouse", "description": LABEL}],
            }
        )

    return Starlette(
        routes=[Route("/v1/chat/completions", complete, methods=["POST"]), Route("/v1/models", models)],
    )


def _usage(asked_chars: int, answered_chars: int) -> Mapping[str, JsonValue]:
    """Estimates, so that token budgets can be watched at work."""
    asked, answered = asked_chars // _CHARS_PER_TOKEN + 1, answered_chars // _CHARS_PER_TOKEN + 1
    return {"prompt_tokens": asked, "completion_tokens": answered, "total_tokens": asked + answered}


def _error(status: int, message: str) -> Response:
    return JSONResponse({"error": {"message": message, "type": "invalid_request_error"}}, status_code=status)


def main() -> None:
    """Serve until a signal ends it."""
    parser = argparse.ArgumentParser(prog="python -m worker.practice_model", description=LABEL)
    parser.add_argument("--port", type=int, required=True)
    uvicorn.run(create_app(), host="127.0.0.1", port=parser.parse_args().port, log_level="warning")


if __name__ == "__main__":
    main()
