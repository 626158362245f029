"""What a tool may bring for its sandbox image: a list of Debian packages, or a Dockerfile with its files in `image/`.

The image's name carries a digest of that: a change of either is another image, and one that nobody built is not there.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tools.contract import JsonObject, canonical_json
from tools.errors import ToolError

FOLDER: Final = "image"
PACKAGE_PATTERN: Final = r"^[a-z0-9][a-z0-9+.-]{1,63}$"
MOST_BYTES: Final = 64 << 20
MOST_FILES: Final = 500

# Nothing that reaches beyond the base image and the files beside it: no other image, no address, no volume.
_INSTRUCTIONS: Final = frozenset({"ARG", "FROM", "RUN", "COPY", "ENV", "LABEL", "WORKDIR"})
_START: Final = ("ARG BASE", "FROM ${BASE}")
_BEGIN: Final = "Begin with `ARG BASE`, `FROM ${BASE}`."


@dataclass(frozen=True)
class ToolImage:
    """An image as a tool describes it; either `packages` or `files` is there."""

    name: str
    packages: tuple[str, ...]
    files: Mapping[str, bytes]
    """Build context by relative path, `Dockerfile` among it."""


def tool_image(folder: Path, tool: str, packages: tuple[str, ...]) -> ToolImage | None:
    """What the tool in this folder brings; None when the image its manifest names will do. Raises ToolError."""
    context = folder / FOLDER
    files = _files(context) if context.is_dir() else {}
    if not packages and not files:
        return None
    if packages and files:
        raise ToolError(folder / "tool.yaml", "packages", f"beside {FOLDER}/", "Use one of them.")
    if files:
        _check_dockerfile(context / "Dockerfile", files)
    digests: JsonObject = {path: hashlib.sha256(content).hexdigest() for path, content in files.items()}
    digest = hashlib.sha256(canonical_json({"packages": [*sorted(packages)], "files": digests})).hexdigest()
    return ToolImage(f"{tool.replace('_', '-')}-{digest[:12]}", tuple(sorted(packages)), files)


def _files(context: Path) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    size = 0
    for path in sorted(context.rglob("*")):
        if path.is_symlink() or not (path.is_dir() or path.is_file()):
            raise ToolError(path, "", "neither a file nor a folder", "Put ordinary files there.")
        if path.is_dir():
            continue
        size += path.stat().st_size
        if size > MOST_BYTES or len(found) >= MOST_FILES:
            raise ToolError(context, "", f"more than {MOST_FILES} files or {MOST_BYTES >> 20} MB", "Make it smaller.")
        found[path.relative_to(context).as_posix()] = path.read_bytes()
    return found


def _check_dockerfile(file: Path, files: Mapping[str, bytes]) -> None:
    text = files.get("Dockerfile")
    if text is None:
        raise ToolError(file, "", "missing", "Write one, or remove the folder.")
    lines = re.sub(r"\\[ \t]*\n", " ", text.decode("utf-8", "replace").replace("\r\n", "\n")).split("\n")
    seen: list[str] = []
    for number, line in enumerate(lines, 1):
        line = line.strip()
        if re.match(r"#\s*(syntax|escape|check)\s*=", line, re.IGNORECASE):
            raise ToolError(file, f"line {number}", "a parser directive", "Remove it.")
        if not line or line.startswith("#"):
            continue
        word = line.split(maxsplit=1)[0].upper()
        if word not in _INSTRUCTIONS:
            known = ", ".join(sorted(_INSTRUCTIONS))
            raise ToolError(file, f"line {number}", f"{word} is not allowed", f"Use {known}.")
        if re.match(r"\S+\s+--", line):
            raise ToolError(file, f"line {number}", f"{word} with an option", "Leave the option out.")
        if len(seen) < len(_START) and " ".join(line.split()) != _START[len(seen)]:
            raise ToolError(
                file, f"line {number}", f"not `{_START[len(seen)]}`", f"Begin with `{'`, `'.join(_START)}`."
            )
        if len(seen) >= len(_START) and word == "FROM":
            raise ToolError(file, f"line {number}", "a second FROM", "Build on the base image only.")
        seen.append(word)
    if len(seen) < len(_START):
        raise ToolError(file, "", "too short", _BEGIN)
