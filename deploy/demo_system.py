"""The demonstration's system: the one that runs on this data folder if it will do, else one made to."""

import asyncio
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

from api.supervisor import addresses
from api.supervisor.children import answers, listens
from api.supervisor.control import run_detached, set_practice_model, shut_down
from api.supervisor.layout import PROVIDER_VARIABLES, process_environment, providers, without
from api.supervisor.state import StateFiles
from policies.decision import Principal
from worker.settings import Settings
from worker.store.audit import AuditLog
from worker.store.database import Database
from worker.store.keys import ApiKeys

OPERATOR = Principal(id="demo-operator", roles=("operator",))
REVIEWER = Principal(id="demo-reviewer", roles=("approver",))
_PRACTICE_S = 20.0


class SystemInUseError(Exception):
    """A system runs here that the demonstration cannot use and must not stop."""


@dataclass(frozen=True)
class Keys:
    """API keys of the two people of the demonstration."""

    operator: str
    reviewer: str


class DemoSystem:
    """Brings the system up, takes the model away and gives it back."""

    def __init__(self, settings: Settings, say: Callable[[str], None]) -> None:
        self._settings = settings
        self._say = say
        self._data = settings.data.resolve()
        self._providers = ",".join(providers(settings))

    @property
    def model_note(self) -> str:
        """Which model the first run works with, honestly."""
        if self._providers:
            return f"the agent works with a real provider ({self._providers})"
        return "no provider key is set, so the agent works with the practice model (fixed rules, no intelligence)"

    def bring_up(self) -> dict[str, str]:
        """Addresses of a ready system. Raises SystemInUseError, StartError."""
        if StateFiles(self._data).held:
            found = self._wait_until_known()
            if self._suits(found):
                self._say(f"already running: {found['api']}")
                return self._with_practice_model(found)
            if found.get("mode") != "background":
                raise SystemInUseError(
                    "a system is running on this data folder in some terminal, without the practice model.\n"
                    "  what to do: stop it there (Ctrl-C), or run: GATEHOUSE_DATA=/tmp/gatehouse-demo make demo"
                )
            self._say("the running system has no practice model or other keys; starting it anew (runs go on)")
            shut_down(self._settings, self._say)
        self._start(process_environment())
        return addresses.read(self._data)

    def _wait_until_known(self) -> dict[str, str]:
        """Another start may be under way."""
        until = time.monotonic() + 60
        while not (found := addresses.read(self._data)) and time.monotonic() < until:
            time.sleep(0.2)
        return found

    def _suits(self, found: dict[str, str]) -> bool:
        if not found.get("api") or found.get("providers", "") != self._providers:
            return False
        parts = urlsplit(found["api"])
        ready = asyncio.run(answers(parts.hostname or "", parts.port or 80, "/api/v1/ready"))[0] == 200
        return ready and bool(self._providers or found.get("practice_model"))

    def _start(self, environment: dict[str, str]) -> None:
        run_detached(self._settings, self._say, practice_model=True, environment=environment)

    def keys(self) -> Keys:
        """Keys of operator and reviewer, kept under the keys folder and made again when they no longer work."""

        async def do() -> Keys:
            database = Database(self._settings.sql_url)
            try:
                known = ApiKeys(database, AuditLog(database), self._settings.keys)
                return Keys(await self._key(known, OPERATOR), await self._key(known, REVIEWER))
            finally:
                await database.close()

        return asyncio.run(do())

    async def _key(self, known: ApiKeys, principal: Principal) -> str:
        path = self._settings.keys / f"{principal.id}.key"
        if path.exists():
            kept = path.read_text().strip()
            found = await known.verify(kept)
            if found is not None and found.principal == principal:
                return kept
        _, plaintext = await known.create(principal.id, principal, datetime.now(UTC) + timedelta(days=30))
        _write_private(path, plaintext + "\n")
        self._say(f"made an API key for {principal.id} ({', '.join(principal.roles)}): {path}")
        return plaintext

    def take_models_away(self) -> dict[str, str]:
        """Stop the practice model; with real providers, start the system anew without their keys."""
        if self._providers:
            self._say("starting the system anew without the provider keys")
            shut_down(self._settings, self._say)
            self._start(without(process_environment(), *PROVIDER_VARIABLES))
        set_practice_model(self._settings, wanted=False)
        found = addresses.read(self._data)
        self._await_practice_model(found, there=False)
        self._say("the practice model is stopped")
        return found

    def give_models_back(self) -> dict[str, str]:
        """Undo `take_models_away`."""
        if self._providers:
            shut_down(self._settings, self._say)
            self._start(process_environment())
            return addresses.read(self._data)
        return self._with_practice_model(addresses.read(self._data))

    def _with_practice_model(self, found: dict[str, str]) -> dict[str, str]:
        """An interrupted demonstration may have left it stopped."""
        if not self._providers:
            set_practice_model(self._settings, wanted=True)
            self._await_practice_model(found, there=True)
        return found

    def _await_practice_model(self, found: dict[str, str], *, there: bool) -> None:
        parts = urlsplit(found.get("practice_model", ""))
        until = time.monotonic() + _PRACTICE_S
        while time.monotonic() < until:
            if asyncio.run(listens(parts.hostname or "127.0.0.1", parts.port or 0)) == there:
                return
            time.sleep(0.05)
        raise SystemInUseError(f"the practice model did not {'come back' if there else 'stop'} in {_PRACTICE_S:.0f} s")


def _write_private(path: Path, text: str) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "w") as sink:
        sink.write(text)
