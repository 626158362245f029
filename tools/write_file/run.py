"""Writes one file, whole or not at all. Writing the same twice gives the same, so the call is safe to repeat."""

import hashlib
import json
import os
import sys

ROOT = os.path.realpath(os.getcwd())


def fail(message):
    sys.exit(f"write_file: {message}")


def inside(path):
    if "\0" in path or path.endswith("/"):
        fail(f"{path!r}: not a file name")
    full = os.path.normpath(os.path.join(ROOT, path))
    # The folders on the way may be symbolic links: judge where they lead.
    folder = os.path.realpath(os.path.dirname(full))
    if full == ROOT or (folder != ROOT and not folder.startswith(ROOT + os.sep)):
        fail(f"{path}: outside the workspace")
    full = os.path.join(folder, os.path.basename(full))
    if full == os.path.join(ROOT, "in") or full.startswith(os.path.join(ROOT, "in") + os.sep):
        fail(f"{path}: input files cannot be changed; write under out/")
    if os.path.islink(full) or os.path.isdir(full):
        fail(f"{path}: is a folder or a symbolic link")
    return full


def main():
    arguments = json.load(sys.stdin)["arguments"]
    path, content = arguments["path"], arguments["content"].encode("utf-8", "replace")
    full = inside(path)
    existed = os.path.exists(full)
    os.makedirs(os.path.dirname(full), exist_ok=True)
    aside = os.path.join(os.path.dirname(full), f".{os.path.basename(full)[:100]}.part")
    with open(aside, "wb", opener=lambda name, flags: os.open(name, flags | os.O_NOFOLLOW, 0o644)) as file:
        file.write(content)
    os.replace(aside, full)
    answer = {"path": os.path.relpath(full, ROOT), "size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    print(json.dumps({**answer, "replaced": existed}))


try:
    main()
except OSError as error:
    fail(str(error))
