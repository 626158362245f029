"""Files between a folder of the host and a workspace, for direct use of a box.

Both ends are read without following anything: on the way in because the folder may hold links that lead out of it, on
the way out because untrusted programs made the names. Only regular files with plain names travel; everything else is
listed with the reason. On the way out nothing is unpacked: each file is written by us, one folder at a time.
"""

import os
import secrets
import stat
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Final

from tools.contract import Wire
from worker.sandbox.files import plain_header, printable, refusal
from worker.sandbox.profile import WORKSPACE

MAX_BYTES: Final = 512 << 20
MAX_ENTRIES: Final = 20_000
_CHUNK: Final = 1 << 20
_ODD: Final = "not a regular file"
_NO_FOLLOW: Final = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


class Refused(Wire):
    """A file that did not travel. `way` is `in` or `out`; `name` is relative, without control characters."""

    way: str
    name: str
    reason: str


class _Room:
    """What may still travel one way."""

    def __init__(self, way: str) -> None:
        self.way = way
        self.bytes = MAX_BYTES
        self.entries = MAX_ENTRIES
        self.refused: list[Refused] = []

    def refuse(self, name: str, reason: str) -> None:
        shown = printable(name.encode(errors="replace").decode())[:500]
        if len(self.refused) < 1000:
            self.refused.append(Refused(way=self.way, name=shown, reason=reason))

    def admits(self, name: str, size: int) -> bool:
        if size > self.bytes:
            self.refuse(name, f"all files together larger than {MAX_BYTES} bytes")
            return False
        self.bytes -= size
        return True


def pack(folder: Path | None, archive: IO[bytes]) -> list[Refused]:
    """Write a tar of the workspace as it starts: the folder's files, and an empty `out/`. Raises OSError when the
    folder itself cannot be read."""
    room = _Room("in")
    for name in (".", "out"):
        archive.write(plain_header(name, directory=True))
    if folder is not None:
        top = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            _pack(top, "", archive, room)
        finally:
            os.close(top)
    archive.write(bytes(2 * tarfile.BLOCKSIZE))
    return room.refused


def _pack(folder: int, prefix: str, archive: IO[bytes], room: _Room) -> None:
    for entry in sorted(os.listdir(folder)):
        name = prefix + entry
        room.entries -= 1
        if room.entries < 0:
            room.refuse(name, f"more than {MAX_ENTRIES} entries")
            return
        try:
            # Asked of what was opened, not of its name, which may mean something else a moment later.
            handle = os.open(entry, os.O_RDONLY | _NO_FOLLOW, dir_fd=folder)
        except OSError as error:
            linked = stat.S_ISLNK(os.lstat(entry, dir_fd=folder).st_mode) if _exists(entry, folder) else False
            room.refuse(name, "symbolic link" if linked else error.strerror or _ODD)
            continue
        try:
            _pack_one(handle, name, archive, room)
        finally:
            os.close(handle)


def _exists(entry: str, folder: int) -> bool:
    try:
        os.lstat(entry, dir_fd=folder)
    except OSError:
        return False
    return True


def _pack_one(handle: int, name: str, archive: IO[bytes], room: _Room) -> None:
    found = os.fstat(handle)
    member = tarfile.TarInfo(name)
    member.type = tarfile.REGTYPE
    why = refusal(name, member)
    if stat.S_ISDIR(found.st_mode) and why is None:
        archive.write(plain_header(name, directory=True))
        _pack(handle, f"{name}/", archive, room)
    elif why is not None or not stat.S_ISREG(found.st_mode):
        room.refuse(name, why or _ODD)
    elif room.admits(name, found.st_size):
        archive.write(plain_header(name, size=found.st_size, executable=bool(found.st_mode & stat.S_IXUSR)))
        left = found.st_size
        while left > 0 and (chunk := os.read(handle, min(_CHUNK, left))):
            archive.write(chunk)
            left -= len(chunk)
        # A file that shrank meanwhile is filled up: its announced size stands in the archive already.
        archive.write(bytes(left + -found.st_size % tarfile.BLOCKSIZE))


def unpack(
    members: Callable[[], Iterator[tuple[tarfile.TarInfo, Callable[[int], bytes]]]], folder: Path
) -> list[Refused]:
    """Write the files of a workspace's archive under `folder`, which is made; files of the same name are replaced.

    `members` gives each member with a function that reads its content.
    """
    room = _Room("out")
    folder.mkdir(parents=True, exist_ok=True)
    top = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for member, read in members():
            name = member.name.removeprefix(WORKSPACE.lstrip("/")).strip("/")
            room.entries -= 1
            if room.entries < 0:
                room.refuse("...", f"the rest: more than {MAX_ENTRIES} entries")
                break
            if member.isdir():
                continue
            if why := refusal(name, member):
                room.refuse(name, why)
            elif room.admits(name, member.size):
                try:
                    _write(top, PurePosixPath(name).parts, member, read)
                except OSError as error:
                    room.refuse(name, error.strerror or "cannot be written")
    except (tarfile.TarError, ValueError) as error:
        room.refuse("...", f"the rest: {error}")
    finally:
        os.close(top)
    return room.refused


def _write(top: int, parts: tuple[str, ...], member: tarfile.TarInfo, read: Callable[[int], bytes]) -> None:
    """Below `top`, through folders that are no links, aside and then renamed."""
    here = os.dup(top)
    try:
        for part in parts[:-1]:
            if not _exists(part, here):
                os.mkdir(part, 0o755, dir_fd=here)
            below = os.open(part, os.O_RDONLY | os.O_DIRECTORY | _NO_FOLLOW, dir_fd=here)
            os.close(here)
            here = below
        aside = f".gatehouse-{secrets.token_hex(8)}"
        mode = 0o755 if member.mode & stat.S_IXUSR else 0o644
        handle = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _NO_FOLLOW, mode, dir_fd=here)
        try:
            with os.fdopen(handle, "wb") as file:
                while chunk := read(_CHUNK):
                    file.write(chunk)
            os.rename(aside, parts[-1], src_dir_fd=here, dst_dir_fd=here)
        except BaseException:
            os.unlink(aside, dir_fd=here)
            raise
    finally:
        os.close(here)
