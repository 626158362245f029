"""Deletes exactly the named regular files, after all of them passed the check."""

import json
import os
import stat
import sys

ROOT = os.path.realpath(os.getcwd())


def fail(message):
    sys.exit(f"delete_files: {message}")


def checked(path):
    """Full path and size of a regular file inside the workspace."""
    full = os.path.normpath(os.path.join(ROOT, path))
    folder = os.path.realpath(os.path.dirname(full))
    if "\0" in path or (folder != ROOT and not folder.startswith(ROOT + os.sep)) or full == ROOT:
        fail(f"{path}: outside the workspace; nothing was deleted")
    full = os.path.join(folder, os.path.basename(full))
    try:
        status = os.lstat(full)
    except FileNotFoundError:
        fail(f"{path}: no such file; nothing was deleted")
    if not stat.S_ISREG(status.st_mode):
        fail(f"{path}: not a regular file; nothing was deleted")
    return full, status.st_size


def main():
    paths = json.load(sys.stdin)["arguments"]["paths"]
    found = {path: checked(path) for path in paths}
    deleted = []
    for path, (full, size) in found.items():
        try:
            os.unlink(full)
        except OSError as error:
            done = ", ".join(file["path"] for file in deleted) or "none"
            fail(f"{path}: {error.strerror}; deleted before it: {done}")
        deleted.append({"path": path, "size": size})
    print(json.dumps({"deleted": deleted, "count": len(deleted), "freed_bytes": sum(f["size"] for f in deleted)}))


main()
