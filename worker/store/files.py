"""Uploaded files: the bytes in the blob store, and a row that says whose they are and what they are called."""

import unicodedata
from collections.abc import AsyncIterable
from datetime import datetime

import sqlalchemy as sa

from tools.contract import Wire
from worker.store import times
from worker.store.blobs import Blobs
from worker.store.database import Database
from worker.store.ids import new_id
from worker.store.tables import file as table

_NAME_LIMIT_BYTES = 200


class BadFileName(ValueError):  # noqa: N818  (says what is the case)
    """The name cannot be a file of a workspace; the message says why."""


class File(Wire):
    """An uploaded file."""

    id: str
    tenant: str
    name: str
    size: int
    sha256: str
    media_type: str
    uploaded_by: str
    """Principal id."""
    created_at: datetime


class Files:
    """The uploads of one store."""

    def __init__(self, db: Database, blobs: Blobs) -> None:
        self.db = db
        self._blobs = blobs

    async def add(
        self, tenant: str, name: str, data: bytes | AsyncIterable[bytes], *, media_type: str, uploaded_by: str,
        max_bytes: int,
    ) -> File:  # fmt: skip
        """Keep an upload. Raises BadFileName before a byte is read, BlobTooLarge, StoreUnavailable."""
        check_name(name)
        blob = await self._blobs.put(data, max_bytes=max_bytes)
        added = File(
            id=new_id("file"), tenant=tenant, name=name, size=blob.size, sha256=blob.sha256, media_type=media_type,
            uploaded_by=uploaded_by, created_at=times.now(),
        )  # fmt: skip
        async with self.db.begin() as conn:
            await conn.execute(sa.insert(table).values(added.model_dump()))
        return added

    async def get(self, tenant: str | None, file_id: str) -> File | None:
        """The file, if that tenant has it. `tenant` None is for internal use: any tenant."""
        query = sa.select(table).where(table.c.id == file_id)
        if tenant is not None:
            query = query.where(table.c.tenant == tenant)
        async with self.db.read() as conn:
            row = (await conn.execute(query)).mappings().first()
        return None if row is None else _file(row)


def check_name(name: str) -> None:
    """Raise BadFileName unless the name is one plain file name: no folder, nothing hidden or unprintable, and at most
    200 bytes. It becomes `in/<name>` of a workspace."""
    problem = None
    if not name or name.startswith("."):
        problem = "must not be empty or begin with a dot"
    elif "/" in name or "\\" in name:
        problem = "must not contain a slash"
    elif any(unicodedata.category(char).startswith(("C", "Zl", "Zp")) for char in name):
        problem = "must not contain control characters"
    elif len(name.encode()) > _NAME_LIMIT_BYTES:
        problem = f"must not be longer than {_NAME_LIMIT_BYTES} bytes"
    if problem is not None:
        raise BadFileName(f"file name {name[:60]!r} {problem}")


def _file(row: sa.RowMapping) -> File:
    return File.model_validate(dict(row))
