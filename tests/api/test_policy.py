"""The policy over the API: asking about it, changing it alone or with a second person, replaying what was decided."""

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from policies.decision import Decision, Facts, GateRequest, Principal, Verdict
from tests.api.running import Api, Json, running
from tests.fixtures.temporal import TemporalServer
from tools.contract import Effect, JsonObject, ToolCall, arguments_digest
from worker.activities.gate import GateActivities
from worker.store.audit import AuditEvent
from workflows.contracts import CallOpened, RunRef

OWN = """apiVersion: gatehouse/v1
rules:
  - {id: no-reading-of-etc, roles: [operator], effects: [read], verdict: deny,
     when: "has(args.path) && args.path.startsWith('etc')"}
"""
ASKING = """apiVersion: gatehouse/v1
roles: {admin: [operator], operator: [], approver: []}
rules:
  - {id: ask-first, roles: [operator], tools: list_files, verdict: ask}
  - {id: never-mind, roles: [operator], effects: [read], verdict: allow}
rights:
  - {id: administer, roles: [admin], resource: "*", actions: ["*"]}
"""


@pytest.fixture
async def house(tmp_path: Path, temporal_server: TemporalServer) -> AsyncIterator[Api]:
    """An API of the test's own: its policy may be changed."""
    async with running(tmp_path, temporal_server.address) as found:
        yield found


def files(text: str, *, whole: bool = False) -> Json:
    return {"documents": [{"name": "own.yaml", "text": text}], "whole": whole}


async def ok(response: httpx.Response, status: int = 200) -> Json:
    assert response.status_code == status, response.text
    found: Json = response.json()
    return found


async def kind(response: httpx.Response, status: int) -> str:
    assert response.status_code == status, response.text
    return str(response.json()["kind"])


async def test_lint_test_explain_and_diff(api: Api, admin: httpx.AsyncClient) -> None:
    assert (await ok(await admin.post("/policy/lint", json={})))["ok"]
    assert (await ok(await admin.post("/policy/lint", json=files(OWN))))["ok"]
    wrong = await admin.post("/policy/lint", json=files(OWN.replace("verdict: deny", "verdict: dney")))
    assert await kind(wrong, 422) == "invalid_policy"
    assert wrong.json()["errors"][0]["field"].startswith("own.yaml:3 rules.0.verdict")
    never = await ok(await admin.post("/policy/lint", json=files(OWN.replace("has(args.path)", "effect == 'raed'"))))
    assert [f["kind"] for f in never["findings"] if f["level"] == "error"] == ["never_true"]

    table = "- {tool: list_files, verdict: ask, rule: ask-first}\n- {tool: read_file, verdict: allow}\n"
    asked = {"cases": {"name": "cases.yaml", "text": table}, "policy": files(ASKING, whole=True)}
    assert (await ok(await admin.post("/policy/test", json=asked)))["passed"]
    unhit = await ok(await admin.post("/policy/test", json=asked | {"policy": {}}))
    assert not unhit["passed"]
    assert unhit["unhit"]

    question = {"automation": "tidy", "tool": "list_files", "arguments": {"path": "in"}, "roles": ["operator"]}
    told = await ok(await admin.post("/policy/explain", json=question))
    assert told["rows"][0]["rule"] == told["decision"]["rule"]
    different = await ok(await admin.post("/policy/diff", json={"after": files(OWN)}))
    assert different["added"] == ["no-reading-of-etc"]
    own = ["tidying-needs-approval", "tidying-needs-two"]
    assert different["removed"] == own, "of the folder's own rules, which these files replace"
    assert different["roles"] == [], "the store and the files name inherited roles in different orders"


async def test_another_tenant_may_not_see_or_change_it(api: Api) -> None:
    stranger = await api.client("boss@acme", "admin")
    for path in ("/policy", "/policy/history", "/policy/proposals", "/policy/suggestions"):
        assert await kind(await stranger.get(path), 403) == "forbidden"
    assert await kind(await stranger.post("/policy/proposals", json={"policy": files(OWN)}), 403) == "forbidden"


async def test_propose_and_apply(house: Api) -> None:
    olga = await house.client("olga", "admin")
    before = await ok(await olga.get("/policy"))
    proposal = await ok(await olga.post("/policy/proposals", json={"policy": files(OWN), "note": "why"}), 201)
    assert (await ok(await olga.get("/policy")))["version"] == before["version"], "a proposal changes nothing"
    change = await ok(await olga.post(f"/policy/proposals/{proposal['id']}/apply"))
    assert (change["seq"], change["version"], change["changed_by"]) == (2, proposal["version"], "olga")
    question = {"automation": "tidy", "tool": "list_files", "arguments": {"path": "etc"}, "roles": ["operator"]}
    assert (await ok(await olga.post("/policy/check", json=question)))["rule"] == "no-reading-of-etc"
    again = await olga.post("/policy/proposals", json={"policy": files(OWN)})
    assert await kind(again, 409) == "policy_unchanged"
    text = (await ok(await olga.get(f"/policy/versions/{before['version']}")))["text"]
    back = await ok(await olga.post("/policy/proposals", json={"policy": files(text, whole=True)}), 201)
    assert back["version"] == before["version"], "what is exported is the same policy"
    records = await house.services.audit.page(tenant="-", limit=100)
    assert [r.type for r in records] == ["policy.applied", "policy.proposed", "policy.applied", "policy.proposed"]
    assert records[2].actor == "olga"
    applied = records[2].body["diff"]
    assert isinstance(applied, dict)
    assert applied["added"] == ["no-reading-of-etc"]


async def test_nobody_locks_everybody_out(house: Api) -> None:
    olga = await house.client("olga", "admin")
    out = ASKING.replace('resource: "*", actions: ["*"]', "resource: runs, actions: [read]")
    proposal = await ok(await olga.post("/policy/proposals", json={"policy": files(out, whole=True)}), 201)
    assert await kind(await olga.post(f"/policy/proposals/{proposal['id']}/apply"), 409) == "policy_locks_out"
    rejected = await ok(await olga.post(f"/policy/proposals/{proposal['id']}/reject", json={"reason": "no"}))
    assert rejected["state"] == "rejected"
    assert await kind(await olga.post(f"/policy/proposals/{proposal['id']}/apply"), 409) == "policy_moved"


async def test_strict_mode_takes_two_people(house: Api) -> None:
    house.services.engine.strict = True
    olga, petra = await house.client("olga", "admin"), await house.client("petra", "admin")
    proposal = await ok(await olga.post("/policy/proposals", json={"policy": files(OWN)}), 201)
    path = f"/policy/proposals/{proposal['id']}/apply"
    assert await kind(await olga.post(path), 409) == "second_person_needed"
    assert (await ok(await petra.post(path)))["changed_by"] == "petra"


async def decided(house: Api, run_id: str, path: str, verdict: str | None = None, *, tenant: str = "default") -> str:
    """One decision on record, made by the gate in force, and, where given, what a person said to it."""
    call = ToolCall(id=f"c-{path}", tool="list_files", arguments={"path": path})
    digest = arguments_digest(call.tool, call.arguments)
    asker = Principal(id="olga", tenant=tenant, roles=("operator",))
    opened = CallOpened(
        run=RunRef(run_id=run_id, tenant=tenant, automation="tidy"), call=call, digest=digest, asked_by="model",
        request=GateRequest(
            principal=asker, automation="tidy", tool=call.tool, effect=Effect.READ, arguments=call.arguments,
            facts=Facts(tainted=False, arguments=()),
        ),
        gate_pass=0,
    )  # fmt: skip
    decision: Decision = await GateActivities(house.services.engine, house.services.audit).open_call(opened)
    if verdict is not None:
        body: JsonObject = {
            "approval_id": f"{run_id}.1",
            "question": "call",
            "digest": digest,
            "answer": {"verdict": verdict},
        }
        type_ = "approval.approved" if verdict == "approve" else "approval.denied"
        event = AuditEvent(f"{run_id}/approval/{run_id}.1/closed", type_, tenant, run_id, "petra", body)
        await house.services.audit.append(event)
    return decision.verdict.value


async def in_force(house: Api, text: str) -> httpx.AsyncClient:
    olga = await house.client("olga", "admin")
    proposal = await ok(await olga.post("/policy/proposals", json={"policy": files(text, whole=True)}), 201)
    await ok(await olga.post(f"/policy/proposals/{proposal['id']}/apply"))
    return olga


async def test_simulate_replays_what_is_on_record(house: Api) -> None:
    olga = await in_force(house, ASKING)
    for n in range(3):
        assert await decided(house, f"run_{n}", "in", tenant="default" if n else "acme") == Verdict.ASK
    await house.services.audit.append(
        AuditEvent("run_old/call/c/gate/0", "gate.decided", "default", "run_old", "system:gate",
                   {"tool": "list_files", "call_id": "c", "digest": "0" * 64, "decision": {
                       "verdict": "ask", "rule": "ask-first", "policy_version": "0" * 64}}),
    )  # fmt: skip
    same = await ok(await olga.post("/policy/simulate", json={}))
    assert (same["replayed"], same["changed"]) == (3, 0)
    assert same["not_replayable"] == {"recorded before questions were kept": 1}
    looser = ASKING.replace("verdict: ask}", "verdict: ask, when: 'tenant == \"acme\"'}")
    found = await ok(await olga.post("/policy/simulate", json=files(looser, whole=True)))
    [change] = found["changes"]
    assert (change["before"], change["after"], change["after_rule"], change["looser"]) == (
        "ask",
        "allow",
        "never-mind",
        True,
    )
    assert (change["tenant"], change["runs"], found["runs_touched"]) == ("default", ["run_1", "run_2"], 2)
    assert {t["name"]: t["decisions"] for t in found["by_tenant"]} == {"default": 2, "acme": 1}


async def test_suggestions_come_from_calls_approved_again_and_again(house: Api) -> None:
    olga = await in_force(house, ASKING)
    for n in range(3):
        await decided(house, f"run_a{n}", "in", "approve")
        await decided(house, f"run_b{n}", "etc", "approve" if n else "deny")
    await decided(house, "run_c", "once", "approve")
    [found] = (await ok(await olga.get("/policy/suggestions")))["items"]
    suggestion = found["suggestion"]
    assert (suggestion["tool"], suggestion["approvals"], suggestion["approved_by"]) == ("list_files", 3, ["petra"])
    assert suggestion["rule"]["when"] == '!tainted && args in [{"path": "in"}]'
    assert [row["id"] for row in suggestion["amended"]] == ["ask-first"]
    changes = suggestion["simulation"]["changes"]
    assert [(c["before"], c["after"], c["decisions"]) for c in changes] == [("ask", "allow", 3)]
    assert (await ok(await olga.get("/policy")))["version"] != found["version"], "never applied by itself"
    body = {"policy": files(found["text"], whole=True)}
    proposal = await ok(await olga.post("/policy/proposals", json=body), 201)
    await ok(await olga.post(f"/policy/proposals/{proposal['id']}/apply"))
    assert await decided(house, "run_d", "in") == "allow"
    assert await decided(house, "run_e", "in/other") == "ask"
    assert (await ok(await olga.get("/policy/suggestions")))["items"] == []
