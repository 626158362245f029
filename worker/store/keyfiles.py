"""Secret files of the installation (mode 0600 in a folder of mode 0700), made once however many processes start."""

import os
import secrets
import stat
from collections.abc import Callable
from pathlib import Path


class KeyFileUnsafe(Exception):  # noqa: N818  (says what is the case)
    """A secret file can be read by others than its owner."""


def read_or_create(path: Path, make: Callable[[], bytes]) -> bytes:
    """The secret in `path`; made by `make` when the file is not there. All processes get the same bytes.

    Raises KeyFileUnsafe when group or others may read the file, OSError when it cannot be read or made.
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    if not path.exists():
        _create_once(path, make())
    if path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise KeyFileUnsafe(f"{path} can be read by others: chmod 600 {path}")
    return path.read_bytes()


def publish(path: Path, data: bytes) -> None:
    """Write a file that everybody may read, complete or not at all; the last writer wins."""
    partial = _written(path, data, 0o644)
    partial.replace(path)


def replace(path: Path, data: bytes) -> None:
    """Put another secret in the place of one, complete or not at all."""
    _written(path, data, 0o600).replace(path)
    _flush_folder(path.parent)


def _create_once(path: Path, data: bytes) -> None:
    """A hard link fails when the name is taken, so of several processes exactly one names its file, whole."""
    partial = _written(path, data, 0o600)
    try:
        os.link(partial, path)
    except FileExistsError:
        pass  # another process was first: its secret counts
    finally:
        partial.unlink()
    _flush_folder(path.parent)


def _flush_folder(path: Path) -> None:
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _written(path: Path, data: bytes, mode: int) -> Path:
    partial = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    with open(partial, "xb", opener=lambda name, flags: os.open(name, flags, mode)) as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    return partial
