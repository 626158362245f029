"""What a held run tells the store. Durable names and fields, as in `workflows.contracts`."""

from datetime import datetime

from policies.switches import Hold
from tools.contract import Wire
from workflows.contracts import ApprovalState, Phase, RunRef


class FrozenQuestion(Wire):
    """An open question of a run that is held or let go: its state and, as its clock stood still, its deadline."""

    approval_id: str
    state: ApprovalState
    deadline: datetime


class RunHeld(Wire):
    """`run.hold`: the run has heard a switch. `held`: whether any switch holds it now."""

    run: RunRef
    hold: Hold
    held: bool
    phase: Phase
    questions: tuple[FrozenQuestion, ...] = ()
