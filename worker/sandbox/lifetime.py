"""How long what a process put into the engine may stay there: on its labels, for whoever sweeps."""

import time
from collections.abc import Mapping
from typing import Final

from worker.sandbox.process import is_dead, is_here, this_process

LABEL_DEADLINE: Final = "gatehouse.deadline"
"""Unix seconds, for sweepers on other machines."""
LABEL_DEADLINE_MONOTONIC: Final = "gatehouse.deadline-monotonic"
"""The same by the clock of this boot of this machine, which nobody sets."""
LABEL_PROCESS: Final = "gatehouse.process"


def lives(lives_s: float) -> dict[str, str]:
    """The labels of something this process makes, which is a leftover after so many seconds, or once it is dead."""
    return {
        LABEL_DEADLINE: str(int(time.time() + lives_s)),
        LABEL_DEADLINE_MONOTONIC: str(int(time.monotonic() + lives_s)),
        LABEL_PROCESS: this_process(),
    }


def is_orphan(labels: Mapping[str, str]) -> bool:
    """Whether what carries these labels is past its time, or surely without the process that made it."""
    process = labels.get(LABEL_PROCESS, "")
    # A clock that is set ahead must not end what another process of this machine is at work with.
    told, now = labels.get(LABEL_DEADLINE, ""), time.time()
    if is_here(process) and LABEL_DEADLINE_MONOTONIC in labels:
        told, now = labels[LABEL_DEADLINE_MONOTONIC], time.monotonic()
    return (told.isdigit() and int(told) < now) or is_dead(process)
