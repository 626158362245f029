"""Operations on runs, files and artifacts, and on the records of them."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote
from uuid import uuid4  # noqa: TID251  (the ban is for workflow code)

from gatehouse_client.models.runs import Artifact, AuditRecord, Phase, Run, UploadedFile, Verification
from gatehouse_client.problems import RunWaitsError, UnavailableError, UnreachableError
from gatehouse_client.sse import EventParser
from gatehouse_client.transport import MOST_WAIT_S, SILENCE_S, Body, Transport, segment

CHUNK = 1 << 18
RECONNECTS = 60
"""How often in a row a stream of events may break before it is given up."""


class RunOperations(Transport):
    """Start, follow, stop; what goes in and what comes out."""

    async def start_run(
        self, automation: str, inputs: Mapping[str, Any] | None = None, files: Sequence[str] = (), *,
        idempotency_key: str | None = None,
    ) -> Run:  # fmt: skip
        """Start a run; `files` are ids from `upload_file`. Repeated by itself when the answer is lost, which is safe:
        each call has a key of its own, and one key starts one run. Give a key to make it so across your own restarts.
        """
        body = {"automation": automation, "inputs": dict(inputs or {}), "files": list(files)}
        headers = {"Idempotency-Key": idempotency_key or uuid4().hex}
        return await self._call(Run, "POST", "/runs", body=body, headers=headers, repeatable=True)

    def list_runs(
        self, *, phase: Phase | None = None, automation: str | None = None, limit: int | None = None
    ) -> AsyncIterator[Run]:
        """Newest first, `limit` at most."""
        return self._items(Run, "/runs", limit, {"phase": phase, "automation": automation})

    async def get_run(self, run_id: str) -> Run:
        """Where it stands and, once it has ended, its result."""
        return await self._call(Run, "GET", f"/runs/{segment(run_id)}")

    async def cancel_run(self, run_id: str) -> Run:
        """Ask it to stop; follow its events to see it end."""
        return await self._call(Run, "POST", f"/runs/{segment(run_id)}/cancel")

    async def follow_run(
        self, run_id: str, *, after: int | None = None, until_now: bool = False
    ) -> AsyncGenerator[AuditRecord]:
        """The run's records as they are written, from the first or behind the sequence number `after`. Ends behind
        `run.closed`, or with `until_now` behind the last there is. A broken connection is taken up again where it
        broke."""
        last, failures = after or 0, 0
        while True:
            try:
                async with aclosing(self._records(run_id, last, until_now)) as records:
                    async for record in records:
                        last, failures = record.seq, 0
                        yield record
                        if record.type == "run.closed":
                            return
                if until_now:
                    return
            except (UnreachableError, UnavailableError):
                if failures >= RECONNECTS:
                    raise
            failures += 1
            await asyncio.sleep(min(0.25 * failures, MOST_WAIT_S))

    async def _records(self, run_id: str, after: int, until_now: bool) -> AsyncGenerator[AuditRecord]:
        headers = {"Accept": "text/event-stream", "Last-Event-ID": str(after)}
        path = f"/runs/{segment(run_id)}/events" + ("?until_now=true" if until_now else "")
        parser = EventParser()
        async with self._stream(path, headers, silence_s=SILENCE_S) as response:
            async for line in response.aiter_lines():
                if event := parser.feed(line):
                    yield self._parsed(AuditRecord, event.data)

    async def wait_for_run(
        self, run_id: str, *, timeout_s: float | None = None, progress: Callable[[AuditRecord], None] | None = None
    ) -> Run:
        """The run once it has ended. `progress` is called with each of its records, from the first. Raises
        RunWaitsError after `timeout_s`, which says what it waits for."""
        last = ""
        try:
            async with asyncio.timeout(timeout_s), aclosing(self.follow_run(run_id)) as records:
                async for record in records:
                    last = record.type
                    if progress is not None:
                        progress(record)
                return await self.get_run(run_id)
        except TimeoutError as error:
            raise RunWaitsError(f"{run_id} has not ended within {timeout_s:g} s; its last record: {last}") from error

    async def list_artifacts(self, run_id: str) -> tuple[Artifact, ...]:
        """What the run left."""
        return await self._all(Artifact, f"/runs/{segment(run_id)}/artifacts")

    async def get_artifact(self, run_id: str, name: str) -> AsyncGenerator[bytes]:
        """The artifact's bytes, as they come."""
        path = f"/runs/{segment(run_id)}/artifacts/{quote(name)}"
        async with self._stream(path, {}, silence_s=SILENCE_S) as response:
            async for chunk in response.aiter_bytes():
                yield chunk

    async def save_artifact(self, run_id: str, name: str, to: Path) -> int:
        """Write an artifact into a file, complete or not at all; its size."""
        draft = to.with_name(to.name + ".part")
        size = 0
        with draft.open("wb") as sink:
            async with aclosing(self.get_artifact(run_id, name)) as chunks:
                async for chunk in chunks:
                    size += sink.write(chunk)
        draft.replace(to)
        return size

    async def upload_file(
        self, source: Path | Body, *, name: str | None = None, media_type: str = "application/octet-stream"
    ) -> UploadedFile:
        """Send a file, streamed from a path or an iterator; its `id` is what `start_run` takes. Not repeated by
        itself. `name` defaults to the path's."""
        if isinstance(source, Path):
            name, body = name or source.name, _chunks(source)
        else:
            body = source
        if not name:
            raise ValueError("a file that has no path needs a name")
        return await self._sent(UploadedFile, "/files", {"name": name}, body, media_type)

    def list_audit(
        self, *, run: str | None = None, type: str | None = None, actor: str | None = None,  # noqa: A002
        since: datetime | None = None, until: datetime | None = None, text: str | None = None, after: int = 0,
        limit: int | None = None,
    ) -> AsyncIterator[AuditRecord]:  # fmt: skip
        """Records of your tenant in order, behind the sequence number `after`, `limit` at most: those of a run, a type,
        an actor, from `since` to before `until`, with `text` in the body."""
        span = {"since": since.isoformat() if since else None, "until": until.isoformat() if until else None}
        sought = {"run": run, "type": type, "actor": actor, "text": text, "after": after, **span}
        return self._items(AuditRecord, "/audit", limit, sought)

    async def verify_audit(self, *, full: bool = False) -> Verification:
        """Whether the whole log still holds; `full` looks at every record again."""
        return await self._call(Verification, "GET", "/audit/verify", query={"full": full})


async def _chunks(path: Path) -> AsyncGenerator[bytes]:
    with path.open("rb") as source:
        while chunk := await asyncio.to_thread(source.read, CHUNK):
            yield chunk
