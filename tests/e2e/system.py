"""A whole Gatehouse on free ports in its own data folder, each part a process that a test may kill and start again.

`System.start_all()` brings up Temporal (file-backed), the practice model, three workers, the keeper and the API, as
`gatehouse up` does but without the supervisor: here the test decides when something lives again.
"""

import asyncio
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import httpx

from deploy import debian
from policies.decision import Principal
from tests.fixtures.temporal import free_port
from tests.fixtures.volumes import in_workspace
from worker.settings import Settings
from worker.store.audit import AuditLog
from worker.store.database import Database
from worker.store.keys import ApiKeys

ROOT = Path(__file__).resolve().parents[2]
PARTS = ("temporal", "practice", "runs", "models", "sandbox", "keeper", "api")
CLOCK = "clock"
FINAL = ("succeeded", "failed", "cancelled")

Json = dict[str, Any]


@dataclass
class System:
    """Processes of one installation. Methods named after people's actions go through HTTP."""

    data: Path
    home: Path | None = None
    database_url: str | None = None
    """SQLite under `data` when left out."""
    metrics: int | None = None
    """First of four ports where the workers and the keeper serve their numbers."""
    ports: dict[str, int] = field(
        default_factory=lambda: {name: free_port() for name in ("temporal", "api", "practice")}
    )
    clock: bool = False
    """Whether a test may `step_clock`. Temporal, which may well run on another machine, keeps the true time."""
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict[str, subprocess.Popen[bytes]])
    keys: dict[str, str] = field(default_factory=dict[str, str])

    @property
    def environment(self) -> dict[str, str]:
        """What every part is started with."""
        ours = {
            "GATEHOUSE_DATA": str(self.data),
            "GATEHOUSE_TEMPORAL_ADDRESS": f"127.0.0.1:{self.ports['temporal']}",
            "GATEHOUSE_API_PORT": str(self.ports["api"]),
            "GATEHOUSE_PRACTICE_MODEL_URL": f"http://127.0.0.1:{self.ports['practice']}/v1",
            "PYTHONPATH": str(ROOT),
        }
        if self.home is not None:
            ours["GATEHOUSE_HOME"] = str(self.home)
        if self.database_url is not None:
            ours["GATEHOUSE_DATABASE_URL"] = self.database_url
        if self.metrics is not None:
            ours["GATEHOUSE_METRICS_ADDRESS"] = f"127.0.0.1:{self.metrics}"
        if self.clock:
            ours |= {
                "LD_PRELOAD": str(debian.clock()), "FAKETIME_TIMESTAMP_FILE": str(self.data / CLOCK),
                "FAKETIME_NO_CACHE": "1", "FAKETIME_DONT_FAKE_MONOTONIC": "1",
                "NO_FAKE_STAT": "1",
            }  # fmt: skip
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("GATEHOUSE_", "OPENAI_", "ANTHROPIC_"))}
        return kept | ours

    @property
    def settings(self) -> Settings:
        """The same settings, for looking into the store from the test."""
        return Settings(
            data=self.data, home=self.home, temporal_address=f"127.0.0.1:{self.ports['temporal']}",
            database_url=self.database_url,
        )  # fmt: skip

    def command(self, part: str, module: str = "worker.main") -> list[str]:
        """Command line of one part; `module` is what a worker runs."""
        if part == "temporal":
            return [
                str(Path(sys.executable).with_name("temporal")), "server", "start-dev", "--headless",
                "--log-level", "error", "--ip", "127.0.0.1", "--port", str(self.ports["temporal"]),
                "--db-filename", str(self.data / "temporal.db"),
            ]  # fmt: skip
        if part == "practice":
            return [sys.executable, "-m", "worker.practice_model", "--port", str(self.ports["practice"])]
        if part.startswith("api"):  # there may be two: api-2, sandbox-2
            return [sys.executable, "-m", "api.app"]
        if part == "keeper":
            return [sys.executable, "-m", "worker.keeper"]
        return [sys.executable, "-m", module, "--queue", part.removesuffix("-2")]

    def start(self, part: str, *, module: str = "worker.main", **extra: str) -> None:
        """Start one part, with extra environment; its output goes to `<data>/logs/<part>.log`."""
        logs = self.data / "logs"
        logs.mkdir(parents=True, exist_ok=True)
        with (logs / f"{part}.log").open("ab") as log:
            self.processes[part] = subprocess.Popen(
                self.command(part, module),
                cwd=ROOT,
                env=self.environment | extra,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def step_clock(self, seconds: int) -> None:
        """Set the clock of all parts so far from the true time, at once and for good."""
        new = self.data / f"{CLOCK}.new"
        new.write_text(f"{seconds:+d}s\n")
        new.replace(self.data / CLOCK)

    def kill(self, part: str) -> None:
        """kill -9, and wait until the kernel has taken the process away."""
        process = self.processes.pop(part)
        process.send_signal(signal.SIGKILL)
        process.wait(60)

    async def start_all(self, *, models: bool = True) -> None:
        """Start everything (but for what only models need, where there are none), make one key per person, and wait
        until the API reports ready."""
        self.data.mkdir(parents=True, exist_ok=True)
        self.step_clock(0)
        self.start("temporal")
        if models:
            self.start("practice")
        self._ensure_image()
        database = Database(self.settings.sql_url)
        await database.migrate()
        keys = ApiKeys(database, AuditLog(database), self.settings.keys)
        for person, role in (("olga", "operator"), ("ruth", "approver"), ("adam", "admin"), ("vera", "viewer")):
            _, self.keys[person] = await keys.create(person, Principal(id=person, roles=(role,)))
        # One principal holding both rights: only separation of duties can stop this one.
        _, self.keys["both"] = await keys.create("both", Principal(id="both", roles=("operator", "approver")))
        await database.close()
        for part in ("runs", *(["models"] if models else []), "sandbox", "keeper", "api"):
            self.start(part)
        await self.ready()

    def _ensure_image(self) -> None:
        command = [sys.executable, "-m", "worker.sandbox.images", "ensure", "--data", str(self.data)]
        subprocess.run(command, cwd=ROOT, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)

    async def ready(self, timeout_s: float = 180) -> None:
        """Wait until `/ready` is green; fail with the logs' tails otherwise."""
        deadline = time.monotonic() + timeout_s
        async with self.client("adam") as client:
            while time.monotonic() < deadline:
                try:
                    if (await client.get("/ready")).status_code == 200:
                        return
                except httpx.TransportError:
                    pass
                await asyncio.sleep(0.2)
        raise AssertionError(f"not ready after {timeout_s} s\n{self.tails()}")

    def tails(self, lines: int = 15) -> str:
        """The end of every part's log."""
        parts = [
            f"--- {path.name}\n" + "\n".join(path.read_text(errors="replace").splitlines()[-lines:])
            for path in sorted((self.data / "logs").glob("*.log"))
        ]
        return "\n".join(parts)

    def stop_all(self) -> None:
        """kill -9 of everything that is left."""
        for part in list(self.processes):
            self.kill(part)

    # ------------------------------------------------------------ people

    def client(self, person: str) -> httpx.AsyncClient:
        """HTTP client with that person's key."""
        return httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{self.ports['api']}/api/v1",
            headers={"Authorization": f"Bearer {self.keys[person]}"},
            timeout=60,
        )

    async def request(self, person: str, method: str, path: str, timeout_s: float = 120, **kw: Any) -> httpx.Response:
        """One request, repeated while the API is down or answers 503: what a patient client does."""
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                async with self.client(person) as client:
                    response = await client.request(method, path, **kw)
                if response.status_code != 503 or time.monotonic() > deadline:
                    return response
            except httpx.TransportError:
                if time.monotonic() > deadline:
                    raise
            await asyncio.sleep(0.3)

    async def upload(self, name: str, content: bytes, person: str = "olga") -> str:
        """Upload one file; its id."""
        response = await self.request(person, "POST", "/files", params={"name": name}, content=content)
        assert response.status_code == 201, response.text
        return str(response.json()["id"])

    async def start_run(self, automation: str, key: str, person: str = "olga", **body: Any) -> str:
        """Start a run under an idempotency key; its id."""
        response = await self.request(
            person,
            "POST",
            "/runs",
            json={"automation": automation, "inputs": {}, **body},
            headers={"Idempotency-Key": key},
        )
        assert response.status_code == 202, response.text
        return str(response.json()["id"])

    async def run(self, run_id: str) -> Json:
        """The run as the API shows it."""
        response = await self.request("olga", "GET", f"/runs/{run_id}")
        assert response.status_code == 200, response.text
        return cast(Json, response.json())

    async def finished(self, run_id: str, timeout_s: float = 240) -> Json:
        """Wait for a final phase."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            run = await self.run(run_id)
            if run["phase"] in FINAL:
                return run
            await asyncio.sleep(0.3)
        raise AssertionError(f"run {run_id} not finished after {timeout_s} s: {await self.run(run_id)}\n{self.tails()}")

    async def pending(self, run_id: str, timeout_s: float = 240) -> Json:
        """Wait for a pending question of the run."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            response = await self.request("ruth", "GET", "/approvals", params={"run": run_id, "state": "pending"})
            assert response.status_code == 200, response.text
            if items := response.json()["items"]:
                return cast(Json, items[0])
            await asyncio.sleep(0.2)
        raise AssertionError(f"run {run_id} asked nothing in {timeout_s} s: {await self.run(run_id)}\n{self.tails()}")

    async def answer(self, question: Json, verdict: str, person: str = "ruth", **body: Any) -> httpx.Response:
        """Approve or deny a question under the digest it was shown with."""
        return await self.request(
            person, "POST", f"/approvals/{question['id']}/{verdict}",
            json={"digest": question["digest"], "reason": "seen by a test", **body},
        )  # fmt: skip

    async def records(self, run_id: str) -> list[Json]:
        """Every audit record of the run, in order."""
        found: list[Json] = []
        while True:
            after = found[-1]["seq"] if found else 0
            response = await self.request("adam", "GET", "/audit", params={"run": run_id, "after": after, "limit": 200})
            assert response.status_code == 200, response.text
            items = response.json()["items"]
            found += items
            if len(items) < 200:
                return found

    async def until_record(self, run_id: str, kind: str, nth: int = 1, timeout_s: float = 240) -> Json:
        """Wait until the run's nth record of a type exists."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            same = [r for r in await self.records(run_id) if r["type"] == kind]
            if len(same) >= nth:
                return same[nth - 1]
            await asyncio.sleep(0.05)
        raise AssertionError(f"no {nth}. {kind} in {timeout_s} s\n{self.tails()}")

    # ------------------------------------------------------------ what the host sees

    def leftovers(self, run_id: str) -> list[str]:
        """Containers and volumes of the run that still exist."""
        label = f"label=gatehouse.run={run_id}"
        return docker("ps", "-aq", "--filter", label) + docker("volume", "ls", "-q", "--filter", label)

    async def boxed(self, run_id: str, timeout_s: float = 240) -> str:
        """Wait until a call of the run is in its container; the container's id."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            labels = ("--filter", f"label=gatehouse.run={run_id}", "--filter", "label=gatehouse.kind=call")
            if running := docker("ps", "-q", *labels):
                return running[0]
            await asyncio.sleep(0.05)
        raise AssertionError(f"no container of {run_id} in {timeout_s} s\n{self.tails()}")

    async def marked(self, run_id: str, mark: str, timeout_s: float = 240) -> None:
        """Wait until a program of the run that still runs has left its mark in the workspace."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            await self.boxed(run_id)
            if f"{mark}\n".encode() in (await asyncio.to_thread(in_workspace, run_id, "out/marks.log") or b""):
                return
            await asyncio.sleep(0.1)
        raise AssertionError(f"no {mark} of {run_id} in {timeout_s} s\n{self.tails()}")


def docker(*arguments: str) -> list[str]:
    """Lines of a Docker command's output."""
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=True, timeout=120)
    return done.stdout.split()
