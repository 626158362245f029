"""The supervisor: starts the parts in order, says when the system is ready, restarts what dies, stops cleanly."""

import asyncio
import signal
import time
from collections.abc import Callable, Coroutine

from api.supervisor.children import Child
from api.supervisor.layout import Layout
from api.supervisor.processes import stop
from api.supervisor.state import StateFiles
from worker.settings import Settings

START_S = 120.0
"""Longest a part may take until it serves."""
EARLY_DEATHS = 4
"""A part that dies this often before the system was ever ready will not come up by trying again."""
GRACE_S = 25.0
"""More than a worker takes to drain (worker.main.DRAIN)."""
_STEP_S = 0.1
_LOG_CHECK_S = 60.0

Say = Callable[[str], None]


class StartError(Exception):
    """The system did not become ready; the message names the part, its last words and its log."""


class Supervisor:
    """One running system. `run` returns when asked to stop (SIGINT, SIGTERM, SIGHUP) and everything has ended."""

    def __init__(self, settings: Settings, layout: Layout, state: StateFiles, say: Say) -> None:
        self._settings = settings
        self._layout = layout
        self._state = state
        self._say = say
        self._stopping = asyncio.Event()
        self._hurry = asyncio.Event()
        self._watchers: list[asyncio.Task[None]] = []
        self._ready = False
        self._practice_wanted = asyncio.Event()
        self._practice_wanted.set()

    async def run(self, on_ready: Callable[[], None]) -> None:
        """Start everything, call `on_ready` once it serves, and keep it so. Raises StartError."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, self._ask_to_stop)
        # The practice model can be taken away and given back without touching anything else (the demo does).
        loop.add_signal_handler(signal.SIGUSR1, self._set_practice, False)
        loop.add_signal_handler(signal.SIGUSR2, self._set_practice, True)
        try:
            if await self._until_stopped(self._bring_up()):
                on_ready()
                await self._stopping.wait()
        finally:
            await self._shut_down()

    def _ask_to_stop(self) -> None:
        if self._stopping.is_set():
            self._hurry.set()
        self._stopping.set()

    async def _until_stopped(self, work: Coroutine[None, None, None]) -> bool:
        """Do the work unless a stop is asked for first. True when it was done; its exception is raised."""
        task = asyncio.create_task(work)
        waiter = asyncio.create_task(self._stopping.wait())
        await asyncio.wait((task, waiter), return_when=asyncio.FIRST_COMPLETED)
        waiter.cancel()
        if task.done():
            task.result()
            return True
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return False

    async def _bring_up(self) -> None:
        started = time.monotonic()
        # All at once: each waits by itself for what it needs, and most of the time goes into loading Python code.
        for child in self._layout.children:
            await self._launch(child)
        await asyncio.gather(self._migrate(), *(self._wait_until_serving(c) for c in self._layout.children))
        self._ready = True
        self._say(f"ready after {time.monotonic() - started:.1f} s")

    async def _migrate(self) -> None:
        # Imported here, when the children are already starting: it takes a second.
        from worker.store.database import Database  # noqa: PLC0415

        database = Database(self._settings.sql_url)
        try:
            await database.migrate()
        except Exception as problem:
            raise StartError(f"the store cannot be used: {problem}") from problem
        finally:
            await database.close()
        self._say("store: schema up to date")

    async def _launch(self, child: Child) -> None:
        await child.start()
        self._record()
        if not child.deaths:
            self._watchers.append(asyncio.create_task(self._watch(child)))

    def _record(self) -> None:
        self._state.write({c.name: c.identity for c in self._layout.children if c.identity and c.running})

    async def _wait_until_serving(self, child: Child) -> None:
        if child.serves is None:
            self._say(f"{child.name}: started")
            return
        until = time.monotonic() + START_S
        while not await child.serves():
            if child.deaths >= EARLY_DEATHS:
                raise StartError(f"{child.name} keeps dying:\n{child.last_words()}\n  Its log: {child.log}")
            if time.monotonic() > until:
                raise StartError(f"{child.name} does not serve after {START_S:.0f} s:\n{child.last_words()}")
            await asyncio.sleep(_STEP_S)
        self._say(f"{child.name}: serving")

    async def _watch(self, child: Child) -> None:
        """Start the child again whenever it dies, after a growing pause, until the system stops."""
        while not self._stopping.is_set():
            process = child.process
            if process is None:
                return
            waiting = asyncio.ensure_future(process.wait())
            while not waiting.done():
                await asyncio.wait({waiting}, timeout=_LOG_CHECK_S)
                child.trim_log()
            if self._stopping.is_set():
                return
            if self._wanted(child):
                pause = child.pause_before_restart()
                self._say(f"{child.name}: died ({_how(process.returncode)}); starting it again in {pause:g} s")
                await asyncio.sleep(pause)
            else:
                await self._practice_wanted.wait()
            await child.start()
            self._record()
            if self._ready:
                self._say(f"{child.name}: started again")

    def _wanted(self, child: Child) -> bool:
        return child is not self._layout.practice_model or self._practice_wanted.is_set()

    def _set_practice(self, wanted: bool) -> None:
        child = self._layout.practice_model
        if child is None or self._practice_wanted.is_set() == wanted:
            return
        self._say(f"{child.name}: {'given back' if wanted else 'taken away'} on request")
        if wanted:
            self._practice_wanted.set()
            return
        self._practice_wanted.clear()
        if child.running and child.process:
            child.process.terminate()

    async def _shut_down(self) -> None:
        self._stopping.set()
        for watcher in self._watchers:
            watcher.cancel()
        await asyncio.gather(*self._watchers, return_exceptions=True)
        working = [c.process for c in self._layout.children if c.process and c is not self._layout.temporal]
        temporal = self._layout.temporal.process if self._layout.temporal else None
        await self._stop(working)
        # Last, so that the workers can hand back what they hold.
        await self._stop([temporal] if temporal else [])
        self._state.clear()

    async def _stop(self, processes: list[asyncio.subprocess.Process]) -> None:
        stopping = asyncio.ensure_future(stop(processes, GRACE_S))
        hurry = asyncio.ensure_future(self._hurry.wait())
        await asyncio.wait({stopping, hurry}, return_when=asyncio.FIRST_COMPLETED)
        hurry.cancel()
        if not stopping.done():  # a second Ctrl-C
            for process in processes:
                if process.returncode is None:
                    process.kill()
        await stopping


def _how(code: int | None) -> str:
    if code is not None and code < 0:
        return f"signal {signal.Signals(-code).name}"
    return f"exit status {code}"
