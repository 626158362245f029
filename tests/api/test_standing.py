"""Grants, stand-ins, batches and what else people say: one refusal on every route, and nothing without a right."""

from datetime import UTC, datetime, timedelta

import httpx
import pytest

from policies.signatures import DELEGATION, GRANT, verify
from policies.terms import Group, Terms
from tests.api.running import Api, Json

SOON = datetime.now(UTC) + timedelta(days=1)


async def test_a_grant_is_signed_visible_and_ends(
    api: Api, admin: httpx.AsyncClient, approver: httpx.AsyncClient
) -> None:
    body: Json = {
        "automation": "tidy", "tool": "delete_files", "arguments": {"paths": "*"}, "uses": 2, "until": SOON.isoformat(),
        "reason": "the weekly clean-up",
    }  # fmt: skip
    made = (await admin.post("/grants", json=body)).json()
    assert (made["state"], made["used"], made["created_by"]) == ("in_force", 0, "admin")
    [stored] = [g for g in await api.services.standing.grants("default") if g.grant.id == made["id"]]
    assert verify(stored.grant, GRANT, api.services.public_keys)
    listed = (await approver.get("/grants")).json()["items"]
    assert made["id"] in [g["id"] for g in listed]
    others = await api.client("grants@elsewhere", "admin")
    assert (await others.get("/grants")).json()["items"] == []
    assert (await others.delete(f"/grants/{made['id']}")).status_code == 404
    assert (await approver.delete(f"/grants/{made['id']}")).status_code == 403
    assert (await admin.delete(f"/grants/{made['id']}")).json()["state"] == "revoked"
    [created] = [r for r in await api.records("grant.created") if r["grant"]["id"] == made["id"]]
    assert created["actor"] == "admin"
    assert made["id"] in [r["grant_id"] for r in await api.records("grant.revoked")]
    far = {**body, "until": (SOON + timedelta(days=120)).isoformat()}
    assert (await admin.post("/grants", json=far)).status_code == 422


async def test_a_stand_in_is_named_by_the_absent_or_an_administrator(
    api: Api, admin: httpx.AsyncClient, approver: httpx.AsyncClient
) -> None:
    body: Json = {"stand_in": "bea", "until": SOON.isoformat(), "reason": "holidays"}
    made = (await approver.post("/delegations", json=body)).json()
    assert (made["absent"]["id"], made["absent"]["roles"]) == ("approver", ["approver"])
    [stored] = [d for d in await api.services.standing.delegations("default") if d.delegation.id == made["id"]]
    assert verify(stored.delegation, DELEGATION, api.services.public_keys)
    for_another = {**body, "absent": {"id": "ruth", "roles": ["approver"]}}
    assert (await approver.post("/delegations", json=for_another)).status_code == 403
    assert (await admin.post("/delegations", json=for_another)).status_code == 201
    assert (await approver.post("/delegations", json={**body, "stand_in": "Approver"})).status_code == 422
    stranger = await api.client("cleo", "approver")
    assert (await stranger.delete(f"/delegations/{made['id']}")).status_code == 403
    assert (await approver.delete(f"/delegations/{made['id']}")).json()["state"] == "revoked"


async def test_nobody_speaks_for_somebody_who_did_not_say_so(api: Api, approver: httpx.AsyncClient) -> None:
    asked = await api.put_question(await api.put_run(), terms=Terms(groups=(Group(name="g", people=("ruth",)),)))
    body = {"digest": asked.digest, "on_behalf_of": "ruth"}
    response = await approver.post(f"/approvals/{asked.id}/approve", json=body)
    assert (response.status_code, response.json()["kind"]) == (403, "not_an_approver")
    own = await api.put_question(await api.put_run())
    body["digest"] = own.digest
    response = await approver.post(f"/approvals/{own.id}/approve", json=body)
    assert response.status_code == 403, "nor is it taken for an answer of their own"
    assert response.json()["detail"] == "you do not stand in for `ruth`"


@pytest.mark.parametrize(
    ("route", "body", "status", "kind"),
    [
        ("approve", {}, 403, "not_an_approver"),
        ("deny", {"reason": "no"}, 403, "not_an_approver"),
        ("approve", {"break_glass": True, "reason": "fire"}, 403, "not_an_approver"),
        ("approve", {"policy_version": "f" * 64}, 409, "policy_changed"),
        ("approve", {"tool_version": "2"}, 409, "args_changed"),
        ("ask", {"text": "?"}, 403, "not_an_approver"),
        ("reply", {"text": "!"}, 403, "not_an_approver"),
        ("delegate", {"to": "bea"}, 403, "not_an_approver"),
        ("delegate", {"to": "olga"}, 403, "self_approval"),
        ("escalate", {}, 403, "not_an_approver"),
    ],
)
async def test_every_route_asks_the_same_function(
    api: Api, approver: httpx.AsyncClient, route: str, body: Json, status: int, kind: str
) -> None:
    run = await api.put_run()
    asked = await api.put_question(run, terms=Terms(groups=(Group(name="board", people=("bea",)),)))
    response = await approver.post(f"/approvals/{asked.id}/{route}", json={"digest": asked.digest, **body})
    assert (response.status_code, response.json()["kind"]) == (status, kind), response.text
    assert [r["kind"] for r in await api.records("answer.refused", run_id=run.id)] == [kind]


async def test_a_batch_tells_of_each(api: Api, approver: httpx.AsyncClient) -> None:
    mine = await api.put_question(await api.put_run(requester="approver"))
    gone = await api.put_question(await api.put_run())
    items = [{"id": q.id, "digest": q.digest} for q in (mine, gone)] + [{"id": "run_none.1", "digest": "0" * 64}]
    response = await approver.post("/approvals/answers", json={"verdict": "deny", "reason": "no", "items": items})
    assert [item["kind"] for item in response.json()["items"]] == ["self_approval", "cancelled", "not_found"]
    twice = {"verdict": "approve", "items": [items[0], items[0]]}
    assert (await approver.post("/approvals/answers", json=twice)).status_code == 422
    assert (await approver.post("/approvals/answers", json={"verdict": "deny", "items": items})).status_code == 422


async def test_what_cannot_be_remembered_is_said_before_anything_happens(api: Api, approver: httpx.AsyncClient) -> None:
    asked = await api.put_question(await api.put_run(), terms=Terms(needed=2))
    remember = {"uses": 3, "until": SOON.isoformat()}
    body = {"digest": asked.digest, "remember": remember}
    response = await approver.post(f"/approvals/{asked.id}/approve", json=body)
    assert (response.status_code, response.json()["errors"][0]["field"]) == (422, "body.remember")
    one = await api.put_question(await api.put_run())
    body = {"digest": one.digest, "remember": {**remember, "arguments": {"path": "*"}}}
    response = await approver.post(f"/approvals/{one.id}/approve", json=body)
    assert response.json()["errors"][0]["field"] == "body.remember.arguments"
    body = {"digest": one.digest, "remember": remember, "break_glass": True, "reason": "fire"}
    response = await (await api.client("break-glass")).post(f"/approvals/{one.id}/approve", json=body)
    assert (response.status_code, response.json()["errors"][0]["field"]) == (422, "body.remember")


async def test_a_question_shows_all_that_a_reviewer_needs(api: Api, approver: httpx.AsyncClient) -> None:
    chain = Terms(groups=(Group(name="board", people=("bea",)),), needed=2)
    asked = await api.put_question(await api.put_run(), terms=chain, tainted=True, read={"read_file": 2})
    found = (await approver.get(f"/approvals/{asked.id}")).json()
    assert (found["needed"], [g["name"] for g in found["groups"]]) == (2, ["board"])
    assert (found["taint"], found["read"], found["answers"], found["conversation"]) == (True, {"read_file": 2}, [], [])
    assert len(found["reminders_at"]) == 2
    assert found["like_calls"] is not None
