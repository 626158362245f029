"""Times as the store keeps them: UTC, microseconds, fixed-width ISO text that sorts like the time on every database."""

from datetime import UTC, datetime, timedelta

import sqlalchemy as sa
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeDecorator
from typing_extensions import override

AHEAD = timedelta(minutes=1)
"""How far the clocks of an installation's machines may be apart. What is of later than that was written before a clock
was set back, and says nothing about how long ago it was."""


def now() -> datetime:
    """The current time, UTC, aware."""
    return datetime.now(UTC)


def recent(moment: datetime, within: timedelta) -> bool:
    """Whether it was so short a time ago. Of a moment that has not come yet nobody knows: no."""
    age = now() - moment
    return -AHEAD <= age < within


def to_text(moment: datetime) -> str:
    """`2026-11-22T18:02:58.000001Z`: always 27 characters. Raises ValueError for a time without a zone."""
    if moment.tzinfo is None:
        raise ValueError("a time without a zone means nothing here")
    if moment.tzinfo is not UTC:
        moment = moment.astimezone(UTC)
    # Not strftime: its %Y is not zero-padded everywhere. What is cut off is `+00:00`.
    return moment.isoformat(timespec="microseconds")[:-6] + "Z"


def from_text(text: str) -> datetime:
    """Reverse of `to_text`."""
    return datetime.fromisoformat(text)


class UtcTime(TypeDecorator[datetime]):
    """Column type of a time."""

    impl = sa.Text
    cache_ok = True

    @override
    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> str | None:
        return None if value is None else to_text(value)

    @override
    def process_result_value(self, value: str | None, dialect: Dialect) -> datetime | None:
        return None if value is None else from_text(value)
