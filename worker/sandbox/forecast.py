"""Which kind of box a run will need next, from what the runs before needed: agents walk similar paths.

A wrong guess costs a container start in the background; the call then starts its own.
"""

from dataclasses import replace

from worker.sandbox.profile import Box, WorkspaceMount

_REMEMBERED = 1000


class Forecast:
    """Remembers, for every kind of box, which kind was needed after it. Kinds are compared without their workspace."""

    def __init__(self) -> None:
        self._after: dict[Box | None, Box] = {}
        self._last: dict[str, Box] = {}

    def used(self, run_id: str, kind: Box) -> Box | None:
        """Note a call of the run; gives the kind that its next call will probably need, None when that is unknown."""
        plain = _plain(kind)
        before = self._last.pop(run_id, None)
        self._after[before] = plain
        self._last[run_id] = plain
        while len(self._last) > _REMEMBERED:
            del self._last[next(iter(self._last))]
        if len(self._after) > _REMEMBERED:
            self._after.clear()
        return self._in(self._after.get(plain, plain), kind.workspace)

    def first(self, workspace: WorkspaceMount) -> Box | None:
        """What the first call of a run with this workspace will probably need; None before there ever was one."""
        first = self._after.get(None)
        return None if first is None else self._in(first, workspace)

    def ended(self, run_id: str) -> None:
        """Forget where this run was."""
        self._last.pop(run_id, None)

    @staticmethod
    def _in(kind: Box, workspace: WorkspaceMount | None) -> Box | None:
        if kind.workspace is None:
            return kind
        # A call without a workspace does not tell where its run has it.
        return workspace and replace(kind, workspace=replace(workspace, writable=kind.workspace.writable))


def _plain(kind: Box) -> Box:
    if kind.workspace is None:
        return kind
    return replace(kind, workspace=replace(kind.workspace, volume="", labels={}))
