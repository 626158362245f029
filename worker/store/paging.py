"""Pages of a list: newest first, with an opaque cursor that names the last item seen (keyset, never an offset)."""

import base64
import binascii
import json
from collections.abc import Callable, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

import sqlalchemy as sa

from tools.contract import Wire

MAX_LIMIT = 200

ItemT = TypeVar("ItemT")
_CURSOR_LIMIT_CHARS = 400


class BadCursor(ValueError):  # noqa: N818  (named for what the caller sent)
    """The cursor was not made by this list."""


class Position(NamedTuple):
    """Where a page ended: the time and id of its last item."""

    at: str
    id: str


class Page(Wire, Generic[ItemT]):
    """Some items, newest first, and the cursor of what follows; None at the end."""

    items: tuple[ItemT, ...]
    next_cursor: str | None = None


def encode_cursor(kind: str, position: Position) -> str:
    """An opaque text for clients; `kind` keeps the cursor of one list from being used on another."""
    return base64.urlsafe_b64encode(json.dumps([kind, *position]).encode()).decode().rstrip("=")


def decode_cursor(kind: str, cursor: str) -> Position:
    """Reverse of `encode_cursor`; raises BadCursor for anything it did not make."""
    if len(cursor) > _CURSOR_LIMIT_CHARS:
        raise BadCursor("the cursor is not one of this list")
    try:
        text = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        parts: object = json.loads(text)
    except (ValueError, binascii.Error, RecursionError) as error:
        raise BadCursor("the cursor is not one of this list") from error
    match parts:
        case [str(found), str(at), str(item)] if found == kind and "\x00" not in at + item:
            return Position(at, item)
        case _:
            raise BadCursor("the cursor is not one of this list")


def newest_first(
    query: sa.Select[Any], *, kind: str, at: sa.Column[Any], key: sa.Column[str], cursor: str | None, limit: int
) -> sa.Select[Any]:  # fmt: skip
    """`query` ordered newest first, starting after `cursor`; one row more than `limit`, to know whether more follow.

    Raises BadCursor; ValueError when `limit` is not 1..MAX_LIMIT.
    """
    if not 1 <= limit <= MAX_LIMIT:
        raise ValueError(f"limit must be 1..{MAX_LIMIT}")
    if cursor is not None:
        position = decode_cursor(kind, cursor)
        # Compared as stored: the time column is fixed-width text, which sorts like the time.
        stamp = sa.type_coerce(at, sa.Text())
        query = query.where(sa.or_(stamp < position.at, sa.and_(stamp == position.at, key < position.id)))
    return query.order_by(at.desc(), key.desc()).limit(limit + 1)


def page_of(kind: str, items: Sequence[ItemT], limit: int, position: Callable[[ItemT], Position]) -> Page[ItemT]:
    """The page made of the rows that a `newest_first` query found."""
    kept = tuple(items[:limit])
    more = len(items) > limit
    return Page[Any](items=kept, next_cursor=encode_cursor(kind, position(kept[-1])) if more else None)
