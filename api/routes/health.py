"""Is the process alive, and can it do its work? No key needed: probes have none, and nothing here is secret."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Literal

from fastapi import APIRouter, Response
from pydantic import BaseModel, ConfigDict

from api.errors import problems
from api.gateway import Unreachable
from api.services import Services, ServicesDep
from worker.store import migration

router = APIRouter(tags=["health"])

CHECK_S = 4.0
"""Longest one part may take to answer; longer counts as red."""


class Health(BaseModel):
    """The process answers; says nothing about its parts."""

    status: Literal["alive"] = "alive"


class PartStatus(BaseModel):
    """One part the API needs."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    ok: bool
    reason: str | None = None
    """Why it is not ok."""
    remedy: str | None = None
    detail: str | None = None


class Readiness(BaseModel):
    """Ready if every part is that this process needs to serve. A queue without workers (`workers`) is told and does not
    count: people can still read, answer and cancel."""

    ready: bool
    parts: dict[str, PartStatus]


@router.get("/health", operation_id="get_health", summary="Liveness", responses=problems(public=True))
async def get_health() -> Health:
    """200 as long as the process serves requests."""
    return Health()


@router.get(
    "/ready",
    operation_id="get_ready",
    summary="Readiness, part by part",
    responses=problems(public=True) | {503: {"model": Readiness, "description": "At least one part is not ready."}},
)
async def get_ready(services: ServicesDep, response: Response) -> Readiness:
    """200 when store, migrations, Temporal and policy all work; else 503, with the reason and the remedy of each.

    `workers` says whether somebody works on each queue; it is false up to 90 s late, and 200 all the same."""
    checks: dict[str, Callable[[Services], Awaitable[str]]] = {
        "store": _store,
        "migrations": _migrations,
        "temporal": _temporal,
        "policy": _policy,
        "workers": _workers,
    }
    found = await asyncio.gather(*(_status(name, check(services)) for name, check in checks.items()))
    parts = dict(zip(checks, found, strict=True))
    ready = all(part.ok for name, part in parts.items() if name != "workers")
    response.status_code = 200 if ready else 503
    return Readiness(ready=ready, parts=parts)


_REMEDIES = {
    "store": "check GATEHOUSE_DATABASE_URL and that the database runs",
    "migrations": "restart the API, which migrates at start; see its log",
    "temporal": "start it (`gatehouse up`) or correct GATEHOUSE_TEMPORAL_ADDRESS and GATEHOUSE_TEMPORAL_NAMESPACE",
    "policy": "correct the rules (`gatehouse policy lint`); the policy named here stays in force meanwhile",
    "workers": "start them (`gatehouse up`); a call waits for one as long as GATEHOUSE_SANDBOX_WAIT_S says",
}


async def _status(name: str, check: Awaitable[str]) -> PartStatus:
    try:
        async with asyncio.timeout(CHECK_S):
            return PartStatus(ok=True, detail=await check or None)
    except TimeoutError:
        reason = f"no answer in {CHECK_S:g} s"
    except Unreachable as error:
        reason = error.reason
    except Exception as error:  # noqa: BLE001  whatever the part raises is what the operator needs to read
        reason = str(error) or type(error).__name__
    return PartStatus(ok=False, reason=reason[:1000], remedy=_REMEDIES[name])


async def _store(services: Services) -> str:
    async with services.database.read() as conn:
        await conn.run_sync(migration.current)
    return services.database.dialect


async def _migrations(services: Services) -> str:
    await services.database.check()
    return f"revision {migration.HEAD}"


async def _temporal(services: Services) -> str:
    await services.gateway.check()
    return f"{services.settings.temporal_address}, namespace {services.settings.temporal_namespace}"


async def _policy(services: Services) -> str:
    if services.engine.problem is not None:
        raise RuntimeError(f"{services.engine.problem}; still in force: {services.engine.version[:12]}")
    return f"rules {services.engine.version[:12]}"


async def _workers(services: Services) -> str:
    if deserted := await services.gateway.deserted():
        raise RuntimeError(f"no worker asks for work on {', '.join(deserted)}")
    return "runs, models, sandbox"
