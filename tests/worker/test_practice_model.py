"""The practice model follows its plans over real HTTP, says what it is, and refuses what it does not know."""

import json
from typing import Any

import httpx
import pytest

from tools.catalog import load_tools
from worker.automations import automation_paths, read_all
from worker.practice_model import create_app
from worker.practice_plans import LABEL

Json = dict[str, Any]
TOOLS = load_tools()
AUTOMATIONS = {a.name: a for a in read_all(automation_paths(None), {n: t.spec for n, t in TOOLS.items()})}

FILES = {
    "files": [{"path": f"in/{n}", "size": 10, "modified": "x"} for n in ("app.log", "app.log.1", "a.tmp", "b.bak")],
    "count": 4,
    "total_bytes": 40,
}
FOUND = {
    "pattern": "ERROR",
    "matches": 3,
    "lines": 90,
    "top": [{"count": 3, "path": "in/app.log", "line": 7, "example": "ERROR boom"}],
    "samples": [{"path": "in/app.log", "line": 7, "text": "ERROR boom"}],
}
RESULTS: dict[str, str] = {
    "list_files": json.dumps(FILES),
    "search_text": json.dumps(FOUND),
    "run_python": json.dumps({"stdout": '{"2026-01-01 10h": 3}'}),
    "read_file": json.dumps({"text": "line 6\nERROR boom"}),
    "write_file": json.dumps({"path": "out/report.md"}),
    "delete_files": json.dumps({"deleted": [{"path": "in/app.log.1", "size": 10}], "freed_bytes": 10}),
}


@pytest.fixture
async def client() -> Any:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(create_app()), base_url="http://practice/v1") as opened:
        yield opened


def request(automation: str, messages: list[Json]) -> Json:
    definition = AUTOMATIONS[automation]
    tools = [
        {"type": "function", "function": {"name": n, "parameters": TOOLS[n].spec.parameters}} for n in definition.tools
    ]
    final = {"type": "function", "function": {"name": "final-answer", "parameters": definition.output}}
    return {"model": "planner", "messages": messages, "tools": [*tools, final]}


async def play(client: httpx.AsyncClient, automation: str, results: dict[str, str]) -> tuple[list[str], Json, str]:
    """Play the whole conversation: the tools in the order they were asked for, the answer, the report."""
    messages: list[Json] = [{"role": "user", "content": 'Inputs of this run, as JSON:\n{"pattern": "ERROR"}\n'}]
    if automation == "disk-cleanup":
        messages = [{"role": "user", "content": "Inputs of this run, as JSON:\n{}\n"}]
    asked: list[str] = []
    report = ""
    for _ in range(10):
        response = await client.post("/chat/completions", json=request(automation, messages))
        assert response.status_code == 200, response.text
        body = response.json()
        assert body["usage"]["total_tokens"] > 0
        message = body["choices"][0]["message"]
        messages.append(message)
        for call in message["tool_calls"]:
            name, arguments = call["function"]["name"], json.loads(call["function"]["arguments"])
            if name == "final-answer":
                return asked, arguments, report
            asked.append(name)
            report = arguments["content"] if name == "write_file" else report
            messages.append({"role": "tool", "tool_call_id": call["id"], "content": results[name]})
    raise AssertionError(f"no end: {asked}")


async def test_log_triage_is_planned_from_listing_to_answer(client: httpx.AsyncClient) -> None:
    asked, answer, report = await play(client, "log-triage", RESULTS)
    assert asked == ["list_files", "search_text", "run_python", "read_file", "write_file", "delete_files"]
    assert (answer["matches"], answer["deleted"]) == (3, ["in/app.log.1"])
    assert answer["summary"].startswith(LABEL)
    assert "ERROR boom" in report
    assert LABEL in report


async def test_a_refused_deletion_is_said_and_not_asked_again(client: httpx.AsyncClient) -> None:
    refused = {**RESULTS, "delete_files": "denied: ruth answered (audit): no"}
    asked, answer, _ = await play(client, "log-triage", refused)
    assert asked.count("delete_files") == 1
    assert answer["deleted"] == []
    assert "ruth answered" in answer["summary"]


async def test_disk_cleanup_is_planned_from_listing_to_answer(client: httpx.AsyncClient) -> None:
    asked, answer, report = await play(client, "disk-cleanup", RESULTS)
    assert asked == ["list_files", "write_file", "delete_files"]
    assert answer["freed_bytes"] == 10
    assert "in/a.tmp" in report
    assert "in/app.log" not in report


async def test_tools_that_all_fail_do_not_trap_the_plan(client: httpx.AsyncClient) -> None:
    asked, answer, _ = await play(client, "log-triage", dict.fromkeys(RESULTS, "failed: no"))
    assert "delete_files" not in asked
    assert answer["matches"] is None


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"{", b'{"messages": 7}', b'{"stream": true}', b'{"messages": [], "tools": [{"function": 3}]}'],
)
async def test_what_it_does_not_know_is_refused(client: httpx.AsyncClient, body: bytes) -> None:
    response = await client.post("/chat/completions", content=body)
    assert response.status_code == 400
    assert response.json()["error"]["message"]


async def test_it_says_what_it_is(client: httpx.AsyncClient) -> None:
    [model] = (await client.get("/models")).json()["data"]
    assert "no intelligence" in model["description"]
