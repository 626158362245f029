"""Business hours: the moment at which so much working time has passed. Pure: the time is given, never read.

Time zones come from the machine's time zone database, so only those may ask who record the answer (the gate does), and
never workflow code, which must find the same at every replay.
"""

from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from tools.contract import Wire

MAX_DAYS = 3660
"""A calendar that has not let enough working time pass within ten years is refused."""


class Calendar(Wire):
    """When people work."""

    zone: str
    """A name of the IANA database, such as `Europe/Berlin`."""
    hours: tuple[tuple[time, time], ...]
    """Spans of one day, from and to, not overlapping, in order; local time. `00:00` as an end is midnight."""
    weekdays: frozenset[int]
    """1 is Monday."""
    holidays: frozenset[date] = frozenset()


def after(calendar: Calendar, start: datetime, working: timedelta) -> datetime:
    """The first moment (UTC) at which `working` time has passed since `start`, which must have a time zone.

    Hours that do not exist or exist twice when clocks change count for as long as they last. Raises ValueError when the
    calendar never gets there.
    """
    left, day = working, start.astimezone(ZoneInfo(calendar.zone)).date()
    for _ in range(MAX_DAYS):
        for opens, closes in _spans(calendar, day):
            begin = max(opens, start)
            if begin >= closes:
                continue
            if left <= closes - begin:
                return begin + left
            left -= closes - begin
        day += timedelta(days=1)
    raise ValueError(f"the calendar leaves no {working} of working time within {MAX_DAYS} days")


def _spans(calendar: Calendar, day: date) -> list[tuple[datetime, datetime]]:
    """The working spans of a day, in UTC."""
    if day.isoweekday() not in calendar.weekdays or day in calendar.holidays:
        return []
    zone, found = ZoneInfo(calendar.zone), list[tuple[datetime, datetime]]()
    for opens, closes in calendar.hours:
        last = day + timedelta(days=1) if closes == time() else day
        ends = datetime.combine(last, closes, zone).astimezone(UTC)
        found.append((datetime.combine(day, opens, zone).astimezone(UTC), ends))
    return found
