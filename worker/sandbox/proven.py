"""A sandbox that runs nothing before the engine has been proved to keep a box shut.

The proof is made once per process, at the first call or earlier; while it fails, every call fails with its reason.
"""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

from worker.sandbox.container import Job, Ran, Sandbox
from worker.sandbox.engine import Engine
from worker.sandbox.pool import Meter, PoolSettings
from worker.sandbox.selftest import selftest


class ProvenSandbox(Sandbox):
    """As Sandbox, behind the self-test."""

    def __init__(
        self, engine: Engine, *, data: Path, owner: str, max_boxes: int = 16, pool: PoolSettings | None = None,
        meter: Meter | None = None,
    ) -> None:  # fmt: skip
        super().__init__(engine, data=data, owner=owner, max_boxes=max_boxes, pool=pool, meter=meter)
        # The self-test itself needs a box, so it gets a sandbox that does not wait for it.
        self._unproven = Sandbox(engine, data=data, owner=owner, max_boxes=1)
        self._proven = False
        self._one_at_a_time = asyncio.Lock()

    async def prove(self) -> None:
        """Raises SandboxUnavailable: no engine, no image, or an engine that does not enforce what it accepts."""
        async with self._one_at_a_time:
            if not self._proven:
                await selftest(self._unproven)
                self._proven = True

    async def run(self, job: Job, *, commit: Callable[[str], Awaitable[None]] | None = None) -> Ran:
        """As Sandbox.run, and SandboxUnavailable while the proof fails."""
        await self.prove()
        return await super().run(job, commit=commit)

    async def close(self) -> None:
        """As Sandbox.close."""
        await self._unproven.close()
        await super().close()
