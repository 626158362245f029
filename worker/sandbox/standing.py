"""One container from its creation to its end: create, attach, start, verify, wait for its one job, vanish.

Runs on the sandbox worker. Whoever makes a `Standing` must call `end`, whatever `start` does.
"""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Callable
from typing import Final

from worker.sandbox.channel import READY, Channel
from worker.sandbox.docker_api import DockerApi
from worker.sandbox.engine import Engine, NotFound, SandboxUnavailable
from worker.sandbox.profile import Box

START_TIMEOUT_S: Final = 30.0
# How often a box with a job is checked to be alive, and how long a dead one's last frames may take to arrive.
WATCH_S: Final = 2.0
LAST_FRAMES_S: Final = 0.5


class Standing:
    """A box of our own; after `start` it is verified and waits for a job."""

    def __init__(self, engine: Engine, box: Box) -> None:
        self.box = box
        # The name is ours, so that a container can be removed whose create request was cancelled or never answered.
        self.name = f"gatehouse-call-{secrets.token_hex(12)}"
        self.born = time.monotonic()
        self._engine = engine
        self._requests: list[asyncio.Future[object]] = []
        self._channel: Channel | None = None
        self._frames: AsyncIterator[tuple[bytes, bytes]] | None = None

    @property
    def channel(self) -> Channel:
        """Its connection. Only after `start`."""
        if self._channel is None:
            raise RuntimeError("the box was not started")
        return self._channel

    @property
    def frames(self) -> AsyncIterator[tuple[bytes, bytes]]:
        """What it says from now on. Only after `start`."""
        if self._frames is None:
            raise RuntimeError("the box was not started")
        return self._frames

    @property
    def alive(self) -> bool:
        """Whether nothing is known of its end: false as soon as the engine dropped its connection."""
        return self._channel is not None and not self._channel.ended

    async def start(self) -> None:
        """Bring it up to the point where it waits for a job.

        Raises NotFound (image or volume), SandboxUnavailable: no engine, not the box that was asked, not up in time.
        """
        body = self.box.body()
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                await self._ask(lambda api: api.create_container_from_config(body, self.name))
                self._channel = await Channel.open(self._engine, self.name)
                self._frames = self._channel.frames()
                await self._ask(lambda api: api.start(self.name))
                await self._verify()
                kind, _ = await anext(self._frames, (b"", b""))
        except TimeoutError as error:
            raise SandboxUnavailable(f"no box within {START_TIMEOUT_S:.0f} s", "the engine is overloaded") from error
        if kind != READY:
            raise SandboxUnavailable("the box did not come up", self._channel.complaint or "see the engine's log")
        self.born = time.monotonic()

    async def watch(self) -> None:
        """Drop the connection once the box is dead: the engine does not while input for it is still on its way.

        Runs until then or until cancelled; to be run beside the conversation with the box.
        """
        while True:
            await asyncio.sleep(WATCH_S)
            try:
                state = (await self._engine.call(lambda api: api.inspect_container(self.name))).get("State")
                if isinstance(state, dict) and state.get("Running"):
                    continue
            except NotFound:
                pass
            except SandboxUnavailable:
                continue  # the caller's deadline decides
            await asyncio.sleep(LAST_FRAMES_S)
            self.channel.close()
            return

    async def end(self) -> bool:
        """Drop the connection and see the container gone; False when the engine would not let it go."""
        # First, since an attach stream that nobody reads blocks every other request for its container.
        if self._channel is not None:
            self._channel.close()
        await asyncio.gather(*self._requests, return_exceptions=True)
        return await self._engine.dispose(self.name)

    async def _ask(self, work: Callable[[DockerApi], object]) -> None:
        # A request that was sent goes on when its caller is cancelled: the removal has to wait for its end.
        self._requests.append(asyncio.ensure_future(self._engine.call(work)))
        await asyncio.shield(self._requests[-1])

    async def _verify(self) -> None:
        inspected = await self._engine.call(lambda api: api.inspect_container(self.name))
        if wrong := self.box.mismatches(inspected):
            raise SandboxUnavailable(
                f"the engine did not give the box that was asked: {'; '.join(wrong)}", "report this"
            )
