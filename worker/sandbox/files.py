"""Names of files that strangers chose, on their way into a workspace and out of it. Nothing here touches a disk."""

import mimetypes
import tarfile
import time
import unicodedata
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Final

from worker.sandbox.profile import BOX_UID, WORKSPACE
from workflows.contracts import FileRef

MAX_NAME_BYTES: Final = 200
SKIPPED_NAME: Final = "gatehouse-skipped.txt"
"""The list of what was not kept, among a run's artifacts."""
_MAX_DEPTH: Final = 16
_REGULAR: Final = (tarfile.REGTYPE, tarfile.AREGTYPE)


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
