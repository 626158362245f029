"""Row-level security: on PostgreSQL the database itself shows a request nothing but rows of its own tenant.

Every query of the store names its tenant; this is the second fence, for the query that one day forgets to. A process of
ours sees every tenant until a request narrows it; a connection that says nothing sees no row at all.
"""

from contextvars import ContextVar
from typing import Final

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

AT_START: Final = "-c gatehouse.every_tenant=on"
"""Option of a connection of ours. Two settings, because a tenant may have any name."""
_NARROW: Final = sa.text(
    "SELECT set_config('gatehouse.every_tenant', 'off', true), set_config('gatehouse.tenant', :tenant, true)"
)

_tenant: ContextVar[str | None] = ContextVar("gatehouse_tenant", default=None)
"""None: workers, sweeps and the command line serve all tenants."""


def narrow_to(tenant: str) -> None:
    """From here on this task, and what it starts, sees rows of the tenant only. There is no way back: requests end."""
    _tenant.set(tenant)


def narrowed() -> bool:
    """Whether this task serves one tenant only."""
    return _tenant.get() is not None


async def declare(conn: AsyncConnection) -> None:
    """Tell the database, for the open transaction, whose rows may be seen. SQLite has no such thing."""
    if narrowed() and conn.dialect.name == "postgresql":
        await conn.execute(_NARROW, {"tenant": _tenant.get()})
