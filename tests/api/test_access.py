"""Promises: no route without a key but the probes and the documentation; each role may do what the policy says; a
401 says how, a 403 names the role; both are on record; another tenant's objects do not exist."""

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute

from api.app import ROUTERS
from api.limits import Throttle
from policies.decision import Principal
from tests.api.running import ROLES, Api, Json, running
from tests.fixtures.temporal import TemporalServer
from workflows.contracts import Phase

VIEWERS = {"viewer", "operator", "approver", "auditor", "admin"}
OPERATORS, APPROVERS, AUDITORS, ADMINS = {"operator", "admin"}, {"approver", "admin"}, {"auditor", "admin"}, {"admin"}
PUBLIC = {"get_health", "get_ready", "press_in_slack"}
"""Opened by no key: the last by Slack's signature, see test_messages."""

SOON = (datetime.now(UTC) + timedelta(days=1)).isoformat()
GRANT: Json = {"automation": "none", "tool": "none", "arguments": {}, "uses": 1, "until": SOON, "reason": "a test"}

# operation id -> roles that may; a body that passes validation, so that only the right decides
RIGHTS: dict[str, tuple[set[str], Json | None]] = {
    "start_run": (OPERATORS, {"automation": "tidy", "inputs": {"path": "in/a"}}),
    "list_runs": (VIEWERS, None),
    "get_run": (VIEWERS, None),
    "cancel_run": (OPERATORS, None),
    "follow_run": (VIEWERS, None),
    "list_artifacts": (VIEWERS, None),
    "get_artifact": (VIEWERS, None),
    "upload_file": (OPERATORS, None),
    "list_approvals": (VIEWERS, None),
    "get_approval": (VIEWERS, None),
    "approve": (APPROVERS, {"digest": "0" * 64}),
    "deny": (APPROVERS, {"digest": "0" * 64, "reason": "no"}),
    "answer_many": (APPROVERS, {"verdict": "approve", "items": [{"id": "x", "digest": "0" * 64}]}),
    "ask_back": (APPROVERS, {"digest": "0" * 64, "text": "?"}),
    "reply": (VIEWERS, {"digest": "0" * 64, "text": "!"}),
    "delegate": (APPROVERS, {"digest": "0" * 64, "to": "x"}),
    "escalate": (VIEWERS, {"digest": "0" * 64}),
    "list_grants": (VIEWERS, None),
    "create_grant": (ADMINS, GRANT),
    "revoke_grant": (APPROVERS, None),
    "list_delegations": (VIEWERS, None),
    "create_delegation": (APPROVERS, {"stand_in": "somebody-else", "until": SOON}),
    "revoke_delegation": (APPROVERS, None),
    "list_automations": (VIEWERS, None),
    "get_automation": (VIEWERS, None),
    "list_tools": (VIEWERS, None),
    "get_tool": (VIEWERS, None),
    "list_audit": (AUDITORS, None),
    "verify_audit": (AUDITORS, None),
    "decode_payloads": (AUDITORS, {"payloads": []}),
    "check_policy": (VIEWERS - {"viewer"}, {"automation": "tidy", "tool": "list_files", "arguments": {"path": "in"}}),
    "explain_policy": (AUDITORS, {"automation": "tidy", "tool": "list_files", "arguments": {"path": "in"}}),
    "get_policy": (AUDITORS, None),
    "get_policy_version": (AUDITORS, None),
    "lint_policy": (AUDITORS, {}),
    "test_policy": (AUDITORS, {"cases": {"name": "c", "text": "- {tool: x, verdict: deny}"}}),
    "diff_policy": (AUDITORS, {"after": {}}),
    "simulate_policy": (AUDITORS, {}),
    "list_policy_changes": (AUDITORS, None),
    "list_policy_proposals": (AUDITORS, None),
    "propose_policy": (ADMINS, {"policy": {}}),
    "apply_policy": (ADMINS, None),
    "reject_policy": (ADMINS, {"reason": "no"}),
    "suggest_policy": (AUDITORS, None),
    "list_switches": (VIEWERS, None),
    "get_switch": (VIEWERS, None),
    "set_switch": (ADMINS, {"scope": "tool", "target": "none_such", "reason": "a test"}),
    "release_switch": (ADMINS, {"state": "stop", "reason": "a test"}),
    "get_retention": (ADMINS, None),
    "list_holds": (ADMINS, None),
    "place_hold": (ADMINS, {"reason": "a test", "run_id": "none"}),
    "release_hold": (ADMINS, {"reason": "a test"}),
    "list_deliveries": (ADMINS, None),
    "get_backlog": (ADMINS, None),
    "retry_delivery": (ADMINS, None),
    "dismiss_delivery": (ADMINS, None),
    "list_keys": (ADMINS, None),
    "create_key": (ADMINS, {"name": "k", "principal": "p", "roles": ["viewer"]}),
    "revoke_key": (ADMINS, None),
    "rotate_key": (ADMINS, {}),
    "get_me": (VIEWERS, None),
}


def routes() -> dict[str, APIRoute]:
    found = [r for router in ROUTERS for r in router.routes if isinstance(r, APIRoute)]
    return {str(r.operation_id): r for r in found}


async def ask(client: httpx.AsyncClient, route: APIRoute, body: Json | None) -> httpx.Response:
    (method,) = route.methods or {"GET"}
    path = re.sub(r"\{\w+(:path)?\}", "nothing", route.path)
    more: dict[str, Any] = {"json": body} if body is not None else {}
    if route.operation_id == "upload_file":
        more = {"params": {"name": "a.log"}, "content": b"x"}
    return await client.request(method, path, **more)


def test_every_route_is_in_the_table() -> None:
    assert set(routes()) == set(RIGHTS) | PUBLIC


def test_every_route_takes_a_principal() -> None:
    """The right stands in the signature: no route can be added that forgets it."""

    def principals(dependant: Dependant) -> bool:
        annotated = any(
            getattr(d.call, "__qualname__", "").startswith(("allowed", "authenticated", "presented"))
            for d in dependant.dependencies
        )
        return annotated or any(principals(d) for d in dependant.dependencies)

    assert {name for name, route in routes().items() if not principals(route.dependant)} == PUBLIC


@pytest.mark.parametrize("role", ROLES)
async def test_roles(api: Api, role: str) -> None:
    client = await api.client(role)
    wrong: list[str] = []
    for name, (allowed, body) in RIGHTS.items():
        response = await ask(client, routes()[name], body)
        may = response.status_code != 403
        if may is not (role in allowed):
            wrong.append(f"{name}: {response.status_code} {response.text[:200]}")
        if not may:
            problem = response.json()
            assert problem["kind"] == "forbidden"
            assert any(r in problem["detail"] for r in allowed), problem
    assert not wrong


async def test_a_refusal_is_on_record(api: Api) -> None:
    viewer = await api.client("viewer-on-record", "viewer")
    assert (await viewer.get("/audit")).status_code == 403
    mine = [r for r in await api.records("access.denied") if r["actor"] == "viewer-on-record"]
    assert [(r["resource"], r["action"], r["path"]) for r in mine] == [("audit", "read", "/api/v1/audit")]


@pytest.mark.parametrize("name", sorted(RIGHTS))
async def test_without_a_key(api: Api, name: str) -> None:
    response = await ask(api.anonymous(), routes()[name], RIGHTS[name][1])
    assert response.status_code == 401
    assert response.headers["www-authenticate"].startswith("Bearer")
    assert response.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    "header", ["Bearer gh_000000000000_" + "0" * 39, "Bearer x", "Bearer", "Basic eDp5", "Bearer gh_\u00e9"]
)
async def test_bad_keys(api: Api, header: str) -> None:
    response = await api.anonymous().get("/me", headers=[(b"Authorization", header.encode())])
    assert response.status_code == 401
    assert response.headers["www-authenticate"].startswith("Bearer")


async def test_bad_keys_are_on_record_but_cannot_flood_it(api: Api) -> None:
    for _ in range(25):
        await api.anonymous().get("/me", headers={"Authorization": "Bearer gh_guess"})
    bad = [r for r in await api.records("access.denied") if r["reason"] == "bad_key"]
    assert 1 <= len(bad) <= 10
    counted = Throttle(per_minute=1)
    assert [counted.take(), counted.take(), counted.take()] == [0, None, None]


async def test_a_revoked_key_stops_working(api: Api, admin: httpx.AsyncClient) -> None:
    made = (await admin.post("/keys", json={"name": "short", "principal": "carl", "roles": ["viewer"]})).json()
    assert made["key"].startswith("gh_")
    mine = {"Authorization": f"Bearer {made['key']}"}
    me = await api.anonymous().get("/me", headers=mine)
    assert me.json() == {"id": "carl", "tenant": "default", "roles": ["viewer"], "kind": "person"}
    listed = (await admin.get("/keys", params={"limit": 200})).json()["items"]
    assert made["key"] not in str(listed)
    assert made["id"] in [k["id"] for k in listed]
    assert (await admin.delete(f"/keys/{made['id']}")).status_code == 204
    assert (await api.anonymous().get("/me", headers=mine)).status_code == 401
    assert (await admin.delete("/keys/none-such")).status_code == 404
    typo = await admin.post("/keys", json={"name": "typo", "principal": "carl", "roles": ["viewer", "operater"]})
    assert (typo.status_code, typo.json()["errors"][0]["field"]) == (422, "body.roles.1")
    assert {"key.created", "key.revoked"} <= {
        r.type for r in await api.services.audit.page(tenant="default", limit=1000)
    }


async def test_a_key_may_be_narrower_than_its_roles(api: Api, admin: httpx.AsyncClient) -> None:
    wanted = {"name": "reads runs", "principal": "nora", "roles": ["operator"], "scopes": ["runs:read", "tools:*"]}
    made = (await admin.post("/keys", json=wanted)).json()
    assert made["scopes"] == wanted["scopes"]
    narrow = {"Authorization": f"Bearer {made['key']}"}
    for path, status in (("/runs", 200), ("/tools", 200), ("/me", 200), ("/approvals", 403), ("/keys", 403)):
        assert (await api.anonymous().get(path, headers=narrow)).status_code == status, path
    body = {"automation": "tidy", "inputs": {"path": "in/a"}}
    refused = await api.anonymous().post("/runs", json=body, headers=narrow)
    assert (refused.status_code, "do not cover runs:start" in refused.json()["detail"]) == (403, True)
    assert "scope" in [r["reason"] for r in await api.records("access.denied") if r["actor"] == "nora"]
    bad = await admin.post("/keys", json={**wanted, "scopes": ["everything"]})
    assert (bad.status_code, bad.json()["errors"][0]["field"]) == (422, "body.scopes.0")


async def test_a_key_is_replaced_without_a_gap(api: Api, admin: httpx.AsyncClient) -> None:
    made = (await admin.post("/keys", json={"name": "job", "principal": "job", "roles": ["viewer"]})).json()
    new = (await admin.post(f"/keys/{made['id']}/rotate", json={"grace_hours": 1})).json()
    assert (new["principal"], new["scopes"], new["id"] != made["id"]) == (made["principal"], [], True)
    for key in made["key"], new["key"]:
        assert (await api.anonymous().get("/me", headers={"Authorization": f"Bearer {key}"})).status_code == 200
    listed = {k["id"]: k for k in (await admin.get("/keys", params={"limit": 200})).json()["items"]}
    assert listed[made["id"]]["expires_at"] is not None
    assert (await admin.post("/keys/none-such/rotate", json={})).status_code == 404


async def test_nobody_may_ask_without_end(tmp_path: Path, temporal_server: TemporalServer) -> None:
    limits = {"rate_key": "5/hour", "rate_tenant": "8/hour", "rate_unknown": "3/hour"}
    async with running(tmp_path, temporal_server.address, **limits) as api:
        one, two = await api.client("one", "viewer"), await api.client("two", "viewer")
        assert [(await one.get("/me")).status_code for _ in range(6)] == [200] * 5 + [429]
        refused = await one.get("/me")
        assert refused.json()["kind"] == "rate_limited"
        assert 0 < int(refused.headers["retry-after"]) <= 3600
        # What was refused counts for nobody; of the tenant's 8 three are left.
        assert [(await two.get("/me")).status_code for _ in range(4)] == [200] * 3 + [429]
        wrong = {"Authorization": "Bearer gh_guess"}
        assert [(await api.anonymous().get("/me", headers=wrong)).status_code for _ in range(5)] == [401] * 3 + [
            429
        ] * 2
        assert (await api.anonymous().get("/health")).status_code == 200


async def test_answers_are_data_and_nothing_else(api: Api, admin: httpx.AsyncClient) -> None:
    for response in (await admin.get("/me"), await api.anonymous().get("/me"), await admin.get("/nowhere")):
        assert response.headers["x-content-type-options"] == "nosniff"
        assert response.headers["cache-control"] == "no-store"
        assert response.headers["content-security-policy"].startswith("default-src 'none'")


async def test_another_tenants_objects_do_not_exist(api: Api, admin: httpx.AsyncClient) -> None:
    other = await api.client("admin@walled", "admin")
    run = await api.put_run("default", Phase.AWAITING_APPROVAL)
    asked = await api.put_question(run)
    kept = await api.put_artifact("report.md", b"secret")
    key = (await admin.post("/keys", json={"name": "theirs", "principal": "x", "roles": ["viewer"]})).json()
    answer = {"digest": asked.digest, "reason": "no"}
    for method, path, body in (
        ("GET", f"/runs/{run.id}", None),
        ("POST", f"/runs/{run.id}/cancel", None),
        ("GET", f"/runs/{run.id}/events", None),
        ("GET", f"/runs/{kept.id}/artifacts", None),
        ("GET", f"/runs/{kept.id}/artifacts/report.md", None),
        ("GET", f"/approvals/{asked.id}", None),
        ("POST", f"/approvals/{asked.id}/approve", {"digest": asked.digest}),
        ("POST", f"/approvals/{asked.id}/deny", answer),
        ("DELETE", f"/keys/{key['id']}", None),
        ("POST", f"/keys/{key['id']}/rotate", {}),
    ):
        response = await other.request(method, path, json=body)
        assert response.status_code == 404, (method, path, response.text)
        assert response.json()["kind"] == "not_found"
    for path in "/runs", "/approvals", "/keys", "/audit":
        items = (await other.get(path, params={"limit": 200})).json()["items"]
        tenants = {i.get("tenant", i.get("principal", {}).get("tenant") if path == "/keys" else None) for i in items}
        assert tenants <= {"walled"}, path
    assert (await other.get("/approvals", params={"run": run.id})).json()["items"] == []


def test_the_engine_knows_every_right_the_routes_ask_for(api: Api) -> None:
    """A right the policy file does not know would lock everybody but the admin out, silently."""
    viewer = Principal(id="v", roles=("viewer",))
    for resource in "runs", "artifacts", "approvals", "automations", "tools":
        assert api.services.engine.may(viewer, resource, "read")


async def test_each_request_leaves_one_line(api: Api, capsys: pytest.CaptureFixture[str]) -> None:
    """With who, what and the id the answer carries; without the query, which may hold anything."""
    client = await api.client("viewer")
    capsys.readouterr()
    response = await client.get("/runs", params={"automation": "hidden"})
    (line,) = [line for line in capsys.readouterr().out.splitlines() if response.headers["x-request-id"] in line]
    assert all(part in line for part in ("GET", "/api/v1/runs", "200", "viewer"))
    assert "hidden" not in line
    assert api.keys["viewer"] not in line
