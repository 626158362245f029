"""Pages of lists that are held in memory (automations, tools, keys)."""

import base64
import binascii
from collections.abc import Callable, Sequence
from typing import TypeVar

from api.errors import invalid
from api.paging import PageOut

T = TypeVar("T")


def page_of(items: Sequence[T], key: Callable[[T], str], limit: int, cursor: str | None) -> PageOut[T]:
    """The page behind `cursor` of items sorted by `key`. Raises Refused 422 for a cursor that is not one of ours."""
    rest = list(items)
    if cursor is not None:
        try:
            after = base64.urlsafe_b64decode(cursor.encode("ascii")).decode()
        except (binascii.Error, UnicodeError):
            raise bad_cursor() from None
        rest = [i for i in rest if key(i) > after]
    page = rest[:limit]
    more = len(rest) > limit
    return PageOut[T](
        items=page, next_cursor=base64.urlsafe_b64encode(key(page[-1]).encode()).decode() if more else None
    )


def bad_cursor() -> Exception:
    """The refusal of a cursor nobody handed out."""
    return invalid("query.cursor", "is not a cursor of this list", "use `next_cursor` of the page before, unchanged")
