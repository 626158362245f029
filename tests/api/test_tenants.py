"""Promises: whatever one tenant has made does not exist for another: not by its id on any route of the API, not in any
list, not as part of something of its own; and what is tried changes nothing."""

import re
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from fastapi.routing import APIRoute

from tests.api.running import Api, Json
from tests.api.test_access import GRANT, RIGHTS, SOON, routes
from workflows.contracts import Phase

SHARED = {"get_automation", "get_tool", "get_policy_version", "apply_policy", "reject_policy"}
"""Automations and tools are the installation's; its policy is a matter of one tenant's administrators."""
THEIRS_TOO = {"/audit/verify", "/health", "/ready"}


@pytest.fixture(scope="module")
async def ids(api: Api, admin: httpx.AsyncClient) -> AsyncIterator[dict[str, str]]:
    """One of everything a tenant can have: name of the path's parameter -> id."""
    run = await api.put_run("default", Phase.AWAITING_APPROVAL)
    asked = await api.put_question(run)

    async def post(path: str, body: Json) -> str:
        response = await admin.post(path, json=body)
        assert response.status_code == 201, response.text
        return str(response.json()["id"])

    switch_id = await post("/switches", {"scope": "tool", "target": "none_such", "reason": "a test"})
    [notice] = [n for n in await api.services.outbox.undirected(1000) if n.id.startswith(f"switch/{switch_id}/")]
    await api.services.outbox.direct(notice, ["nowhere"])
    deliveries = await api.services.outbox.page("default", channel="nowhere")
    yield {
        "run_id": run.id, "approval_id": asked.id, "switch_id": switch_id, "delivery_id": deliveries.items[0].id,
        "grant_id": await post("/grants", GRANT), "key_id": await post("/keys", RIGHTS["create_key"][1] or {}),
        "hold_id": await post("/retention/holds", {"reason": "a test", "run_id": run.id}),
        "delegation_id": await post("/delegations", {"stand_in": "nina", "until": SOON}),
    }  # fmt: skip
    state = {"state": "stop", "reason": "over"}
    assert (await admin.post(f"/switches/{switch_id}/release", json=state)).status_code == 200


async def ask(client: httpx.AsyncClient, name: str, route: APIRoute, ids: dict[str, str]) -> httpx.Response:
    (method,) = route.methods or {"GET"}
    path = re.sub(r"\{(\w+)(:path)?\}", lambda found: ids.get(found[1], "report.md"), route.path)
    body = RIGHTS[name][1] if name in RIGHTS else None
    more: dict[str, Any] = {"json": body} if body is not None else {}
    return await client.request(method, path, **more)


async def test_by_id_on_every_route(api: Api, admin: httpx.AsyncClient, ids: dict[str, str]) -> None:
    other = await api.client("admin@elsewhere", "admin")
    of_ids = {name: route for name, route in routes().items() if "{" in route.path and name not in SHARED}
    unknown = {p for route in of_ids.values() for p in re.findall(r"\{(\w+)", route.path)} - ids.keys() - {"name"}
    assert not unknown, f"make one of these for this test: {unknown}"
    wrong: list[str] = []
    for name, route in of_ids.items():
        response = await ask(other, name, route, ids)
        if (response.status_code, response.json().get("kind")) != (404, "not_found"):
            wrong.append(f"{name}: {response.status_code} {response.text[:200]}")
    assert wrong == []
    # All of it is still there, and as it was.
    for name in "get_run", "get_approval", "get_switch":
        assert (await ask(admin, name, of_ids[name], ids)).status_code == 200


async def test_in_no_list_and_as_no_part(api: Api, admin: httpx.AsyncClient, ids: dict[str, str]) -> None:
    other = await api.client("admin@elsewhere", "admin")
    uploaded = (await admin.post("/files", params={"name": "a.log"}, content=b"x")).json()["id"]
    seen: list[str] = []
    for route in routes().values():
        if route.methods == {"GET"} and "{" not in route.path and route.path not in THEIRS_TOO:
            text = (await other.get(route.path, params={"limit": 200})).text
            seen += [f"{route.path}: {value}" for value in [*ids.values(), uploaded] if value in text]
    assert seen == []
    for query in {"run": ids["run_id"]}, {"run": ids["run_id"], "state": "pending"}:
        assert (await other.get("/approvals", params=query)).json()["items"] == []
    assert (await other.get("/audit", params={"run": ids["run_id"]})).json()["items"] == []
    body = {"automation": "tidy", "inputs": {"path": "in/a"}, "files": [uploaded]}
    refused = await other.post("/runs", json=body)
    assert (refused.status_code, refused.json()["kind"]) == (422, "invalid_files")
    asked = (await admin.get(f"/approvals/{ids['approval_id']}")).json()
    items = [{"id": asked["id"], "digest": asked["digest"]}]
    [answer] = (await other.post("/approvals/answers", json={"verdict": "approve", "items": items})).json()["items"]
    assert answer["kind"] == "not_found"
    assert (await admin.get(f"/approvals/{ids['approval_id']}")).json()["state"] == "pending"
