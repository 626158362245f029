"""What a call is given beyond its box: secrets, and a way out. Opened for one call, closed and accounted for with it.

What went out is part of the call's outcome; what was refused becomes `egress.refused` records, whatever became of the
call.
"""

import asyncio
import dataclasses
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final

import structlog

from tools.contract import JsonObject, ToolSpec
from tools.egress import ANY, HostRule, rules
from worker.sandbox.container import Job, Ran
from worker.sandbox.egress import Egress, through
from worker.sandbox.grant import Credential, Grant, Refusal, Traffic
from worker.sandbox.secrets import SecretRefused, Secrets
from worker.store.audit import AuditEvent, AuditLog, RunAlreadyClosed
from worker.store.database import StoreUnavailable
from worker.store.events import egress_refused_id
from workflows.contracts import ToolRun

ACTOR: Final = "system:sandbox"
_RECORD_TRIES: Final = 6

_log: Final = structlog.stdlib.get_logger("gatehouse.sandbox")


class NotGiven(Exception):  # noqa: N818
    """The tool asks for something that this installation does not give; nothing ran."""


class Given:
    """A call with what it was given."""

    def __init__(self, job: Job, secrets: Secrets | None, traffic: Traffic | None) -> None:
        self.job = job
        self._secrets = secrets
        self.traffic = traffic

    def cleaned(self, ran: Ran) -> Ran:
        """The outputs without any secret that this worker ever handed out. Before anything of them is kept."""
        if self._secrets is None:
            return ran
        scrub = self._secrets.scrubber.bytes
        return dataclasses.replace(ran, stdout=scrub(ran.stdout), stderr=scrub(ran.stderr))

    def told(self) -> JsonObject:
        """For the record of the outcome."""
        return {"egress": self.traffic.told()} if self.traffic else {}


class Means:
    """Gives calls their secrets and their way out. `opened` are the hosts for tools that declare `*`."""

    def __init__(self, egress: Egress, secrets: Secrets, audit: AuditLog, *, opened: Sequence[str] = ()) -> None:
        self._egress = egress
        self._secrets = secrets
        self._audit = audit
        self._opened = tuple(opened)
        rules(self._opened)  # a bad setting is told at start

    @asynccontextmanager
    async def given(self, run: ToolRun, job: Job, attempt: str) -> AsyncGenerator[Given]:
        """For the time of one box; `attempt` tells the boxes of a call apart.

        Raises NotGiven, SandboxUnavailable, StoreUnavailable.
        """
        tool = run.tool
        try:
            values = await self._secrets.resolve(
                [*tool.secrets, *(credential.secret for credential in tool.egress_credentials)]
            )
            grant = self._grant(tool, values) if tool.egress else None
        except (SecretRefused, ValueError) as error:
            raise NotGiven(f"{tool.name}: {error}") from error
        job = dataclasses.replace(job, secrets={name: values[name] for name in tool.secrets})
        async with AsyncExitStack() as stack:
            traffic = None
            if grant is not None:
                way = await stack.enter_async_context(self._egress.open(grant))
                job, traffic = through(job, way), way.traffic
                stack.push_async_callback(self._record, run, attempt, traffic)
            yield Given(job, self._secrets, traffic)

    def _grant(self, tool: ToolSpec, values: Mapping[str, bytes]) -> Grant:
        allowed = rules(tool.egress, self._opened)
        if not allowed:
            raise ValueError(f"egress is closed: no hosts are opened for tools that declare {ANY!r}")
        credentials: list[Credential] = []
        for credential in tool.egress_credentials:
            secret = values[credential.secret]
            if any(byte < 0x20 or byte == 0x7F for byte in secret):
                raise ValueError(f"secret {credential.secret} has control characters and cannot be a header")
            value = credential.prefix.encode() + secret
            credentials.append(Credential(HostRule.parse(credential.host), credential.header, value, secret))
        return Grant(allowed, tool.egress_limits, tuple(credentials))

    async def _record(self, run: ToolRun, attempt: str, traffic: Traffic) -> None:
        """Put refusals on the audit record, also when the call is being cancelled."""
        if not traffic.refused:
            return
        events = [
            _refused_event(run, f"{run.generation}.{attempt}.{number}", refusal, times)
            for number, (refusal, times) in enumerate(traffic.refused.items())
        ]
        work = asyncio.ensure_future(self._append(events))
        try:
            await asyncio.shield(work)
        except asyncio.CancelledError:
            await work
            raise

    async def _append(self, events: Sequence[AuditEvent]) -> None:
        for number in range(_RECORD_TRIES):
            try:
                await self._audit.append(*events)
            except RunAlreadyClosed:
                _log.warning("refused egress of a closed run", run_id=events[0].run_id, refusals=len(events))
            except StoreUnavailable:
                if number == _RECORD_TRIES - 1:
                    raise
                await asyncio.sleep(0.2 * 2**number)
                continue
            return


def _refused_event(run: ToolRun, number: str, refusal: Refusal, times: int) -> AuditEvent:
    return AuditEvent(
        event_id=egress_refused_id(run.run.run_id, run.call.id, number), type="egress.refused", tenant=run.run.tenant,
        run_id=run.run.run_id, actor=ACTOR,
        body={
            "call_id": run.call.id, "tool": run.tool.name, "kind": refusal.kind, "host": refusal.host,
            "port": refusal.port, "reason": refusal.reason, "detail": refusal.detail, "times": times,
        },
    )  # fmt: skip


@asynccontextmanager
async def nothing(run: ToolRun, job: Job) -> AsyncGenerator[Given]:
    """Where there are no means: a tool that asks for any is refused. Raises NotGiven."""
    if run.tool.egress:
        raise NotGiven(f"{run.tool.name} needs egress to {', '.join(run.tool.egress)}, and egress is closed")
    if run.tool.secrets:
        raise NotGiven(f"{run.tool.name} needs secrets, and there are none")
    yield Given(job, None, None)
