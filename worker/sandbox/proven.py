"""A sandbox that runs nothing before the engine has been proved to keep a box shut.

The proof is made once per process, at the first call or earlier; while it fails, every call fails with its reason.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

from worker.sandbox.container import Job, Ran, Sandbox
from worker.sandbox.engine import Engine, EngineAway, SandboxUnavailable
from worker.sandbox.facts import Runtime
from worker.sandbox.pool import Meter, PoolSettings
from worker.sandbox.selftest import selftest

_log: Final = logging.getLogger(__name__)


class ProvenSandbox(Sandbox):
    """As Sandbox, behind the self-test."""

    def __init__(
        self, engine: Engine, *, data: Path, owner: str, max_boxes: int = 16, pool: PoolSettings | None = None,
        meter: Meter | None = None, wanted: Runtime = "auto",
    ) -> None:  # fmt: skip
        """`wanted`: which of the engine's runtimes may run boxes; `runtime` then says which one was proved."""
        super().__init__(engine, data=data, owner=owner, max_boxes=max_boxes, pool=pool, meter=meter)
        # The self-test itself needs a box, so it gets a sandbox that does not wait for it.
        self._unproven = Sandbox(engine, data=data, owner=owner, max_boxes=1)
        self._wanted: Runtime = wanted
        self._proven = False
        self._one_at_a_time = asyncio.Lock()

    async def prove(self) -> None:
        """Raises SandboxUnavailable: no engine, no image, or an engine that does not enforce what it accepts."""
        async with self._one_at_a_time:
            if not self._proven:
                self.runtime = await choose(self._unproven, self._wanted)
                self._proven = True

    async def run(self, job: Job, *, commit: Callable[[str], Awaitable[None]] | None = None) -> Ran:
        """As Sandbox.run, and SandboxUnavailable while the proof fails."""
        await self.engine.patiently(self.prove)
        return await super().run(job, commit=commit)

    async def close(self) -> None:
        """As Sandbox.close."""
        await self._unproven.close()
        await super().close()


async def choose(sandbox: Sandbox, wanted: Runtime, *, prove: bool = True) -> str:
    """The strongest runtime of those wanted under which a box is shut; `sandbox` runs the self-tests, then keeps it.

    Without `prove` a choice of one is taken as it is. Raises SandboxUnavailable when there is none.
    """
    candidates = (await sandbox.facts()).candidates(wanted)
    if not candidates:
        problem = f"the engine does not offer the runtime {wanted}, which GATEHOUSE_SANDBOX_RUNTIME asks for"
        raise SandboxUnavailable(problem, "add it to the engine's daemon.json, or set it to auto")
    sandbox.runtime = candidates[0]
    if len(candidates) == 1 and not prove:
        return sandbox.runtime
    for last, runtime in enumerate(candidates, start=1):
        sandbox.runtime = runtime
        try:
            await selftest(sandbox)
        except SandboxUnavailable as error:
            if last == len(candidates) or isinstance(error, EngineAway):
                raise
            _log.warning("boxes do without the runtime %s, which the engine offers: %s", runtime, error)
        else:
            return runtime
    raise AssertionError("unreachable")
