"""A run's workspace: one labelled volume, filled and emptied through the engine's archive calls.

Runs on the sandbox worker. No host folder is mounted, nothing is executed: files go in and out through a container that
is created and never started. What comes out was written by untrusted programs: it is read as a stream, only regular
files with plain names are taken, and nothing is ever unpacked onto our disk under a name of theirs.
"""

import asyncio
import hashlib
import mimetypes
import secrets
import tarfile
import tempfile
import time
import unicodedata
from collections.abc import AsyncIterator, Generator, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO, Final, cast

from worker.sandbox import engine as names
from worker.sandbox.container import Sandbox
from worker.sandbox.engine import Conflict, NotFound, SandboxUnavailable
from worker.sandbox.process import this_process
from worker.sandbox.profile import BOX_UID, WORKSPACE, WorkspaceMount
from worker.store.blobs import Blobs
from workflows.contracts import ArtifactRef, FileRef

INPUTS: Final = "in"
OUTPUTS: Final = "out"
MAX_ARTIFACTS: Final = 200
MAX_ARTIFACT_BYTES: Final = 64 << 20
MAX_ARTIFACTS_BYTES: Final = 256 << 20
MAX_NAME_BYTES: Final = 200
SKIPPED_NAME: Final = "gatehouse-skipped.txt"
_MAX_DEPTH: Final = 16
# Directories, links and the like that are passed over; beyond it the rest of out/ is not looked at.
_MAX_ENTRIES: Final = 20_000
_CHUNK: Final = 1 << 20
_MAX_STREAM: Final = 1 << 30
# How long a stopped container that only carries files may exist.
_CARRIER_S: Final = 900
_REMOVE_TRIES: Final = 7
_GO_DIRECTORY: Final = 1 << 31
_REGULAR: Final = (tarfile.REGTYPE, tarfile.AREGTYPE)


class WorkspaceMissing(Exception):  # noqa: N818
    """The run has no workspace: it was never opened, or is closed already."""


class StagingRefused(Exception):  # noqa: N818
    """An input file cannot be staged: its bytes are not what was announced."""


@dataclass
class Collected:
    """What was kept of `out/`, and what was not, with the reason."""

    artifacts: list[ArtifactRef] = field(default_factory=list[ArtifactRef])
    skipped: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])


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
        with tempfile.TemporaryFile() as archive:
            await self._write_archive(archive, files)
            archive.seek(0)
            async with self._carrier(run_id) as carrier:
                # Extracted by the engine inside the container's root: a name cannot lead out of it. Into `/` and not
                # into the workspace, because the engine skips the entry that stands for the target folder itself, and
                # the volume's root has to belong to the box's user.
                await self._engine.call(lambda api: api.put_archive(carrier, "/", archive))

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
            try:
                stream, status = await self._engine.call(lambda api: api.get_archive(carrier, f"{WORKSPACE}/{OUTPUTS}"))
            except NotFound:
                return Collected()
            mode = status.get("mode")
            if not isinstance(mode, int) or not mode & _GO_DIRECTORY:
                return Collected(skipped=[(OUTPUTS, "not a folder")])
            source = ChunkStream(stream)
            try:
                archive = await self._engine.call(
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

    async def _write_archive(self, archive: IO[bytes], files: Sequence[FileRef]) -> None:
        """A tar of the workspace as it starts, every owner and mode set by us."""
        staged = [(f"{INPUTS}/{name}", file) for name, file in staged_names(files)]
        parents = {str(parent) for name, _ in staged for parent in PurePosixPath(name).parents}
        for folder in sorted(parents | {".", INPUTS, OUTPUTS}):
            archive.write(plain_header(folder, directory=True))
        for name, file in staged:
            digest, size = hashlib.sha256(), 0
            archive.write(plain_header(name, size=file.size))
            async for chunk in self._blobs.open(file.sha256):
                size += len(chunk)
                digest.update(chunk)
                archive.write(chunk)
            if size != file.size or digest.hexdigest() != file.sha256:
                raise StagingRefused(f"{name}: {size} bytes stored where {file.size} were announced, or other content")
            archive.write(bytes(-size % tarfile.BLOCKSIZE))
        archive.write(bytes(2 * tarfile.BLOCKSIZE))

    async def _keep(self, archive: tarfile.TarFile) -> Collected:
        kept = Collected()
        total = 0
        for _ in range(_MAX_ENTRIES):
            try:
                member = await self._engine.call(lambda _: archive.next())
            except (tarfile.TarError, ValueError) as error:
                kept.skipped.append(("...", f"the rest: {error}"))
                break
            if member is None:
                break
            if archive.offset > _MAX_STREAM:  # pyright: ignore[reportAttributeAccessIssue] - not in its stub
                # Sparse files cost nothing to make and their full size to read.
                kept.skipped.append(("...", f"the rest: more than {_MAX_STREAM} bytes"))
                break
            # The stream's bookkeeping of past members would grow with their number.
            archive.members = []  # pyright: ignore[reportAttributeAccessIssue]
            if member.isdir():
                continue
            name = member.name.removeprefix(f"{OUTPUTS}/")
            reason = refusal(name, member) or _over(kept, total, member.size)
            if reason:
                kept.skipped.append((name.encode(errors="replace").decode()[:MAX_NAME_BYTES], reason))
                continue
            blob = await self._blobs.put(self._content(archive, member), max_bytes=MAX_ARTIFACT_BYTES)
            total += blob.size
            kept.artifacts.append(
                ArtifactRef(name=name, sha256=blob.sha256, size=blob.size, media_type=media_type(name))
            )
        else:
            kept.skipped.append(("...", f"more than {_MAX_ENTRIES} entries"))
        if kept.skipped:
            kept.artifacts.append(await self._list_of_skipped(kept))
        kept.artifacts.sort(key=lambda artifact: artifact.name)
        return kept

    async def _content(self, archive: tarfile.TarFile, member: tarfile.TarInfo) -> AsyncIterator[bytes]:
        content = archive.extractfile(member)
        while content is not None and (chunk := await self._engine.call(lambda _: content.read(_CHUNK))):
            yield chunk

    async def _list_of_skipped(self, kept: Collected) -> ArtifactRef:
        """People must see that something is missing: the list is an artifact too."""
        shown = [f"{printable(name)}: {reason}" for name, reason in kept.skipped[:1000]]
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
        self._labels = {
            **labels,
            names.LABEL_DEADLINE: str(int(time.time()) + _CARRIER_S),
            names.LABEL_PROCESS: this_process(),
        }

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
            await self._sandbox.engine.call(lambda api: api.create_container_from_config(body, self._name))
        except NotFound as error:
            raise SandboxUnavailable(f"the sandbox image is gone: {error}", "run the set-up again") from error
        except BaseException:
            await self.__aexit__()
            raise
        return self._name

    async def __aexit__(self, *_: object) -> None:
        await self._sandbox.engine.dispose(self._name)


class ChunkStream:
    """File-like view of the engine's chunks, as tarfile's stream mode wants it."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._rest: bytes = b""

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
        if isinstance(self._chunks, Generator):
            cast(Generator[bytes], self._chunks).close()
        self._chunks = iter(())


def plain_header(name: str, *, size: int = 0, directory: bool = False, executable: bool = False) -> bytes:
    """The tar header of a file or folder of the workspace, owner and mode set by us."""
    info = tarfile.TarInfo(str(PurePosixPath(WORKSPACE.lstrip("/"), name)))
    info.type = tarfile.DIRTYPE if directory else tarfile.REGTYPE
    info.mode = 0o755 if directory or executable else 0o644
    info.size = size
    info.uid = info.gid = BOX_UID
    info.mtime = int(time.time())
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8")


def printable(name: str, instead: str = "?") -> str:
    """The name without control characters, direction marks and surrogates, for people to read."""
    return "".join(instead if unicodedata.category(c) in ("Cc", "Cf", "Cs") else c for c in name)


def safe_name(name: str) -> str:
    """The plain relative path under which a file called `name` is staged: no `..`, no root, no control characters.

    A name that is plain already comes back unchanged.
    """
    text = printable(unicodedata.normalize("NFC", name.replace("\\", "/")), "_")
    parts = [part.strip() for part in text.split("/")]
    kept = [_shortened(part) for part in parts if part not in ("", ".", "..")][-_MAX_DEPTH:]
    while len("/".join(kept).encode()) > MAX_NAME_BYTES and len(kept) > 1:
        del kept[0]
    return "/".join(kept) or "file"


def _shortened(part: str) -> str:
    """At most 120 bytes, keeping the end of the name, where its type is."""
    raw = part.encode()
    return part if len(raw) <= 120 else raw[-120:].decode(errors="ignore")


def staged_names(files: Sequence[FileRef]) -> list[tuple[str, FileRef]]:
    """Safe names for all files; where two meet, or one is the folder of another, the later one gets a number."""
    taken: set[str] = set()
    folders: set[str] = set()
    staged: list[tuple[str, FileRef]] = []
    for file in files:
        wanted = name = safe_name(file.name)
        count = 1
        while name in taken or name in folders or any(str(p) in taken for p in PurePosixPath(name).parents):
            count += 1
            name = f"{count}-{wanted.replace('/', '-')}"
        taken.add(name)
        folders.update(str(parent) for parent in PurePosixPath(name).parents)
        staged.append((name, file))
    return staged


def refusal(name: str, member: tarfile.TarInfo) -> str | None:
    """Why a member of `out/` is not taken; None for a regular file with a plain name."""
    if member.type not in _REGULAR:
        kinds = {tarfile.SYMTYPE: "symbolic link", tarfile.LNKTYPE: "hard link to another file"}
        return kinds.get(member.type, "not a regular file")
    parts = name.split("/")
    if name != printable(name) or "\\" in name:
        return "control characters or undecodable bytes in its name"
    if len(name.encode()) > MAX_NAME_BYTES or len(parts) > _MAX_DEPTH:
        return f"name longer than {MAX_NAME_BYTES} bytes or deeper than {_MAX_DEPTH} folders"
    if any(part in ("", ".", "..") for part in parts) or name == SKIPPED_NAME:
        return "not a plain name"
    return None


def _over(kept: Collected, total: int, size: int) -> str | None:
    if len(kept.artifacts) >= MAX_ARTIFACTS:
        return f"more than {MAX_ARTIFACTS} files"
    if size > MAX_ARTIFACT_BYTES:
        return f"larger than {MAX_ARTIFACT_BYTES} bytes"
    if total + size > MAX_ARTIFACTS_BYTES:
        return f"all files together larger than {MAX_ARTIFACTS_BYTES} bytes"
    return None


# No files of the system are read: the same name has the same type everywhere.
_TYPES: Final = mimetypes.MimeTypes(())
for _type, _suffix in (
    ("text/markdown", ".md"),
    ("text/plain", ".log"),
    ("application/x-ndjson", ".jsonl"),
    ("application/yaml", ".yaml"),
):
    _TYPES.add_type(_type, _suffix)


def media_type(name: str) -> str:
    """By the name's ending alone; the content is never looked at."""
    guessed, encoding = _TYPES.guess_type(Path(name).name, strict=True)
    if encoding is not None:
        return f"application/{encoding}" if encoding != "bzip2" else "application/x-bzip2"
    return guessed or "application/octet-stream"
