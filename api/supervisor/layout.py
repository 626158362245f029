"""Which programs make up a system on one machine, with what environment each, and where they listen."""

import os
import sys
import sysconfig
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from api.supervisor.addresses import Addresses, choose
from api.supervisor.children import Child, answers, listens
from worker.settings import Settings
from workflows import contracts as names

SEARCH_ATTRIBUTES = {
    names.SA_AUTOMATION: "Keyword",
    names.SA_TENANT: "Keyword",
    names.SA_PHASE: "Keyword",
    names.SA_RUNG: "Keyword",
    names.SA_APPROVERS: "KeywordList",
    names.SA_DEADLINE: "Datetime",
}
PROVIDER_VARIABLES = ("OPENAI_", "ANTHROPIC_")
# What only the sandbox worker needs: the engine, and the secrets of tools.
SANDBOX_VARIABLES = ("DOCKER_", "GATEHOUSE_DOCKER_", "GATEHOUSE_SECRET", "GATEHOUSE_VAULT_", "VAULT_")
# What only the keeper needs: the secrets of channels.
NOTIFY_VARIABLES = ("GATEHOUSE_NOTIFY_",)
# What only the API needs: with it anybody could press buttons as anybody.
SLACK_VARIABLES = ("GATEHOUSE_SLACK_",)
# Of the artifact store; Temporal's server and the practice model have no business there.
STORE_VARIABLES = ("GATEHOUSE_ARTIFACTS", "AWS_")
PRACTICE_PORT = 8095
QUEUES = ("runs", "models", "sandbox")


@dataclass(frozen=True)
class Layout:
    """The programs of one system and where they listen. `temporal` is None where the user runs their own."""

    addresses: Addresses
    temporal: Child | None
    practice_model: Child | None
    others: list[Child]

    @property
    def children(self) -> list[Child]:
        """All of them, in starting order."""
        return [c for c in (self.temporal, self.practice_model) if c] + self.others


def plan(
    settings: Settings, environment: Mapping[str, str], *, practice_model: bool, mode: str = "foreground"
) -> Layout:
    """Choose ports and commands. Raises PortTakenError. Nothing is started."""
    taken: set[int] = set()
    host = settings.api_host
    explicit = settings.model_fields_set
    api_port = choose(host, settings.api_port, taken, fixed="GATEHOUSE_API_PORT" if "api_port" in explicit else "")
    reach = "127.0.0.1" if host in ("0.0.0.0", "::") else host  # noqa: S104  (compared, not bound)
    own_temporal = "temporal_address" not in explicit
    temporal, ui = settings.temporal_address, settings.temporal_ui
    if own_temporal:
        temporal = f"127.0.0.1:{choose('127.0.0.1', _port(settings.temporal_address, 7233), taken)}"
        ui = f"http://127.0.0.1:{choose('127.0.0.1', _port(settings.temporal_ui, 8233), taken)}"
    practice_url = settings.practice_model_url
    practice_port = 0
    if practice_model:
        practice_port = choose("127.0.0.1", PRACTICE_PORT, taken)
        practice_url = f"http://127.0.0.1:{practice_port}/v1"
    addresses = Addresses(
        api=f"http://{reach}:{api_port}", temporal=temporal, temporal_ui=ui, practice_model=practice_url,
        providers=",".join(providers(settings)), mode=mode,
    )  # fmt: skip
    common = {
        **environment,
        "GATEHOUSE_DATA": str(settings.data.resolve()),
        "GATEHOUSE_TEMPORAL_ADDRESS": temporal,
        "GATEHOUSE_TEMPORAL_UI": ui,
        "GATEHOUSE_API_HOST": host,
        "GATEHOUSE_API_PORT": str(api_port),
        "PYTHONUNBUFFERED": "1",
        **({"GATEHOUSE_PRACTICE_MODEL_URL": practice_url} if practice_url else {}),
    }
    logs = settings.data.resolve() / "logs"
    return Layout(
        addresses=addresses,
        temporal=_temporal(settings, addresses, logs, common) if own_temporal else None,
        practice_model=_practice_model(practice_port, logs, common) if practice_model else None,
        others=[
            *(_worker(queue, logs, common) for queue in QUEUES),
            _keeper(logs, common),
            _api(reach, api_port, logs, common),
        ],
    )


def providers(settings: Settings) -> list[str]:
    """Model providers that have a key."""
    keys = {"openai": settings.openai_api_key, "anthropic": settings.anthropic_api_key}
    return [name for name, key in keys.items() if key]


def _port(address: str, default: int) -> int:
    try:
        return urlsplit(address if "//" in address else f"//{address}").port or default
    except ValueError:
        return default


def without(environment: Mapping[str, str], *prefixes: str) -> dict[str, str]:
    """The environment without variables of those prefixes: a process holds only the credentials its work needs."""
    return {name: value for name, value in environment.items() if not name.startswith(prefixes)}


def temporal_program() -> Path:
    """The Temporal binary that came with the Python packages."""
    return Path(sysconfig.get_path("scripts")) / "temporal"


def _temporal(settings: Settings, addresses: Addresses, logs: Path, env: Mapping[str, str]) -> Child:
    port, ui_port = _port(addresses.temporal, 7233), _port(addresses.temporal_ui or "", 8233)
    argv = [str(temporal_program()), "server", "start-dev", "--ip", "127.0.0.1", "--port", str(port)]
    argv += ["--ui-port", str(ui_port), "--db-filename", str(settings.data.resolve() / "temporal.db")]
    argv += ["--namespace", settings.temporal_namespace, "--log-level", "warn", "--log-format", "json"]
    # No codec endpoint: this UI has no log-in, so it could pass us no key and would show an error on every page.
    argv += ["--ui-disable-news-fetch"]
    for name, kind in SEARCH_ATTRIBUTES.items():
        argv += ["--search-attribute", f"{name}={kind}"]

    async def serves() -> bool:
        return await listens("127.0.0.1", port)

    # The server asks who runs it, and ends where neither a password file nor the environment can say.
    known = {"USER": str(os.getuid()), "HOME": str(settings.data.resolve()), **env}
    known = without(
        known, *PROVIDER_VARIABLES, *SANDBOX_VARIABLES, *STORE_VARIABLES, *NOTIFY_VARIABLES, *SLACK_VARIABLES
    )
    return Child("temporal", argv, known, logs / "temporal.log", serves)


def _practice_model(port: int, logs: Path, env: Mapping[str, str]) -> Child:
    async def serves() -> bool:
        return await listens("127.0.0.1", port)

    argv = [sys.executable, "-m", "worker.practice_model", "--port", str(port)]
    env = without(env, *PROVIDER_VARIABLES, *SANDBOX_VARIABLES, *STORE_VARIABLES, *NOTIFY_VARIABLES, *SLACK_VARIABLES)
    return Child("practice-model", argv, env, logs / "practice-model.log", serves)


def _worker(queue: str, logs: Path, env: Mapping[str, str]) -> Child:
    prefixes = (*NOTIFY_VARIABLES, *SLACK_VARIABLES)
    if queue != "models":
        prefixes += PROVIDER_VARIABLES
    if queue != "sandbox":
        prefixes += SANDBOX_VARIABLES
    argv = [sys.executable, "-m", "worker.main", "--queue", queue]
    child = Child(f"worker-{queue}", argv, without(env, *prefixes), logs / f"worker-{queue}.log")

    async def serves() -> bool:
        # A worker listens nowhere; it says so when it has begun to ask for work.
        return child.running and child.logged(b'"polling"')

    child.serves = serves
    return child


def _keeper(logs: Path, env: Mapping[str, str]) -> Child:
    argv = [sys.executable, "-m", "worker.keeper"]
    child = Child(
        "keeper", argv, without(env, *PROVIDER_VARIABLES, *SANDBOX_VARIABLES, *SLACK_VARIABLES), logs / "keeper.log"
    )

    async def serves() -> bool:
        return child.running and child.logged(b'"keeping"')

    child.serves = serves
    return child


def _api(host: str, port: int, logs: Path, env: Mapping[str, str]) -> Child:
    async def serves() -> bool:
        return (await answers(host, port, "/api/v1/ready"))[0] == 200

    argv = [sys.executable, "-m", "api.app"]
    return Child(
        "api", argv, without(env, *PROVIDER_VARIABLES, *SANDBOX_VARIABLES, *NOTIFY_VARIABLES), logs / "api.log", serves
    )


def process_environment() -> dict[str, str]:
    """This process's environment, to hand to children (the supervisor is part of a composition root)."""
    return dict(os.environ)
