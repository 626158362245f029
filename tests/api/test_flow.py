"""Promises, with everything real (server, workers, boxes): what a human approved runs exactly once, what was denied or
expired never; an edited call runs as edited; one answer counts, whoever sends how many; the requester cannot answer."""

import asyncio
from typing import Any

import httpx

from tests.api.running import Api, Json
from tests.api.test_events import read


async def asked(api: Api, automation: str = "tidy", requester: str = "operator", **more: Any) -> tuple[str, Json]:
    """A run on two files that wants to delete the first, and its question."""
    client = await api.client(requester, "operator")
    files = [
        (await client.post("/files", params={"name": name}, content=name.encode())).json()["id"] for name in ("a", "b")
    ]
    body = {"automation": automation, "inputs": {"path": "in/a"}, "files": files} | more
    response = await client.post("/runs", json=body)
    assert response.status_code == 202, response.text
    run_id = str(response.json()["id"])
    async with asyncio.timeout(240):
        while True:
            items = (await client.get("/approvals", params={"run": run_id})).json()["items"]
            if items:
                return run_id, items[0]
            run = (await client.get(f"/runs/{run_id}")).json()
            assert run["result"] is None, run
            await asyncio.sleep(0.1)


async def ended(api: Api, run_id: str) -> Json:
    """The run once it is closed, and the proof that its record is whole."""
    client = await api.client("operator")
    events = await asyncio.wait_for(read(client, run_id), 240)
    assert events[-1]["type"] == "run.closed"
    run: Json = (await client.get(f"/runs/{run_id}")).json()
    run["events"] = [e["type"] for e in events]
    run["outcomes"] = [e["body"]["outcome"] for e in events if e["type"] == "call.outcome"]
    return run


async def answer(
    api: Api, who: httpx.AsyncClient, question: Json, verb: str = "approve", **body: Any
) -> httpx.Response:
    reason = {"reason": "no"} if verb == "deny" else {}
    return await who.post(f"/approvals/{question['id']}/{verb}", json={"digest": question["digest"]} | reason | body)


async def test_approve(house: Api) -> None:
    run_id, question = await asked(house)
    assert question["call"]["arguments"] == {"paths": ["in/a"]}
    approver = await house.client("approver")
    response = await answer(house, approver, question)
    assert response.status_code == 200, response.text
    assert (response.json()["state"], response.json()["answer"]["principal"]) == ("approved", "approver")
    run = await ended(house, run_id)
    assert (run["phase"], run["rung"], run["outcomes"]) == ("succeeded", "rules", ["succeeded"])
    assert run["result"]["output"] == {"outcome": "succeeded"}
    again = await answer(house, approver, question, "deny")
    assert (again.status_code, again.json()["kind"]) == (409, "already_decided")
    assert (await house.services.audit.verify()).ok


async def test_deny(house: Api) -> None:
    run_id, question = await asked(house)
    response = await answer(house, await house.client("approver"), question, "deny", reason="keep it")
    assert (response.status_code, response.json()["state"]) == (200, "denied")
    run = await ended(house, run_id)
    assert run["outcomes"] == ["denied"]
    assert run["result"]["output"] == {"outcome": "denied"}


async def test_edited_arguments_run_as_edited(house: Api) -> None:
    run_id, question = await asked(house)
    approver = await house.client("approver")
    bad = await answer(house, approver, question, edited_arguments={"paths": "in/b"})
    assert (bad.status_code, bad.json()["kind"]) == (422, "invalid_arguments")
    edited = await answer(house, approver, question, edited_arguments={"paths": ["in/b"]})
    assert edited.status_code == 200, edited.text
    assert edited.json()["answer"]["edited_arguments"] == {"paths": ["in/b"]}
    run = await ended(house, run_id)
    assert run["outcomes"] == ["succeeded"]
    assert run["events"].count("gate.decided") >= 2, "the edited call went through the gate again"


async def test_one_of_many_answers_counts(house: Api) -> None:
    run_id, question = await asked(house)
    people = [await house.client(f"approver-{n}", "approver") for n in range(4)]
    answers = await asyncio.gather(
        *(answer(house, p, question, "approve" if n % 2 else "deny") for n, p in enumerate(people))
    )
    assert sorted(a.status_code for a in answers) == [200, 409, 409, 409]
    assert {a.json()["kind"] for a in answers if a.status_code == 409} == {"already_decided"}
    run = await ended(house, run_id)
    won = next(a.json()["state"] for a in answers if a.status_code == 200)
    assert run["outcomes"] == ["succeeded" if won == "approved" else "denied"]
    assert len(await house.records("answer.refused", run_id=run_id)) == 3


async def test_what_cannot_count_leaves_the_question_open(house: Api) -> None:
    both = await house.client("both", "operator", "approver")
    run_id, question = await asked(house, requester="both")
    approver = await house.client("approver")
    own = await answer(house, both, question)
    assert (own.status_code, own.json()["kind"]) == (403, "self_approval")
    stale = await answer(house, approver, question | {"digest": "0" * 64})
    assert (stale.status_code, stale.json()["kind"]) == (409, "args_changed")
    assert (await approver.get(f"/approvals/{question['id']}")).json()["state"] == "pending"
    cancelled = await both.post(f"/runs/{run_id}/cancel")
    assert cancelled.status_code == 202
    run = await ended(house, run_id)
    assert (run["phase"], run["outcomes"]) == ("cancelled", ["cancelled"])
    late = await answer(house, approver, question)
    assert (late.status_code, late.json()["kind"]) == (409, "cancelled")
    assert (await both.post(f"/runs/{run_id}/cancel")).json()["kind"] == "already_final"


async def test_the_deadline_denies(house: Api) -> None:
    run_id, question = await asked(house, "tidy-soon")
    run = await ended(house, run_id)
    assert run["outcomes"] == ["expired"]
    late = await answer(house, await house.client("approver"), question)
    assert (late.status_code, late.json()["kind"]) == (409, "expired")
