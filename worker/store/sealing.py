"""Columns that hold what runs work with, sealed at rest: AES-256-GCM under a key of the tenant, all of them here.

A sealed value is a text, `sealed.1.<data key>.<tenant>.<nonce and ciphertext>`; its table, column, tenant and row are
bound to it, so that a value that was moved to another row, column or tenant is refused. What is searched or sorted by
(ids, states, times, tools, automations, digests) stays plain. Values of before sealing are read as they are.
"""

import os
import struct
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import sqlalchemy as sa
from cryptography.exceptions import InvalidTag

from worker.store import tables
from worker.store.database import StoreUnavailable
from worker.store.keyring import DataKeyMissing, Keyring

PREFIX: Final = "sealed.1."
"""No JSON begins so."""
_NONCE_BYTES = 12


class SealedValueRefused(StoreUnavailable):
    """The value was altered, belongs to another row, or its data key is not here; the message says which and where."""


class SealedTable(NamedTuple):
    """What of a table is sealed."""

    key: tuple[str, ...]
    """Columns that name the row; the tenant besides, where the table has one."""
    columns: tuple[str, ...]


SEALED: Final[Mapping[sa.Table, SealedTable]] = {
    tables.run: SealedTable(("id",), ("inputs", "files", "result")),
    tables.approval: SealedTable(("id",), ("request", "answer", "progress")),
    tables.ledger: SealedTable(("key",), ("result",)),
    tables.idempotency_key: SealedTable(("principal", "key"), ("response",)),
    tables.approval_grant: SealedTable(("id",), ("content",)),
    tables.delegation: SealedTable(("id",), ("content",)),
}
"""Every table with sealed columns."""


class Seals:
    """Seals and opens values of rows. Cheap to make; a store without data keys can do neither."""

    def __init__(self, keyring: Keyring | None) -> None:
        self._keyring = keyring

    def seal(self, table: sa.Table, row: Mapping[Any, Any], tenant: str | None = None, **values: str | None) -> Any:
        """The columns `values` of the row, ready to be written; None stays None, for there is nothing to hide.

        `row` holds at least the columns that name it, and its tenant unless that is given. Raises StoreUnavailable when
        the store was opened without data keys, KeyringError when they went bad.
        """
        whose = row["tenant"] if tenant is None else tenant
        return {
            name: None if value is None else self._seal(table, name, whose, _key(table, row), value)
            for name, value in values.items()
        }

    def open(self, table: sa.Table, row: sa.Row[Any]) -> dict[str, Any]:
        """The row with every sealed column that it holds opened. Raises SealedValueRefused, StoreUnavailable."""
        opened: dict[str, Any] = row._asdict()  # pyright: ignore[reportPrivateUsage]  (documented; columns keep `asdict`)
        for name in SEALED[table].columns:
            if (value := opened.get(name)) is not None:
                opened[name] = self._open(table, name, opened, value)
        return opened

    def stale(self, value: str | None) -> bool:
        """Whether the value is plain, or sealed under another key than the newest."""
        return value is not None and not value.startswith(f"{PREFIX}{self._keys().newest}.")

    def _seal(self, table: sa.Table, column: str, tenant: str, key: tuple[str, ...], value: str) -> str:
        keyring = self._keys()
        key_id, nonce = keyring.newest, os.urandom(_NONCE_BYTES)
        sealed = keyring.cipher(key_id, f"column/{tenant}").encrypt(
            nonce, value.encode(), _bound(key_id, table.name, column, tenant, *key)
        )
        return ".".join((PREFIX[:-1], key_id, _text(tenant.encode()), _text(nonce + sealed)))

    def _open(self, table: sa.Table, column: str, row: Mapping[str, Any], value: str) -> str:
        if not value.startswith(PREFIX):
            return value
        key, where = _key(table, row), f"{table.name}.{column} of {'/'.join(_key(table, row))}"
        try:
            key_id, named, body = value.removeprefix(PREFIX).split(".")
            # Where the row says whose it is, the value does not count for that.
            tenant: str = row["tenant"] if "tenant" in table.c else urlsafe_b64decode(named).decode()
            raw = urlsafe_b64decode(body)
            return (
                self._keys().cipher(key_id, f"column/{tenant}")
                .decrypt(raw[:_NONCE_BYTES], raw[_NONCE_BYTES:], _bound(key_id, table.name, column, tenant, *key))
                .decode()
            )  # fmt: skip
        except DataKeyMissing as error:
            raise SealedValueRefused(f"{where}: {error}") from error
        except (InvalidTag, ValueError) as error:
            raise SealedValueRefused(f"{where} was altered, or moved from another row") from error

    def _keys(self) -> Keyring:
        if self._keyring is None:
            raise StoreUnavailable("the store was opened without its data keys: what runs work with stays closed")
        return self._keyring


def owner(value: str) -> str | None:
    """Whose a sealed value says it is, which only opening it proves; None for a plain one."""
    if not value.startswith(PREFIX):
        return None
    return urlsafe_b64decode(value.split(".")[3]).decode(errors="replace")


def _key(table: sa.Table, row: Mapping[Any, Any]) -> tuple[str, ...]:
    return tuple(str(row[name]) for name in SEALED[table].key)


def _text(raw: bytes) -> str:
    return urlsafe_b64encode(raw).decode()


def _bound(*parts: str) -> bytes:
    """The parts as bytes that no other parts give."""
    raw = [part.encode() for part in ("gatehouse/v1/column", *parts)]
    return b"".join(struct.pack(">I", len(part)) + part for part in raw)
