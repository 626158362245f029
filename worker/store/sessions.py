"""Sessions of people in the browser: a random token in a cookie, its digest and who it stands for here.

A session that was opened with an API key stands for whatever that key stands for now: a revoked or expired key ends it,
changed roles count at once. Every session ends when it was idle too long, at a fixed time, when it is closed, or when
the clock was set back to before its last use: nobody knows then how long it was idle.
"""

import hashlib
import secrets
from datetime import datetime, timedelta
from typing import Any, Literal

import sqlalchemy as sa

from policies.decision import Principal
from tools.contract import Wire
from worker.store import times
from worker.store.audit import AuditEvent, AuditLog
from worker.store.database import Database, StoreUnavailable
from worker.store.tables import api_key
from worker.store.tables import console_session as table

_TOUCH_EVERY = timedelta(seconds=30)
_TOKEN_BYTES = 32


class Session(Wire):
    """An open session."""

    id: str
    """Digest of its token: names it in the log, opens nothing."""
    principal: Principal
    via: Literal["key", "oidc"]
    created_at: datetime
    expires_at: datetime
    scopes: tuple[str, ...] = ()
    """Those of the key that opened it."""


class Sessions:
    """The browser sessions of one installation."""

    def __init__(self, db: Database, audit: AuditLog, *, idle: timedelta, life: timedelta) -> None:
        """`idle`: unused for that long, a session is over; `life`: over in any case."""
        self.db = db
        self._audit = audit
        self._idle = idle
        self._life = life

    async def open(self, principal: Principal, via: Literal["key", "oidc"], key_id: str | None = None) -> str:
        """A new session, on record as `session.opened`; the token is returned here and never again."""
        token, moment = secrets.token_urlsafe(_TOKEN_BYTES), times.now()
        session_id = _digest(token)
        async with self.db.begin() as conn:
            await conn.execute(sa.delete(table).where(table.c.expires_at <= moment - timedelta(days=1)))
            await conn.execute(
                sa.insert(table).values(
                    id=session_id, tenant=principal.tenant, principal=principal.model_dump_json(), key_id=key_id,
                    via=via, created_at=moment, seen_at=moment, expires_at=moment + self._life,
                )
            )  # fmt: skip
            event_id = f"session/{session_id}/opened"
            body: dict[str, Any] = {"via": via, "key": key_id, "roles": list(principal.roles)}
            await self._audit.append(
                AuditEvent(event_id, "session.opened", principal.tenant, None, principal.id, body), conn=conn
            )
        return token

    async def find(self, token: str, *, used: bool = True) -> Session | None:
        """Whose session it is; None when there is none, or it is over. `used`: somebody did something with it, which
        starts the idle time anew; a page that only looks whether it is out of date is no use. Raises StoreUnavailable.
        """
        row, moment = await self._row(_digest(token)), times.now()
        if row is None or self._over(row, moment):
            return None
        if used and row.seen_at <= moment - min(_TOUCH_EVERY, self._idle / 4):
            await self._touch(row.id, moment)
        return Session(
            id=row.id, principal=Principal.model_validate_json(row.key_principal or row.principal), via=row.via,
            created_at=row.created_at, expires_at=row.expires_at, scopes=tuple((row.key_scopes or "").split()),
        )  # fmt: skip

    async def lives(self, session: Session) -> bool:
        """Whether it is still open."""
        row = await self._row(session.id)
        return row is not None and not self._over(row, times.now())

    async def close(self, session: Session) -> None:
        """End it at once, on record. Repeating it changes nothing."""
        async with self.db.begin() as conn:
            await conn.execute(
                sa.update(table)
                .where(table.c.id == session.id, table.c.closed_at.is_(None))
                .values(closed_at=times.now())
            )
            who = session.principal
            await self._audit.append(
                AuditEvent(
                    f"session/{session.id}/closed", "session.closed", who.tenant, None, who.id, {"via": session.via}
                ),
                conn=conn,
            )

    async def _row(self, session_id: str) -> sa.Row[Any] | None:
        query = (
            sa.select(table, api_key.c.principal.label("key_principal"), api_key.c.revoked_at.label("key_revoked"),
                      api_key.c.expires_at.label("key_expires"), api_key.c.scopes.label("key_scopes"))
            .outerjoin(api_key, api_key.c.id == table.c.key_id)
            .where(table.c.id == session_id)
        )  # fmt: skip
        async with self.db.read() as conn:
            return (await conn.execute(query)).first()

    def _over(self, row: sa.Row[Any], moment: datetime) -> bool:
        if row.closed_at is not None or row.expires_at <= moment or not times.recent(row.seen_at, self._idle):
            return True
        if row.key_id is None:
            return False
        expired = row.key_expires is not None and row.key_expires <= moment
        return row.key_principal is None or row.key_revoked is not None or expired

    async def _touch(self, session_id: str, moment: datetime) -> None:
        """Note the use; a store too busy to note it throws nobody out."""
        try:
            async with self.db.begin() as conn:
                await conn.execute(sa.update(table).where(table.c.id == session_id).values(seen_at=moment))
        except StoreUnavailable:
            pass


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
