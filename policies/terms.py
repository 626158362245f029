"""What an ask demands of its answers: who, how many of them, by when, and what happens while nobody answers. Pure data.

A decision of the gate carries its terms by value, groups and moments resolved, so that the workflow that waits needs
neither the policy nor a calendar.
"""

from datetime import datetime, timedelta
from typing import Annotated, Literal, NamedTuple

from pydantic import Field

from tools.contract import Wire


class Group(Wire):
    """A named group of approvers: holders of any of the roles, and the people named by id."""

    name: str
    roles: tuple[str, ...] = ()
    people: tuple[str, ...] = ()


class Step(Wire):
    """One step of an escalation chain: from then on this group may answer, too."""

    after_s: int
    to: Group
    at: datetime | None = None
    """The moment, where a calendar says when it is; None counts `after_s` around the clock."""


class Terms(Wire):
    """What an ask demands. The defaults: one person with the decision's role, reminded twice."""

    groups: tuple[Group, ...] = ()
    """Members of any of these may answer; without groups, holders of the decision's `approvers` role."""
    needed: Annotated[int, Field(ge=1)] = 1
    """How many different people must approve; one denial is enough to deny."""
    services: bool = False
    """Whether a service principal counts as somebody."""
    deadline_s: int | None = None
    """None: as the automation says."""
    deadline: datetime | None = None
    """The moment, where a calendar says when `deadline_s` has passed."""
    reminders: tuple[float, ...] = (0.5, 0.9)
    """Shares of the way to the deadline at which those asked are reminded."""
    reminders_at: tuple[datetime, ...] | None = None
    """The moments, where a calendar says when they are."""
    escalation: tuple[Step, ...] = ()
    on_expiry: Literal["deny", "fallback"] = "deny"
    """What nobody answering means: the agent is told no, or the run goes on by its rules. Never yes."""

    @property
    def demands(self) -> tuple[object, ...]:
        """What makes answers given under one decision worth anything under another: equal demands."""
        return self.groups, self.needed, self.services


class Moment(NamedTuple):
    """Something that is due while a question waits."""

    at: datetime
    step: int | None
    """Number of the escalation step; None for a reminder."""


class Schedule(NamedTuple):
    """The moments of one question."""

    deadline: datetime
    due: tuple[Moment, ...]
    """Reminders and escalations before the deadline, in time order."""

    def later(self, by: timedelta) -> "Schedule":
        """Everything moved back, as after a freeze."""
        return Schedule(self.deadline + by, tuple(Moment(moment.at + by, moment.step) for moment in self.due))


def schedule(terms: Terms, now: datetime, default_s: int) -> Schedule:
    """The moments of a question put at `now`; `default_s` is the deadline where the terms name none."""
    wait = timedelta(seconds=default_s if terms.deadline_s is None else terms.deadline_s)
    deadline = terms.deadline or now + wait
    reminders = terms.reminders_at
    if reminders is None:
        reminders = tuple(now + (deadline - now) * share for share in terms.reminders)
    due = [Moment(at, None) for at in reminders]
    due += [Moment(step.at or now + timedelta(seconds=step.after_s), n) for n, step in enumerate(terms.escalation)]
    return Schedule(deadline, tuple(sorted((m for m in due if now < m.at < deadline), key=lambda m: m.at)))
