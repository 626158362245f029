"""API keys: `gh_<id>_<secret><checksum>`. The store keeps an HMAC of the whole key, never the key.

The secret has 160 random bits, so a fast HMAC is the right hash (a slow password hash would only slow the API down).
The pepper lives in a file beside the database, not in it: a copy of the database alone verifies nothing. The checksum
lets a scanner, or us, tell a real key from a typing error without asking the database.
"""

import hashlib
import hmac
import re
import secrets
import zlib
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from policies.decision import Principal
from tools.contract import JsonObject, Wire
from worker.store import times
from worker.store.audit import AuditEvent, AuditLog
from worker.store.database import Database, StoreUnavailable
from worker.store.ids import encode
from worker.store.keyfiles import read_or_create
from worker.store.tables import api_key as table

PEPPER = "pepper"
_ID_CHARS, _SECRET_CHARS, _CHECK_CHARS = 12, 32, 7
_FORM = re.compile(r"gh_([0-9a-z]{12})_([0-9a-z]{39})", re.ASCII)
_TOUCH_EVERY = timedelta(minutes=1)


class ApiKey(Wire):
    """An API key as it may be shown: everything but the secret."""

    id: str
    name: str
    principal: Principal
    scopes: tuple[str, ...] = ()
    """What of its roles' rights the key may use, as `resource:action` (`runs:read`, `runs:*`); empty means all."""
    created_at: datetime
    expires_at: datetime | None = None
    revoked_at: datetime | None = None
    last_used_at: datetime | None = None
    """Within a minute."""


def covers(scopes: tuple[str, ...], resource: str, action: str) -> bool:
    """Whether a key with these scopes may use the right, should its roles have it."""
    return not scopes or not {f"{resource}:{action}", f"{resource}:*"}.isdisjoint(scopes)


class ApiKeys:
    """The keys of one installation."""

    def __init__(self, db: Database, audit: AuditLog, keys: Path) -> None:
        """`keys` is `settings.keys`; the pepper is made there on first use. Raises KeyFileUnsafe, OSError."""
        self.db = db
        self._audit = audit
        self._pepper = load_or_create_pepper(keys)

    async def create(
        self,
        name: str,
        principal: Principal,
        expires_at: datetime | None = None,
        *,
        scopes: tuple[str, ...] = (),
        actor: str = "system:cli",
    ) -> tuple[ApiKey, str]:
        """Issue a key that acts as `principal`, and record `key.created` by `actor`. The plaintext is returned here and
        never again. What is private in the name does not stay in it. Raises StoreUnavailable."""
        async with self.db.begin() as conn:
            return await self._issue(conn, str(self.db.redact(name)), principal, expires_at, scopes, actor)

    async def rotate(
        self, tenant: str | None, key_id: str, *, grace: timedelta, actor: str = "system:cli"
    ) -> tuple[ApiKey, str] | None:
        """Issue a successor with the same name, principal, scopes and life span; the old key goes on for `grace` at
        most, so that its users can change over. Recorded as `key.rotated`. None when the tenant has no such valid key.
        Raises StoreUnavailable."""
        moment = times.now()
        async with self.db.begin() as conn:
            row = (await conn.execute(sa.select(table).where(_mine(tenant, key_id)).with_for_update())).first()
            if row is None or not _valid(row, moment):
                return None
            old = _key(row)
            expires_at = None if old.expires_at is None else moment + (old.expires_at - old.created_at)
            new, plaintext = await self._issue(conn, old.name, old.principal, expires_at, old.scopes, actor)
            ends = moment + grace if old.expires_at is None else min(moment + grace, old.expires_at)
            await conn.execute(sa.update(table).where(table.c.id == key_id).values(expires_at=ends))
            body: JsonObject = {"key": key_id, "successor": new.id, "name": old.name, "until": times.to_text(ends)}
            # Named by the successor: within its grace a key may be rotated again.
            event = AuditEvent(f"key/{new.id}/rotated", "key.rotated", row.tenant, None, actor, body)
            await self._audit.append(event, conn=conn)
        return new, plaintext

    async def _issue(
        self,
        conn: AsyncConnection,
        name: str,
        principal: Principal,
        expires_at: datetime | None,
        scopes: tuple[str, ...],
        actor: str,
    ) -> tuple[ApiKey, str]:
        key_id = encode(secrets.randbits(5 * _ID_CHARS), _ID_CHARS)
        bare = f"gh_{key_id}_{encode(secrets.randbits(5 * _SECRET_CHARS), _SECRET_CHARS)}"
        plaintext = bare + _checksum(bare)
        key = ApiKey(
            id=key_id, name=name, principal=principal, scopes=scopes, created_at=times.now(), expires_at=expires_at
        )
        body: JsonObject = {
            "key": key_id, "name": name, "principal": principal.id, "roles": list(principal.roles),
            "expires_at": None if expires_at is None else times.to_text(expires_at),
        }  # fmt: skip
        if scopes:
            body["scopes"] = list(scopes)
        await conn.execute(
            sa.insert(table).values(
                id=key_id, tenant=principal.tenant, name=name, principal=principal.model_dump_json(),
                mac=self._mac(plaintext), created_at=key.created_at, expires_at=expires_at,
                scopes=" ".join(scopes) or None,
            )
        )  # fmt: skip
        event = AuditEvent(f"key/{key_id}/created", "key.created", principal.tenant, None, actor, body)
        await self._audit.append(event, conn=conn)
        return key, plaintext

    async def verify(self, plaintext: str) -> ApiKey | None:
        """The key, and with it whom it stands for; None for anything that is not a valid key now (malformed, unknown,
        revoked, expired). A malformed key costs no query. Raises StoreUnavailable."""
        form = _FORM.fullmatch(plaintext)
        if form is None or not hmac.compare_digest(plaintext[-_CHECK_CHARS:], _checksum(plaintext[:-_CHECK_CHARS])):
            return None
        async with self.db.read() as conn:
            row = (await conn.execute(sa.select(table).where(table.c.id == form[1]))).first()
        # The MAC is computed and compared whether or not the id exists: both take the same time.
        known = hmac.compare_digest(self._mac(plaintext), row.mac if row is not None else bytes(32))
        moment = times.now()
        if row is None or not known or not _valid(row, moment):
            return None
        if row.last_used_at is None or row.last_used_at <= moment - _TOUCH_EVERY:
            await self._touch(row.id, moment)
        return _key(row)

    async def list(self, tenant: str | None) -> list[ApiKey]:
        """All keys of the tenant, newest first, revoked and expired ones included. `tenant` None is internal."""
        query = sa.select(table).order_by(table.c.created_at.desc(), table.c.id.desc())
        if tenant is not None:
            query = query.where(table.c.tenant == tenant)
        async with self.db.read() as conn:
            return [_key(row) for row in await conn.execute(query)]

    async def revoke(self, tenant: str | None, key_id: str, *, actor: str = "system:cli") -> ApiKey | None:
        """Withdraw the key at once, and record `key.revoked`. Repeating it changes nothing; None when the tenant has no
        such key. Raises StoreUnavailable."""
        mine = _mine(tenant, key_id)
        async with self.db.begin() as conn:
            await conn.execute(
                sa.update(table).where(mine, table.c.revoked_at.is_(None)).values(revoked_at=times.now())
            )  # fmt: skip
            row = (await conn.execute(sa.select(table).where(mine))).first()
            if row is None:
                return None
            await self._audit.append(
                AuditEvent(f"key/{key_id}/revoked", "key.revoked", row.tenant, None, actor,
                           {"key": key_id, "name": row.name}), conn=conn,
            )  # fmt: skip
            return _key(row)

    async def _touch(self, key_id: str, moment: datetime) -> None:
        """Note the use. Many requests at the same moment write once; a store too busy to note it refuses nobody."""
        stale = sa.or_(table.c.last_used_at.is_(None), table.c.last_used_at <= moment - _TOUCH_EVERY)
        try:
            async with self.db.begin() as conn:
                await conn.execute(sa.update(table).where(table.c.id == key_id, stale).values(last_used_at=moment))
        except StoreUnavailable:
            pass

    def _mac(self, plaintext: str) -> bytes:
        return hmac.digest(self._pepper, plaintext.encode(), hashlib.sha256)


def load_or_create_pepper(keys: Path) -> bytes:
    """What keys are hashed with, made on first use. Raises KeyFileUnsafe, OSError, ValueError when it is no hex."""
    return bytes.fromhex(read_or_create(keys / PEPPER, _new_pepper).decode().strip())


def _new_pepper() -> bytes:
    return secrets.token_bytes(32).hex().encode()


def _checksum(bare: str) -> str:
    return encode(zlib.crc32(bare.encode()), _CHECK_CHARS)


def _mine(tenant: str | None, key_id: str) -> sa.ColumnElement[bool]:
    mine = table.c.id == key_id
    return mine if tenant is None else sa.and_(mine, table.c.tenant == tenant)


def _valid(row: sa.Row[Any], moment: datetime) -> bool:
    return row.revoked_at is None and (row.expires_at is None or row.expires_at > moment)


def _key(row: sa.Row[Any]) -> ApiKey:
    return ApiKey(
        id=row.id, name=row.name, principal=Principal.model_validate_json(row.principal), created_at=row.created_at,
        expires_at=row.expires_at, revoked_at=row.revoked_at, last_used_at=row.last_used_at,
        scopes=tuple((row.scopes or "").split()),
    )  # fmt: skip
