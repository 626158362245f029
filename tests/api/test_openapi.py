"""Promises: the OpenAPI document is complete (every operation with id, summary, tag and its every status), and no
request a generator thinks of, whatever the role, gets a 5xx or an answer the document does not know."""

import asyncio
import os
from typing import Any, cast

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import checks as general_checks
from schemathesis.specs.openapi import checks as openapi_checks

from tests.api.running import ROLES, Api, Json
from worker.store.audit import AuditEvent
from worker.store.events import closed_id
from workflows.contracts import ApprovalState
from workflows.contracts import Phase as RunPhase

_schemathesis = cast(Any, schemathesis)  # its own types leave much unknown
_general, _openapi = cast(Any, general_checks), cast(Any, openapi_checks)
CHECKS = [
    _general.not_a_server_error,
    _openapi.status_code_conformance,
    _openapi.content_type_conformance,
    _openapi.response_schema_conformance,
    _openapi.response_headers_conformance,
    _openapi.allow_header_conformance,
]
BODY = {"automation": "tidy", "tool": "list_files", "inputs": {"path": "in/a"}, "scope": "tool", "target": "none_such"}
"""Put into half of the bodies that have such fields: a generator never guesses a name that exists."""
EXAMPLES = {"admin": 10}
"""Generated requests an operation and role; the admin gets past the rights and so sees the most code."""
FUZZ = int(os.environ.get("FUZZ", "0"))
"""So many instead, and other ones each time: `make fuzz`. The suite sends the same ones always."""


async def document(api: Api) -> Json:
    return cast(Json, (await api.anonymous().get(f"{api.url}/api/openapi.json")).json())


async def test_every_operation_is_described(api: Api) -> None:
    spec = await document(api)
    wrong: list[str] = []
    ids: list[str] = []
    for path, operations in spec["paths"].items():
        for method, operation in operations.items():
            where = f"{method.upper()} {path}"
            ids.append(operation["operationId"])
            wrong += [f"{where}: no {w}" for w in ("summary", "description", "tags") if not operation.get(w)]
            needed = {"422", "500", "503"} | ({"401", "403"} if operation.get("security") else set[str]())
            wrong += [f"{where}: {s} is not described" for s in needed - set(operation["responses"])]
            if "{" in path and "404" not in operation["responses"]:
                wrong.append(f"{where}: 404 is not described")
            for parameter in operation.get("parameters", []):
                if parameter["in"] != "path" and not parameter.get("description"):
                    wrong.append(f"{where}: {parameter['name']} has no description")
    assert not wrong
    assert len(ids) == len(set(ids))
    assert spec["components"]["securitySchemes"]["ApiKey"]["scheme"] == "bearer"
    assert "HTTPValidationError" not in spec["components"]["schemas"]


async def test_pages_for_people_need_nothing_from_elsewhere(api: Api) -> None:
    page = await api.anonymous().get(f"{api.url}/api/docs")
    assert page.status_code == 200
    assert "<script" not in page.text
    assert "//" not in page.text.replace("http://127.0.0.1", "")
    assert "start_run" in page.text


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/api/v1/none", 404), ("GET", "/", 404), ("PUT", "/api/v1/runs", 405), ("GET", "/api/v1/runs/", 404)],
)
async def test_unknown_addresses_and_methods(api: Api, method: str, path: str, status: int) -> None:
    response = await api.anonymous().request(method, f"{api.url}{path}")
    assert (response.status_code, response.headers["content-type"]) == (status, "application/problem+json")
    assert response.json()["status"] == status
    if status == 405:
        assert response.headers["allow"] == "GET, POST"


async def real_ids(api: Api) -> Json:
    """Objects to hit, so that not every generated path ends as a 404. The run is closed: its stream ends."""
    run = await api.put_artifact("report.md", b"# report")
    await api.services.audit.append(
        AuditEvent(closed_id(run.id), "run.closed", "default", run.id, "system:test", {"records": 1})
    )
    asked = await api.put_question(run)
    await api.services.approvals.close(asked.id, ApprovalState.EXPIRED)
    await api.put_run(phase=RunPhase.QUEUED)
    return {"run_id": run.id, "approval_id": asked.id, "automation": "tidy", "tool": "list_files", "name": "report.md"}


def probe(spec: Json, url: str, headers: dict[str, str], known: Json, examples: int) -> None:
    """Every operation with generated requests, good and bad; runs in a thread of its own."""
    for found in _schemathesis.openapi.from_dict(spec).get_all_operations():
        operation = found.ok()
        names = {p["name"] for p in operation.definition.raw.get("parameters", []) if p["in"] == "path"}
        real = {n: known.get(n, "x") for n in names}
        if "name" in names and "/artifacts/" not in operation.path:
            real["name"] = known["tool"] if "/tools/" in operation.path else known["automation"]
        _probe(operation, real, {"base_url": url, "headers": headers, "timeout": 20, "checks": CHECKS}, examples)


def _probe(operation: Any, real: Json, how: Json, examples: int) -> None:
    modes = [_schemathesis.GenerationMode.POSITIVE, _schemathesis.GenerationMode.NEGATIVE]

    @given(case=st.one_of(*(operation.as_strategy(generation_mode=m) for m in modes)), substitute=st.booleans())
    @settings(
        max_examples=FUZZ or examples, deadline=None, database=None, derandomize=not FUZZ,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
    )  # fmt: skip
    def one(case: Any, substitute: bool) -> None:
        if substitute and real:
            case.path_parameters = dict(real)
        if substitute and isinstance(case.body, dict):
            body: Json = dict(case.body)  # pyright: ignore[reportUnknownArgumentType, reportUnknownMemberType]
            case.body = body | {name: value for name, value in BODY.items() if name in body}
        case.call_and_validate(**how)

    one()


@pytest.mark.parametrize("role", ["anonymous", *ROLES])
async def test_generated_requests(api: Api, role: str) -> None:
    if role != "anonymous":
        await api.client(role)
    headers = {"Authorization": f"Bearer {api.keys[role]}"} if role in api.keys else {}
    await asyncio.to_thread(probe, await document(api), api.url, headers, await real_ids(api), EXAMPLES.get(role, 2))
    for switch in await api.services.switches.in_force():  # an administrator who guesses stops everything
        await api.services.switches.advance(switch, "released", by="test", reason="over")
    verified: httpx.Response = await (await api.client("auditor")).get("/audit/verify")
    assert verified.json()["ok"], verified.text
