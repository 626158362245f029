"""What a rule that asks may say about its answers, as people write it, and what that comes to for one question."""

import re
from collections.abc import Collection, Iterable, Mapping
from datetime import date, datetime, time, timedelta
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo

from pydantic import BeforeValidator, Field, field_validator, model_validator

from policies.calendar import Calendar, after
from policies.terms import Group, Step, Terms
from tools.contract import Strict

MAX_WAIT_S = 30 * 86400
_DURATION = re.compile(r"^(\d{1,7})([smhd])$")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_DAYS = {name: n for n, name in enumerate(("mon", "tue", "wed", "thu", "fri", "sat", "sun"), 1)}
_HOURS = re.compile(r"^([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-4]):([0-5]\d)$")


def _seconds(value: object) -> object:
    """`90`, `30m`, `4h`, `2d` in seconds."""
    found = _DURATION.fullmatch(value) if isinstance(value, str) else None
    return int(found[1]) * _UNITS[found[2]] if found else value


def _listed(value: object) -> object:
    return [value] if isinstance(value, str) else value


Seconds = Annotated[int, Field(ge=1, le=MAX_WAIT_S), BeforeValidator(_seconds)]
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,47}$")]
Names = Annotated[tuple[Name, ...], BeforeValidator(_listed)]
Person = Annotated[str, Field(pattern=r"^[!-~]{1,128}$")]
Share = Annotated[float, Field(gt=0, lt=1)]


class GroupRow(Strict):
    """A named group: holders of any of the roles, and people by id."""

    roles: Names = ()
    people: Annotated[tuple[Person, ...], BeforeValidator(_listed)] = ()

    @model_validator(mode="after")
    def _has_somebody(self) -> "GroupRow":
        if not (self.roles or self.people):
            raise ValueError("a group names `roles`, `people`, or both")
        return self


class CalendarRow(Strict):
    """Business hours as written: `hours: ["09:00-12:00", "13:00-17:00"]`, `weekdays: [mon, tue]`."""

    zone: str
    hours: Annotated[tuple[str, ...], Field(min_length=1, max_length=8), BeforeValidator(_listed)]
    weekdays: Annotated[tuple[Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"], ...], Field(min_length=1)] = (
        "mon", "tue", "wed", "thu", "fri",
    )  # fmt: skip
    holidays: Annotated[tuple[date, ...], Field(max_length=1000)] = ()

    @field_validator("zone")
    @classmethod
    def _is_known(cls, zone: str) -> str:
        try:
            ZoneInfo(zone)
        except (KeyError, ValueError, OSError):
            raise ValueError(f"this machine knows no time zone {zone!r}; install tzdata, or correct it") from None
        return zone

    @field_validator("hours")
    @classmethod
    def _in_order(cls, hours: tuple[str, ...]) -> tuple[str, ...]:
        ends = 0
        for text in hours:
            span = _minutes(text)
            if span is None or not ends <= span[0] < span[1] <= 24 * 60:
                raise ValueError(f"{text!r} is no span like 09:00-17:00 that begins after the one before it")
            ends = span[1]
        return hours

    def calendar(self) -> Calendar:
        """As `policies.calendar` takes it."""
        spans = [_minutes(text) or (0, 0) for text in self.hours]
        hours = tuple((_time(opens), _time(closes)) for opens, closes in spans)
        return Calendar(
            zone=self.zone, hours=hours, weekdays=frozenset(_DAYS[d] for d in self.weekdays),
            holidays=frozenset(self.holidays),
        )  # fmt: skip


def _minutes(text: str) -> tuple[int, int] | None:
    found = _HOURS.fullmatch(text)
    return (int(found[1]) * 60 + int(found[2]), int(found[3]) * 60 + int(found[4])) if found else None


def _time(minutes: int) -> time:
    return time(minutes // 60 % 24, minutes % 60)


class EscalationRow(Strict):
    """After so long without an end, this group may answer, too."""

    after: Seconds
    to: Name


class Asking(Strict):
    """`approval:` of a rule that asks. Everything may be left out."""

    groups: Names = ()
    """Who may answer, instead of a role in `approvers`: members of any of these."""
    needed: Annotated[int, Field(ge=1, le=10)] = 1
    """How many different people must approve."""
    services: bool = False
    """Whether service principals may answer."""
    deadline: Seconds | None = None
    """Without one, the automation's."""
    calendar: Name | None = None
    """Deadline, reminders and escalation count this calendar's hours only; needs a `deadline`."""
    reminders: Annotated[tuple[Share, ...], Field(max_length=5)] = (0.5, 0.9)
    escalate: Annotated[tuple[EscalationRow, ...], Field(max_length=5)] = ()
    on_expiry: Literal["deny", "fallback"] = "deny"

    @model_validator(mode="after")
    def _makes_sense(self) -> "Asking":
        if self.calendar and self.deadline is None:
            raise ValueError("`calendar` needs a `deadline` that it measures")
        if self.deadline is not None and any(step.after >= self.deadline for step in self.escalate):
            raise ValueError("an escalation comes before the `deadline`")
        return self


def unknown(
    asking: Asking, groups: Collection[str], calendars: Collection[str]
) -> Iterable[tuple[tuple[int | str, ...], str]]:
    """Names that are declared nowhere: the field, and what is wrong."""
    for i, name in enumerate(asking.groups):
        if name not in groups:
            yield ("groups", i), f"unknown group {name!r}"
    for i, step in enumerate(asking.escalate):
        if step.to not in groups:
            yield ("escalate", i, "to"), f"unknown group {step.to!r}"
    if asking.calendar is not None and asking.calendar not in calendars:
        yield ("calendar",), f"unknown calendar {asking.calendar!r}"


def terms_of(asking: Asking | None, groups: Mapping[str, GroupRow]) -> Terms:
    """What the rule demands, groups by value; moments that a calendar counts are still missing."""
    if asking is None:
        return Terms()
    return Terms(
        groups=tuple(_group(name, groups) for name in asking.groups), needed=asking.needed, services=asking.services,
        deadline_s=asking.deadline, reminders=asking.reminders,
        escalation=tuple(Step(after_s=step.after, to=_group(step.to, groups)) for step in asking.escalate),
        on_expiry=asking.on_expiry,
    )  # fmt: skip


def timed(terms: Terms, calendar: Calendar, now: datetime) -> Terms:
    """The terms with every moment as this calendar counts it from `now`."""
    if terms.deadline_s is None:
        return terms

    def moment(seconds: float) -> datetime:
        return after(calendar, now, timedelta(seconds=seconds))

    changes: dict[str, Any] = {
        "deadline": moment(terms.deadline_s),
        "reminders_at": tuple(moment(terms.deadline_s * share) for share in terms.reminders),
        "escalation": tuple(s.model_copy(update={"at": moment(s.after_s)}) for s in terms.escalation),
    }
    return terms.model_copy(update=changes)


def _group(name: str, groups: Mapping[str, GroupRow]) -> Group:
    row = groups[name]
    return Group(name=name, roles=row.roles, people=row.people)
