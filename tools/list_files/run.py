"""Lists files below a folder of the workspace; symbolic links are named but never followed."""

import fnmatch
import json
import os
import sys
import time

ROOT = os.path.realpath(os.getcwd())


def fail(message):
    sys.exit(f"list_files: {message}")


def inside(path):
    full = os.path.realpath(os.path.join(ROOT, path))
    if full != ROOT and not full.startswith(ROOT + os.sep):
        fail(f"{path}: outside the workspace")
    return full


def walk(folder):
    """Yields (path below the folder, entry), depth first in order of names."""
    for entry in sorted(os.scandir(folder), key=lambda e: e.name):
        yield entry
        if entry.is_dir(follow_symlinks=False):
            try:
                yield from walk(entry.path)
            except OSError:
                continue


def main():
    arguments = json.load(sys.stdin)["arguments"]
    path = arguments.get("path", ".")
    pattern = arguments.get("pattern", "*")
    limit = arguments.get("limit", 100)
    folder = inside(path)
    if not os.path.isdir(folder):
        fail(f"{path}: no such folder")
    files, count, total, links = [], 0, 0, 0
    for entry in walk(folder):
        below = os.path.relpath(entry.path, folder)
        if not fnmatch.fnmatchcase(below, pattern):
            continue
        if entry.is_symlink():
            links += 1
        elif entry.is_file(follow_symlinks=False):
            status = entry.stat(follow_symlinks=False)
            count += 1
            total += status.st_size
            if len(files) < limit:
                name = os.path.relpath(entry.path, ROOT).encode(errors="replace").decode()
                modified = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(status.st_mtime))
                files.append({"path": name, "size": status.st_size, "modified": modified})
    answer = {"files": files, "count": count, "total_bytes": total, "truncated": count > len(files)}
    if links:
        answer["symlinks_ignored"] = links
    print(json.dumps(answer))


main()
