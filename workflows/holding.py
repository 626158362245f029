"""Which switches hold a run. Workflow code waits here before anything new begins: a turn, a gate, a question.

No command is scheduled by looking or waiting, so a history without a switch replays unchanged.
"""

from collections.abc import Iterable
from datetime import timedelta

from temporalio import workflow

from policies.switches import Hold

HELD_SOON = timedelta(seconds=60)
"""How long a call that a switch refused waits for the switch to hold its run, before the agent is told no."""


class Holds:
    """The last word of each switch the run heard of."""

    def __init__(self, carried: Iterable[Hold] = ()) -> None:
        self._known = {hold.switch_id: hold for hold in carried}

    @property
    def held(self) -> bool:
        """Whether any switch holds the run now."""
        return any(hold.held for hold in self._known.values())

    @property
    def all(self) -> tuple[Hold, ...]:
        """What the next part of the run has to remember."""
        return tuple(self._known.values())

    def take(self, hold: Hold) -> bool:
        """Take a switch's word; False when a later one was heard already. Messages may be repeated and overtaken."""
        before = self._known.get(hold.switch_id)
        if before is not None and before.revision > hold.revision:
            return False
        self._known[hold.switch_id] = hold
        return True

    async def over(self) -> None:
        """Return once no switch holds the run."""
        if self.held:
            await workflow.wait_condition(lambda: not self.held)

    async def begun(self) -> bool:
        """Whether a switch holds the run, now or soon: the gate may know of it before the run does."""
        if not self.held:
            try:
                await workflow.wait_condition(
                    lambda: self.held, timeout=HELD_SOON, timeout_summary="a switch refused the call: will it hold us?"
                )
            except TimeoutError:
                return False
        return True
