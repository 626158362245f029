"""Docker engine and image, Temporal, and what runs."""

import asyncio
import json
import subprocess
from urllib.parse import urlsplit

from api.doctor.finding import Finding, fail, ok, warn
from api.supervisor import addresses
from api.supervisor.children import answers, listens
from api.supervisor.layout import temporal_program
from api.supervisor.state import StateFiles
from worker.sandbox import images
from worker.sandbox.container import Sandbox
from worker.sandbox.engine import Engine, SandboxUnavailable, connect, installation_id
from worker.sandbox.facts import GVISOR, EngineFacts
from worker.sandbox.proven import choose
from worker.settings import Settings


def engine(settings: Settings) -> list[Finding]:
    """Does an engine answer, does it enforce what the sandbox asks for, and has it our image?"""

    async def ask() -> EngineFacts:
        async with Engine(settings.docker_host) as found:
            return await found.facts()

    try:
        facts = asyncio.run(ask())
    except SandboxUnavailable as error:
        return [fail("docker engine", error.problem, error.remedy)]
    extras = [name for name, on in (("user namespaces", facts.userns), ("AppArmor", facts.apparmor)) if on]
    about = f"API {facts.api_version}, cgroup v{facts.cgroup_version}, {facts.architecture}"
    detail = f"{facts.version} ({about}); enforces seccomp"
    missing = facts.missing()
    found = [
        fail("docker engine", "; ".join(missing), "use another engine or kernel: tools do not run without it")
        if missing
        else ok("docker engine", ", ".join([detail, *extras]))
    ]
    if not missing:
        enforced = f"enforced here: {'; '.join(facts.enforced())}"
        found.append(ok("sandbox", f"{enforced}. Not offered by this host: {'; '.join(facts.not_enforced())}"))
    image = _image(settings)
    return [*found, image] if missing or image.status != "ok" else [*found, image, _box(settings)]


def _image(settings: Settings) -> Finding:
    data = settings.data.resolve()
    remedy = f"make setup, or {images.command(data)}"
    try:
        record = images.recorded(data).get("base")
        if record is None:
            return fail("sandbox image", f"none is recorded under {data}", remedy)
        api = connect(settings.docker_host)
        try:
            intact = images.verify(api, record)
        finally:
            api.close()
    except SandboxUnavailable as error:
        return fail("sandbox image", error.problem, error.remedy)
    if not intact:
        return fail("sandbox image", "the recorded image is gone from the engine, or its layers differ", remedy)
    return ok("sandbox image", f"{record.id.removeprefix('sha256:')[:12]}, layers verified")


def _box(settings: Settings) -> Finding:
    """One real box, looked at from inside: is everything enforced that the engine said yes to?"""
    data = settings.data.resolve()

    async def look() -> str:
        async with Engine(settings.docker_host) as found:
            sandbox = Sandbox(found, data=data, owner=installation_id(data))
            try:
                return await choose(sandbox, settings.sandbox_runtime)
            finally:
                await sandbox.close()

    try:
        runtime = asyncio.run(look())
    except SandboxUnavailable as error:
        return fail("sandbox", error.problem, f"{error.remedy}: tools do not run here")
    shut = "no network, read-only root, no capabilities, no new privileges, system call filter, limits"
    if runtime == GVISOR:
        return ok(
            "sandbox", "a box was tried and is shut, under gVisor (runsc): a kernel of its own, no network, limits"
        )
    return ok("sandbox", f"a box was tried and is shut: {shut}")


def temporal(settings: Settings) -> list[Finding]:
    """The binary, and the server where one should run."""
    program = temporal_program()
    own = "temporal_address" not in settings.model_fields_set
    found: list[Finding] = []
    if own:
        try:
            done = subprocess.run([str(program), "--version"], capture_output=True, text=True, timeout=20, check=True)  # noqa: S603  (our own binary)
            found.append(ok("temporal", done.stdout.strip()))
        except (OSError, subprocess.SubprocessError) as error:
            return [fail("temporal", f"its binary does not run: {error}", "make setup")]
    address = settings.temporal_address
    if own:
        address = addresses.read(settings.data).get("temporal", "")
        if not address:
            return found
    parts = urlsplit(f"//{address}")
    if asyncio.run(listens(parts.hostname or "127.0.0.1", parts.port or 7233)):
        found.append(ok("temporal server", address))
    else:
        remedy = "gatehouse down && gatehouse up" if own else "start it, or correct GATEHOUSE_TEMPORAL_ADDRESS"
        found.append(fail("temporal server", f"nobody listens at {address}", remedy))
    return found


def running(settings: Settings) -> list[Finding]:
    """Is the system up, and if not, are its ports free?"""
    state = StateFiles(settings.data.resolve())
    api = addresses.read(settings.data).get("api")
    if state.held and api:
        parts = urlsplit(api)
        status, body = asyncio.run(answers(parts.hostname or "", parts.port or 80, "/api/v1/ready"))
        if status == 200:
            workers = json.loads(body).get("parts", {}).get("workers", {})
            if workers.get("ok") is False:
                return [warn("system", f"ready at {api}, but {workers['reason']}", workers["remedy"])]
            return [ok("system", f"running and ready at {api}")]
        why = body.decode(errors="replace")[:300] or "no answer"
        return [fail("system", f"running but not ready: {why}", f"look at {settings.data.resolve() / 'logs'}")]
    if state.held:
        return [warn("system", "starting", "wait for it")]
    left = state.children()
    if left:
        return [warn("system", f"stopped, but left behind: {', '.join(sorted(left))}", "gatehouse down")]
    usual = {"API": (settings.api_host, settings.api_port), "Temporal": ("127.0.0.1", 7233)}
    taken = [f"{port} ({name})" for name, (host, port) in usual.items() if not addresses.is_free(host, port)]
    if taken:
        remedy = "nothing: the next free ones will be taken"
        return [warn("system", f"not running; ports in use by others: {', '.join(taken)}", remedy)]
    return [ok("system", "not running; start it with `gatehouse up --detach`")]
