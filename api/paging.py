"""Lists: one page shape, one limit, an opaque cursor that the store writes and reads."""

from typing import Annotated, Generic, TypeVar

from fastapi import Query
from pydantic import BaseModel

Item = TypeVar("Item")

Limit = Annotated[int, Query(ge=1, le=200, description="Items on one page.")]
Cursor = Annotated[
    str | None, Query(max_length=512, description="`next_cursor` of the page before; leave out for the first page.")
]


class PageOut(BaseModel, Generic[Item]):
    """One page of a list; `next_cursor` is null on the last."""

    items: list[Item]
    next_cursor: str | None = None
