"""Gives a range of lines of a text file, at most MAX_CHARS of them at once, so that the answer is never cut."""

import collections
import gzip
import itertools
import json
import os
import sys

ROOT = os.path.realpath(os.getcwd())
MAX_CHARS = 12_000
MAX_LINE = 2_000


def fail(message):
    sys.exit(f"read_file: {message}")


def inside(path):
    full = os.path.realpath(os.path.join(ROOT, path))
    if full != ROOT and not full.startswith(ROOT + os.sep):
        fail(f"{path}: outside the workspace")
    if os.path.isdir(full):
        fail(f"{path}: a folder; use list_files")
    if not os.path.isfile(full):
        fail(f"{path}: no such file")
    return full


def opened(full):
    return gzip.open(full, "rb") if full.endswith(".gz") else open(full, "rb")


def shown(line):
    text = line.decode("utf-8", "replace").rstrip("\r\n")
    return text if len(text) <= MAX_LINE else f"{text[:MAX_LINE]} [... {len(text) - MAX_LINE} characters more]"


def main():
    arguments = json.load(sys.stdin)["arguments"]
    path, offset, limit = arguments["path"], arguments.get("offset", 1), arguments.get("limit", 200)
    full = inside(path)
    with opened(full) as file:
        if b"\0" in file.read(8192):
            fail(f"{path}: not a text file")
    wanted, total = [], 0
    with opened(full) as file:
        if offset < 0:
            last = collections.deque(maxlen=-offset)
            for line in file:
                total += 1
                last.append(line[: MAX_LINE * 4])
            first = max(1, total + offset + 1)
            wanted = list(itertools.islice(last, limit))
        else:
            first = max(1, offset)
            for total, line in enumerate(file, 1):
                if first <= total < first + limit:
                    wanted.append(line)
    lines, size = [], 0
    for line in map(shown, wanted):
        size += len(line) + 1
        if lines and size > MAX_CHARS:
            break
        lines.append(line)
    after = first + len(lines)
    print(
        json.dumps(
            {
                "path": path, "size": os.path.getsize(full), "total_lines": total, "offset": first, "lines": len(lines),
                "text": "\n".join(lines), "next_offset": after if after <= total else None,
            }
        )
    )  # fmt: skip


try:
    main()
except (OSError, EOFError) as error:
    fail(str(error))
