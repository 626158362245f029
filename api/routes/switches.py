"""Kill switches and safe mode: put one in force, see how far it got, release it step by step."""

from datetime import datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Path, Query
from pydantic import ConfigDict, Field

from api.auth import SwitchesReader, SwitchesReleaser, SwitchesSetter
from api.errors import Refused, invalid, not_found, problems
from api.listing import bad_cursor
from api.paging import Cursor, Limit, PageOut
from api.services import Services, ServicesDep
from policies.decision import Principal
from policies.switches import EVERYWHERE, RUN_WIDE, Running, Scope, Switch, SwitchState
from tools.contract import Strict, Wire
from worker.store.paging import BadCursor
from worker.store.stops import Counts, Stop
from worker.store.switches import SwitchMoved

router = APIRouter(prefix="/switches", tags=["switches"])

Id = Annotated[str, Path(max_length=64, description="Id of the switch.")]
Reason = Annotated[str, Field(min_length=1, max_length=1000, pattern=r"\S", examples=["wrong recipients in run_01kb"])]
NAMED = ("automation", "tool", "model")
SHOWN = 100


class SwitchIn(Strict):
    """A switch to be put in force, at once."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    scope: Scope
    """`global` and other tenants need a principal of the installation's own tenant (`GATEHOUSE_POLICY_TENANT`)."""
    target: Annotated[str, Field(max_length=128, pattern=r"^[\x21-\x7e]*$", examples=["log-triage"])] = ""
    """Which automations, tools or models (`*` and `?` as in rules); for `tenant` its name, yours when left out."""
    kind: Literal["stop", "safe_mode"] = "stop"
    """`stop`: a kill switch. `safe_mode`: only calls whose effect is read; for global, tenant and automation."""
    running: Running = "pause"
    """What becomes of runs under way when everything of theirs is stopped."""
    everywhere: bool = False
    """For automation, tool and model: in every tenant, not only in yours."""
    reason: Reason


class ReleaseIn(Strict):
    """One step back: from `stop` to safe mode, from safe mode to nothing. Tools and models have only one step."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    state: Literal["stop", "safe_mode"]
    """The state you saw: a step is never taken twice by accident."""
    reason: Reason


class StopOut(Wire):
    """One run that the switch stops."""

    run_id: str
    requested_at: datetime
    acknowledged_at: datetime | None
    """When its workflow said that it stands still or has ended."""
    confirmed_at: datetime | None
    """When, after that, no container of it was left."""
    resumed_at: datetime | None
    left: int | None
    """Containers left, as last reported; null when nobody has looked since the acknowledgement."""


class SwitchOut(Switch):
    """A switch, with requested against confirmed stops."""

    counts: Counts
    confirmed: bool
    """Whether every run it stops was confirmed. A switch that stops no runs is confirmed by being set."""
    engines: dict[str, bool] = Field(default_factory=dict)
    """Docker engine -> whether its containers are watched now. A silent one confirms nothing."""
    runs: tuple[StopOut, ...] = ()
    """Up to 100, those not confirmed first; only when one switch is asked for."""


async def _out(services: Services, switch: Switch, *, whole: bool) -> SwitchOut:
    counts = await services.stops.counts(switch.id)
    stops = await services.stops.of(switch.id, limit=SHOWN) if whole else []
    engines = await services.stops.engines() if whole else {}
    return SwitchOut(
        **switch.model_dump(), counts=counts, confirmed=counts.confirmed == counts.requested, engines=engines,
        runs=tuple(map(_stop_out, stops)),
    )  # fmt: skip


def _stop_out(stop: Stop) -> StopOut:
    return StopOut(
        run_id=stop.run_id, requested_at=stop.requested_at, acknowledged_at=stop.acknowledged_at,
        confirmed_at=stop.confirmed_at, resumed_at=stop.resumed_at,
        left=sum(stop.boxes.values()) if stop.boxes else None,
    )  # fmt: skip


@router.get("", operation_id="list_switches", summary="List switches", responses=problems())
async def list_switches(
    principal: SwitchesReader,
    services: ServicesDep,
    active: Annotated[bool, Query(description="Only those in force.")] = False,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> PageOut[SwitchOut]:
    """Those that count for your tenant, newest first."""
    try:
        page = await services.switches.page(principal.tenant, active=active, cursor=cursor, limit=limit)
    except BadCursor:
        raise bad_cursor() from None
    items = [await _out(services, switch, whole=False) for switch in page.items]
    return PageOut[SwitchOut](items=[_seen_by(principal, services, s) for s in items], next_cursor=page.next_cursor)


@router.post("", operation_id="set_switch", summary="Stop, or safe mode", status_code=201, responses=problems())
async def set_switch(body: SwitchIn, principal: SwitchesSetter, services: ServicesDep) -> SwitchOut:
    """In force when this answers, whether or not Temporal can be reached. Runs under way are stopped from then on:
    ask for the switch again to see how many are confirmed."""
    tenant, target = _scope(body, principal, services)
    switch = await services.switches.set(
        body.scope, tenant=tenant, target=target, state=body.kind, running=body.running, reason=body.reason.strip(),
        by=principal.id,
    )  # fmt: skip
    return await _out(services, switch, whole=True)


@router.get("/{switch_id}", operation_id="get_switch", summary="One switch", responses=problems(404))
async def get_switch(switch_id: Id, principal: SwitchesReader, services: ServicesDep) -> SwitchOut:
    """With the runs it stops: requested, acknowledged, confirmed, and what is left."""
    switch = await _known(switch_id, principal, services)
    return _seen_by(principal, services, await _out(services, switch, whole=True))


@router.post(
    "/{switch_id}/release", operation_id="release_switch", summary="One step of the release",
    responses=problems(404, 409),
)  # fmt: skip
async def release_switch(
    switch_id: Id, body: ReleaseIn, principal: SwitchesReleaser, services: ServicesDep
) -> SwitchOut:
    """A kill switch is released to safe mode first, in which runs go on but only read; then for good."""
    switch = await _known(switch_id, principal, services)
    if switch.tenant != principal.tenant and not _installation(principal, services):
        raise _not_yours()
    if switch.state != body.state:
        raise _moved(f"the switch is {switch.state}")
    to: SwitchState = "safe_mode" if switch.state == "stop" and switch.scope in RUN_WIDE else "released"
    try:
        after = await services.switches.advance(switch, to, by=principal.id, reason=body.reason.strip())
    except SwitchMoved as moved:
        raise _moved(str(moved)) from None
    return await _out(services, after, whole=True)


def _scope(body: SwitchIn, principal: Principal, services: Services) -> tuple[str, str]:
    """Tenant and target of the switch. Raises Refused for what it cannot mean, or whose it is not."""
    if body.kind == "safe_mode" and body.scope not in RUN_WIDE:
        raise invalid("body.kind", f"a {body.scope} has no safe mode", "use `stop`")
    if body.scope in NAMED and not body.target:
        raise invalid("body.target", f"which {body.scope}?", f"give the {body.scope}'s name, or a pattern")
    if body.scope == "global" and body.target:
        raise invalid("body.target", "a global switch has no target", "leave it out, or choose another scope")
    tenant = principal.tenant
    if body.scope == "global" or (body.everywhere and body.scope in NAMED):
        tenant = EVERYWHERE
    elif body.scope == "tenant":
        tenant = body.target or principal.tenant
        if tenant == EVERYWHERE:
            raise invalid("body.target", "is no tenant", "use the scope `global`")
    if tenant != principal.tenant and not _installation(principal, services):
        raise _not_yours()
    return tenant, body.target if body.scope in NAMED else ""


def _installation(principal: Principal, services: Services) -> bool:
    return principal.tenant == services.settings.policy_tenant


def _seen_by(principal: Principal, services: Services, switch: SwitchOut) -> SwitchOut:
    """Without what is of other tenants: numbers and runs of a switch for all of them are the installation's."""
    if switch.tenant != EVERYWHERE or _installation(principal, services):
        return switch
    nothing = Counts(requested=0, acknowledged=0, confirmed=0, resumed=0)
    return switch.model_copy(update={"counts": nothing, "runs": (), "engines": {}})


async def _known(switch_id: str, principal: Principal, services: Services) -> Switch:
    switch = await services.switches.get(switch_id)
    if switch is None or (
        switch.tenant not in (principal.tenant, EVERYWHERE) and not _installation(principal, services)
    ):
        raise not_found("switch", switch_id)
    return switch


def _not_yours() -> Refused:
    return Refused(
        403, "forbidden", "the switch reaches beyond your tenant",
        remedy="an administrator of the installation's own tenant has to do it",
    )  # fmt: skip


def _moved(detail: str) -> Refused:
    return Refused(409, "switch_moved", detail, remedy="look at it again, then decide")
