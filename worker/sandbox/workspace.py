"""A run's workspace: one labelled volume, filled and emptied through the engine's archive calls.

Runs on the sandbox worker. No host folder is mounted, nothing is executed: files go in and out through a container that
is created and never started. What comes out was written by untrusted programs: it is read as a stream, only regular
files with plain names are taken, and nothing is ever unpacked onto our disk under a name of theirs.
"""

import asyncio
import hashlib
import secrets
import tarfile
from collections.abc import AsyncIterator, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import IO, Final, cast

from tools.contract import JsonObject
from worker.sandbox import engine as names
from worker.sandbox.container import Sandbox
from worker.sandbox.docker_api import DockerApi
from worker.sandbox.engine import Conflict, NotFound, SandboxUnavailable
from worker.sandbox.files import (
    MAX_NAME_BYTES,
    SKIPPED_NAME,
    media_type,
    plain_header,
    printable,
    refusal,
    staged_names,
)
from worker.sandbox.lifetime import lives
from worker.sandbox.profile import WORKSPACE, WorkspaceMount
from worker.store.blobs import Blobs
from workflows.contracts import ArtifactRef, FileRef

INPUTS: Final = "in"
OUTPUTS: Final = "out"
MAX_ARTIFACTS: Final = 200
MAX_ARTIFACT_BYTES: Final = 64 << 20
MAX_ARTIFACTS_BYTES: Final = 256 << 20
# Folders, links and the like that are passed over; beyond it the rest of out/ is not looked at.
_MAX_ENTRIES: Final = 200_000
_MAX_LISTED: Final = 1000
_CHUNK: Final = 1 << 20
_MAX_STREAM: Final = 1 << 30
# How long a stopped container that only carries files may exist.
_CARRIER_S: Final = 900
_REMOVE_TRIES: Final = 7
# How long the engine waits for the next piece of a file that is on its way.
_DRAWN_S: Final = 60.0
_GO_DIRECTORY: Final = 1 << 31


class WorkspaceMissing(Exception):  # noqa: N818
    """The run has no workspace: it was never opened, or is closed already."""


class StagingRefused(Exception):  # noqa: N818
    """An input file cannot be staged: its bytes are not what was announced."""


@dataclass
class Collected:
    """What was kept of `out/`, and what was not, with the reason."""

    artifacts: list[ArtifactRef] = field(default_factory=list[ArtifactRef])
    skipped: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    unlisted: int = 0
    """How many more were not kept, beyond those whose names are held."""
    entries: int = 0

    def skip(self, name: str, reason: str) -> None:
        """Note one that is not kept."""
        if len(self.skipped) < _MAX_LISTED:
            self.skipped.append((name.encode(errors="replace").decode()[:MAX_NAME_BYTES], reason))
        else:
            self.unlisted += 1


class Workspaces:
    """The volumes of all runs of this installation."""

    def __init__(self, sandbox: Sandbox, blobs: Blobs) -> None:
        self._sandbox = sandbox
        self._engine = sandbox.engine
        self._blobs = blobs

    def _volume(self, run_id: str) -> str:
        # Of the installation too: two of them may share an engine, and their run ids may meet.
        digest = hashlib.sha256(f"{self._sandbox.owner}/{run_id}".encode()).hexdigest()
        return f"gatehouse-run-{digest[:32]}"

    def _labels(self, run_id: str, kind: str) -> dict[str, str]:
        return {names.LABEL_OWNER: self._sandbox.owner, names.LABEL_RUN: run_id, names.LABEL_KIND: kind}

    async def open(self, run_id: str, files: Sequence[FileRef]) -> None:
        """Create the volume with `in/` holding these files and an empty `out/`. May be repeated.

        Raises SandboxUnavailable, StagingRefused, and what Blobs.open raises.
        """
        volume = self._volume(run_id)
        labels = self._labels(run_id, "workspace")
        await self._engine.call(lambda api: api.create_volume(volume, labels=labels))
        async with self._carrier(run_id) as carrier:
            archive = blocks(drawn(self._archive(files), asyncio.get_running_loop()))
            # Extracted by the engine inside the container's root: a name cannot lead out of it. Into `/` and not into
            # the workspace, because the engine skips the entry that stands for the target folder itself, and the
            # volume's root has to belong to the box's user.
            await self._engine.whole(lambda api: api.put_archive(carrier, "/", archive))

    async def mount(self, run_id: str, *, writable: bool) -> WorkspaceMount:
        """How a call's box mounts the run's volume. Raises WorkspaceMissing, SandboxUnavailable."""
        volume = self._volume(run_id)
        try:
            await self._engine.patiently(lambda: self._engine.call(lambda api: api.inspect_volume(volume)))
        except NotFound as error:
            raise WorkspaceMissing(f"run {run_id} has no workspace") from error
        return WorkspaceMount(volume, writable, self._labels(run_id, "workspace"))

    async def collect(self, run_id: str) -> Collected:
        """Keep the regular files under `out/` as blobs. Raises WorkspaceMissing, SandboxUnavailable.

        No call of the run may be running: `Sandbox.clear_run` first.
        """
        await self.mount(run_id, writable=False)
        async with self._carrier(run_id) as carrier:
            source = ChunkStream()
            try:
                try:
                    status = await self._engine.whole(lambda api: source.begin(api, carrier, f"{WORKSPACE}/{OUTPUTS}"))
                except NotFound:
                    return Collected()
                mode = status.get("mode")
                if not isinstance(mode, int) or not mode & _GO_DIRECTORY:
                    return Collected(skipped=[(OUTPUTS, "not a folder")])
                archive = await self._engine.whole(
                    lambda _: tarfile.open(  # noqa: SIM115 - has nothing to close but the stream
                        fileobj=cast(IO[bytes], source), mode="r|", bufsize=_CHUNK
                    )
                )
                return await self._keep(archive)
            finally:
                # Before the carrier goes: the engine holds the container until its archive is read or refused.
                source.close()

    async def remove(self, run_id: str) -> None:
        """Remove the volume; no error when there is none. Raises SandboxUnavailable."""
        volume = self._volume(run_id)
        for attempt in range(_REMOVE_TRIES):
            try:
                await self._engine.call(lambda api: api.remove_volume(volume, force=True))
            except NotFound:
                return
            except Conflict as error:
                # The last call's box is still on its way out, or another worker started one ahead for this run.
                if attempt == _REMOVE_TRIES - 1:
                    raise SandboxUnavailable(f"the workspace is in use: {error}", "see `docker ps -a`") from error
                await self._sandbox.clear_run(run_id)
                await asyncio.sleep(0.1 * 2**attempt)
            else:
                return

    def _carrier(self, run_id: str) -> "Carrier":
        return Carrier(self._sandbox, run_id, self._volume(run_id), self._labels(run_id, "carrier"))

    async def _archive(self, files: Sequence[FileRef]) -> AsyncIterator[bytes]:
        """A tar of the workspace as it starts, every owner and mode set by us."""
        staged = [(f"{INPUTS}/{name}", file) for name, file in staged_names(files)]
        parents = {str(parent) for name, _ in staged for parent in PurePosixPath(name).parents}
        for folder in sorted(parents | {".", INPUTS, OUTPUTS}):
            yield plain_header(folder, directory=True)
        for name, file in staged:
            digest, size = hashlib.sha256(), 0
            yield plain_header(name, size=file.size)
            async for chunk in self._blobs.open(file.sha256):
                size += len(chunk)
                digest.update(chunk)
                yield chunk
            if size != file.size or digest.hexdigest() != file.sha256:
                raise StagingRefused(f"{name}: {size} bytes stored where {file.size} were announced, or other content")
            yield bytes(-size % tarfile.BLOCKSIZE)
        yield bytes(2 * tarfile.BLOCKSIZE)

    async def _keep(self, archive: tarfile.TarFile) -> Collected:
        kept = Collected()
        while (member := await self._engine.whole(lambda _: wanted(archive, kept))) is not None:
            name = member.name.removeprefix(f"{OUTPUTS}/")
            blob = await self._blobs.put(self._content(archive, member), max_bytes=MAX_ARTIFACT_BYTES)
            kept.artifacts.append(
                ArtifactRef(name=name, sha256=blob.sha256, size=blob.size, media_type=media_type(name))
            )
        if kept.skipped:
            kept.artifacts.append(await self._list_of_skipped(kept))
        kept.artifacts.sort(key=lambda artifact: artifact.name)
        return kept

    async def _content(self, archive: tarfile.TarFile, member: tarfile.TarInfo) -> AsyncIterator[bytes]:
        content = archive.extractfile(member)
        while content is not None and (chunk := await self._engine.whole(lambda _: content.read(_CHUNK))):
            yield chunk

    async def _list_of_skipped(self, kept: Collected) -> ArtifactRef:
        """People must see that something is missing: the list is an artifact too."""
        shown = [f"{printable(name)}: {reason}" for name, reason in kept.skipped]
        if kept.unlisted:
            shown.append(f"... and {kept.unlisted} more")
        text = "Files under out/ that were not kept:\n" + "\n".join(shown) + "\n"
        blob = await self._blobs.put(text.encode())
        return ArtifactRef(name=SKIPPED_NAME, sha256=blob.sha256, size=blob.size, media_type=media_type(SKIPPED_NAME))


class Carrier:
    """A container that mounts the workspace and is never started; its root need not be read-only, since nothing runs
    in it, and must not be: the engine refuses archives into a read-only root."""

    def __init__(self, sandbox: Sandbox, run_id: str, volume: str, labels: dict[str, str]) -> None:
        self._sandbox = sandbox
        self._name = f"gatehouse-carrier-{secrets.token_hex(12)}"
        self._run_id = run_id
        self._volume = volume
        self._labels = {**labels, **lives(_CARRIER_S)}

    async def __aenter__(self) -> str:
        image = await self._sandbox.image("base")
        body = {
            "Image": image.id,
            "Entrypoint": [],
            "Cmd": ["false"],
            "Labels": self._labels,
            "HostConfig": {
                "NetworkMode": "none",
                "LogConfig": {"Type": "none"},
                "Mounts": [
                    {
                        "Type": "volume",
                        "Source": self._volume,
                        "Target": WORKSPACE,
                        "VolumeOptions": {"NoCopy": True, "Labels": {**self._labels, names.LABEL_KIND: "workspace"}},
                    }
                ],
            },
        }
        try:
            await self._sandbox.engine.whole(lambda api: api.create_container_from_config(body, self._name))
        except NotFound as error:
            raise SandboxUnavailable(f"the sandbox image is gone: {error}", "run the set-up again") from error
        except BaseException:
            await self.__aexit__()
            raise
        return self._name

    async def __aexit__(self, *_: object) -> None:
        await self._sandbox.engine.dispose(self._name)


class ChunkStream:
    """File-like view of an archive that the engine sends, as tarfile's stream mode wants it; empty until it began."""

    def __init__(self) -> None:
        self._chunks: Iterator[bytes] = iter(())
        self._rest: bytes = b""

    def begin(self, api: DockerApi, container: str, path: str) -> JsonObject:
        """Have the engine send what lies at `path`; gives what it says of it. Blocking."""
        self._chunks, status = api.get_archive(container, path)
        return status

    def read(self, size: int) -> bytes:
        """As a file's; short at the end only."""
        parts: list[bytes] = []
        while size > 0:
            if not self._rest:
                self._rest = next(self._chunks, b"")
                if not self._rest:
                    break
            part, self._rest = self._rest[:size], self._rest[size:]
            parts.append(part)
            size -= len(part)
        return b"".join(parts)

    def close(self) -> None:
        """Refuse the rest."""
        chunks: object = self._chunks
        if isinstance(chunks, Generator):
            cast(Generator[bytes], chunks).close()
        self._chunks = iter(())


def wanted(archive: tarfile.TarFile, kept: Collected) -> tarfile.TarInfo | None:
    """The next file to keep, None at the end; what is passed over is noted. Blocking."""
    while True:
        try:
            member = archive.next()
        except (tarfile.TarError, ValueError) as error:
            kept.skip("...", f"the rest: {error}")
            return None
        if member is None:
            return None
        # The stream's bookkeeping of past members would grow with their number.
        archive.members = []  # pyright: ignore[reportAttributeAccessIssue]
        kept.entries += 1
        if kept.entries > _MAX_ENTRIES:
            kept.skip("...", f"the rest: more than {_MAX_ENTRIES} entries")
            return None
        if archive.offset > _MAX_STREAM:  # pyright: ignore[reportAttributeAccessIssue] - not in its stub
            # Sparse files cost nothing to make and their full size to read: this one's content is not read any more.
            kept.skip(member.name.removeprefix(f"{OUTPUTS}/"), f"the rest: more than {_MAX_STREAM} bytes to read")
            return None
        if member.isdir():
            continue
        outside = "outside the folder" if not member.name.startswith(f"{OUTPUTS}/") else None
        name = member.name.removeprefix(f"{OUTPUTS}/")
        if len(kept.artifacts) >= MAX_ARTIFACTS and len(kept.skipped) >= _MAX_LISTED:
            kept.skipped.append(("...", f"the rest: more than {MAX_ARTIFACTS} files"))
            return None
        if reason := outside or refusal(name, member) or _over(kept, name, member.size):
            kept.skip(name, reason)
            continue
        return member


def drawn(source: AsyncIterator[bytes], loop: asyncio.AbstractEventLoop) -> Iterator[bytes]:
    """What an asynchronous source gives, for a thread that has to wait for it. Raises what the source raises."""

    async def one() -> bytes | None:
        return await anext(source, None)

    while (part := asyncio.run_coroutine_threadsafe(one(), loop).result(_DRAWN_S)) is not None:
        yield part


def blocks(parts: Iterable[bytes]) -> Iterator[bytes]:
    """The same bytes in pieces of at least _CHUNK, but for the last."""
    block = bytearray()
    for part in parts:
        block += part
        if len(block) >= _CHUNK:
            yield bytes(block)
            block.clear()
    yield bytes(block)


def _over(kept: Collected, name: str, size: int) -> str | None:
    if any(name == known.name for known in kept.artifacts):
        return "twice in the archive"
    if len(kept.artifacts) >= MAX_ARTIFACTS:
        return f"more than {MAX_ARTIFACTS} files"
    if size > MAX_ARTIFACT_BYTES:
        return f"larger than {MAX_ARTIFACT_BYTES} bytes"
    if sum(known.size for known in kept.artifacts) + size > MAX_ARTIFACTS_BYTES:
        return f"all files together larger than {MAX_ARTIFACTS_BYTES} bytes"
    return None
