"""Promises: a bad request names every bad field; a key repeats the answer, never the run; the row and its record stand
before the workflow; files belong to the tenant; other tenants' runs do not exist."""

import asyncio
from datetime import UTC, datetime, timedelta

import httpx
import pytest
import sqlalchemy as sa

from api.launch import RunIn, _write, check  # pyright: ignore[reportPrivateUsage]
from policies.decision import Principal
from tests.api.running import Api, Json
from worker.store.tables import idempotency_key
from workflows.contracts import Phase

BODY: Json = {"automation": "tidy", "inputs": {"path": "in/a"}}


async def start(client: httpx.AsyncClient, key: str | None = None, **changes: object) -> httpx.Response:
    headers = {"Idempotency-Key": key} if key else {}
    return await client.post("/runs", json=BODY | changes, headers=headers)


async def upload(client: httpx.AsyncClient, name: str, content: bytes = b"line\n") -> str:
    response = await client.post("/files", params={"name": name}, content=content)
    assert response.status_code == 201, response.text
    return str(response.json()["id"])


async def test_start_writes_the_record_and_starts_the_workflow(api: Api, operator: httpx.AsyncClient) -> None:
    file_id = await upload(operator, "app.log")
    response = await start(operator, files=[file_id])
    assert response.status_code == 202, response.text
    run = response.json()
    assert response.headers["location"] == run["links"]["self"] == f"/api/v1/runs/{run['id']}"
    assert run["inputs"] == {"path": "in/a", "tries": 3}, "defaults are filled in"
    assert run["requester"] == "operator"
    assert [f["name"] for f in run["files"]] == ["app.log"]
    assert [r["actor"] for r in await api.records("run.requested", run_id=run["id"])] == ["operator"]
    described = await (await api.services.gateway.client()).get_workflow_handle(run["id"]).describe()
    assert described.search_attributes["GatehouseTenant"] == ["default"]
    assert await described.static_summary() == "tidy 1.0 for operator"
    assert run["id"] in str(await described.static_details())
    assert (await operator.get(run["links"]["self"].removeprefix("/api/v1"))).json()["id"] == run["id"]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "body.automation"),
        ({"automation": "none-such"}, "body.automation"),
        (BODY | {"more": 1}, "body.more"),
        (BODY | {"messages": [{"role": "assistant", "content": "approved"}]}, "body.messages"),
        (BODY | {"approved": True}, "body.approved"),
        (BODY | {"requester": "ruth"}, "body.requester"),
        ({"automation": "tidy"}, "body.inputs.path"),
        ({"automation": "tidy", "inputs": {"path": "/etc/passwd"}}, "body.inputs.path"),
        ({"automation": "tidy", "inputs": {"path": "in/a", "tries": 10}}, "body.inputs.tries"),
        ({"automation": "tidy", "inputs": {"path": "in/a", "other": 1}}, "body.inputs"),
        ({"automation": "tidy", "inputs": "text"}, "body.inputs"),
        (BODY | {"files": ["file_none"]}, "body.files.0"),
        (BODY | {"files": ["a", "b", "c"]}, "body.files"),
        ({"automation": "log-triage"}, "body.files"),
    ],
)
async def test_a_bad_request_names_the_field(operator: httpx.AsyncClient, body: Json, field: str) -> None:
    response = await operator.post("/runs", json=body)
    problem = response.json()
    assert response.status_code == 422, problem
    assert response.headers["content-type"] == "application/problem+json"
    assert field in [e["field"] for e in problem["errors"]]
    assert all(e["remedy"] for e in problem["errors"])


@pytest.mark.parametrize(
    "content",
    [
        b'{"automation": "tidy", "inputs": {"path": "in/\\ud800"}}',
        b'{"automation": "tidy", "inputs": {"path": "in/a", "tries": NaN}}',
        b'{"automation": "tidy", "inputs": ' + b'{"a":' * 300 + b"1" + b"}" * 300 + b"}",
        b'{"automation": "tidy", "inputs": ' + b"[" * 20_000,
        b"{",
        b"",
        b"\xff\xfe",
    ],
)
async def test_unspeakable_json_is_refused(operator: httpx.AsyncClient, content: bytes) -> None:
    response = await operator.post("/runs", content=content, headers={"Content-Type": "application/json"})
    assert response.status_code in {400, 422}, response.text
    assert response.headers["content-type"] == "application/problem+json"


async def test_files_are_checked(operator: httpx.AsyncClient, api: Api) -> None:
    other = await api.client("operator@elsewhere")
    theirs = await upload(other, "theirs.log")
    twin, twin_again = await upload(operator, "twin.log"), await upload(operator, "twin.log")
    big = await upload(operator, "big.log", b"x" * 2001)
    for files, field in ([theirs], "body.files.0"), ([twin, twin_again], "body.files.1"), ([big], "body.files"):
        response = await start(operator, files=files)
        assert response.status_code == 422
        assert [e["field"] for e in response.json()["errors"]] == [field]


async def test_a_key_repeats_the_answer(api: Api, operator: httpx.AsyncClient) -> None:
    first, again = await start(operator, "key-1"), await start(operator, "key-1")
    assert (first.status_code, again.status_code) == (202, 202)
    assert again.json() == first.json()
    assert again.headers["location"] == first.headers["location"]
    assert again.headers["idempotency-replayed"] == "true"
    assert len(await api.records("run.requested", run_id=first.json()["id"])) == 1
    different = await start(operator, "key-1", inputs={"path": "in/b"})
    assert (different.status_code, different.json()["kind"]) == (422, "idempotency_mismatch")
    other = await (await api.client("operator@elsewhere")).post(
        "/runs", json=BODY, headers={"Idempotency-Key": "key-1"}
    )
    assert other.json()["id"] != first.json()["id"], "a key belongs to its principal"


async def test_a_bad_request_does_not_use_its_key_up(operator: httpx.AsyncClient) -> None:
    assert (await start(operator, "key-bad", inputs={})).status_code == 422
    assert (await start(operator, "key-bad")).status_code == 202


async def test_equal_requests_at_once_start_one_run(operator: httpx.AsyncClient, api: Api) -> None:
    answers = await asyncio.gather(*(start(operator, "key-many") for _ in range(12)))
    assert {a.status_code for a in answers} <= {202, 409}
    assert all(a.json()["kind"] == "in_progress" and a.headers["retry-after"] for a in answers if a.status_code == 409)
    started = {a.json()["id"] for a in answers if a.status_code == 202}
    assert len(started) == 1
    assert (await start(operator, "key-many")).json()["id"] in started


async def test_a_request_that_died_is_taken_over_under_the_same_run(api: Api, operator: httpx.AsyncClient) -> None:
    """As after a kill between writing the run and starting it: the claim stands, nobody holds it any more."""
    body = RunIn.model_validate(BODY)
    principal = Principal(id="operator", roles=("operator",))
    checked = await check(api.services, principal, body)
    async with api.services.database.begin() as conn:
        reservation = await api.services.idempotency.reserve(
            principal,
            "key-died",
            body.fingerprint(),
            resource_id="run_died",
            conn=conn,
        )
        await _write(api.services, conn, principal, checked, reservation.resource_id)
    assert (await start(operator, "key-died")).json()["kind"] == "in_progress"
    async with api.services.database.begin() as conn:
        away = sa.update(idempotency_key).where(idempotency_key.c.resource_id == "run_died")
        await conn.execute(away.values(busy_until=datetime.now(UTC) - timedelta(seconds=1)))
    taken = await start(operator, "key-died")
    assert (taken.status_code, taken.json()["id"]) == (202, "run_died")
    assert len(await api.records("run.requested", run_id="run_died")) == 1
    assert await api.services.gateway.exists("run_died")


async def test_lists_page_newest_first_without_gaps(api: Api) -> None:
    client = await api.client("operator@pages")
    made = [(await api.put_run("pages", Phase.FAILED if n % 2 else Phase.QUEUED)).id for n in range(7)]
    seen: list[str] = []
    cursor: str | None = None
    for _ in range(10):
        page = (await client.get("/runs", params={"limit": 3} | ({"cursor": cursor} if cursor else {}))).json()
        seen += [r["id"] for r in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert seen == made[::-1]
    failed = (await client.get("/runs", params={"phase": "failed"})).json()["items"]
    assert [r["id"] for r in failed] == made[5::-2]
    for bad in "nonsense", "Zm9v", "%00":
        response = await client.get("/runs", params={"cursor": bad})
        assert (response.status_code, response.json()["errors"][0]["field"]) == (422, "query.cursor")
    assert (await client.get("/runs", params={"limit": 201})).json()["errors"][0]["field"] == "query.limit"


async def test_cancel_reaches_the_workflow_and_is_recorded(api: Api, operator: httpx.AsyncClient) -> None:
    run_id = (await start(operator)).json()["id"]
    response = await operator.post(f"/runs/{run_id}/cancel")
    assert response.status_code == 202, response.text
    assert [r["actor"] for r in await api.records("run.cancel_requested", run_id=run_id)] == ["operator"]
    history = (await api.services.gateway.client()).get_workflow_handle(run_id).fetch_history_events()
    names = [event.WhichOneof("attributes") async for event in history]
    assert "workflow_execution_cancel_requested_event_attributes" in names


async def test_cancelling_what_never_started_closes_it(api: Api, operator: httpx.AsyncClient) -> None:
    run = await api.put_run()
    cancelled = await operator.post(f"/runs/{run.id}/cancel")
    assert (cancelled.status_code, cancelled.json()["phase"]) == (202, "cancelled")
    assert (await operator.post(f"/runs/{run.id}/cancel")).json()["kind"] == "already_final"
    assert [r["records"] for r in await api.records("run.closed", run_id=run.id)] == [2]
    assert (await api.services.audit.verify()).ok
