"""Keys, switches, deliveries and health of an installation."""

from datetime import datetime
from typing import Literal

from pydantic import Field

from gatehouse_client.models.wire import Told


class Principal(Told):
    """Somebody who may act: a person or a service, in one tenant, with roles; identity comes from auth."""

    id: str
    tenant: str = "default"
    roles: tuple[str, ...] = ()
    kind: Literal["person", "service"] | str = "person"


class ApiKey(Told):
    """A key without its secret."""

    id: str
    name: str
    principal: Principal
    scopes: tuple[str, ...]
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None


class NewApiKey(ApiKey):
    """A key just made; `key` is not stored and cannot be read again."""

    key: str


class Retention(Told):
    """What becomes of the tenant's old contents."""

    days: int | None
    before: datetime | None
    records: int
    bytes: int
    held: int
    runs: int
    files: int


class Hold(Told):
    """What nobody may remove until the hold is released."""

    id: str
    tenant: str
    run_id: str | None
    since: datetime | None
    until: datetime | None
    reason: str
    placed_by: str
    placed_at: datetime
    lifted_by: str | None = None
    lifted_at: datetime | None = None


class StopCounts(Told):
    """Requested against confirmed stops of one switch."""

    requested: int
    acknowledged: int
    confirmed: int
    resumed: int


class Stop(Told):
    """One run that the switch stops."""

    run_id: str
    requested_at: datetime
    acknowledged_at: datetime | None
    confirmed_at: datetime | None
    resumed_at: datetime | None
    left: int | None


class Switch(Told):
    """A switch, with requested against confirmed stops."""

    id: str
    scope: Literal["global", "tenant", "automation", "tool", "model"] | str
    tenant: str
    target: str = ""
    state: Literal["stop", "safe_mode", "released"] | str
    running: Literal["pause", "cancel"] | str = "pause"
    reason: str
    set_by: str
    set_at: datetime
    revision: int
    changed_by: str
    changed_at: datetime
    counts: StopCounts
    confirmed: bool
    engines: dict[str, bool] = Field(default_factory=dict)
    runs: tuple[Stop, ...] = ()


class Delivery(Told):
    """One notice on its way to one channel."""

    id: str
    notice_id: str
    type: str
    tenant: str
    channel: str
    state: Literal["pending", "delivered", "dead", "dismissed"] | str
    attempts: int = 0
    next_at: datetime
    problem: str | None = None
    receipt: str | None = None
    created_at: datetime
    ended_at: datetime | None = None


class Backlog(Told):
    """What nobody has been told yet. Watch `oldest_pending_s`, and that `dead` is 0."""

    pending: int
    dead: int
    oldest_pending_at: datetime | None
    oldest_pending_s: float


class PartStatus(Told):
    """One part the API needs."""

    ok: bool
    reason: str | None = None
    """Why it is not ok."""
    remedy: str | None = None
    detail: str | None = None


class Readiness(Told):
    """Ready if every part is that this process needs to serve. A queue without workers (`workers`) is told and does not
    count: people can still read, answer and cancel."""

    ready: bool
    parts: dict[str, PartStatus]


class Health(Told):
    """The process answers; says nothing about its parts."""

    status: str = "alive"
