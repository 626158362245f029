"""Counts and samples the lines that match a regular expression, with the shape that log triage needs.

An expression that never ends is ended by the box's time limit.
"""

import collections
import gzip
import json
import os
import re
import sys

ROOT = os.path.realpath(os.getcwd())
MAX_FILES = 1000
MAX_LINE = 8_000
SHOWN = 300
TOP = 10
MAX_KINDS = 5_000
MAX_HOURS = 72

LEVEL = re.compile(r"\b(FATAL|CRITICAL|CRIT|ERROR|ERR|WARNING|WARN|NOTICE|INFO|DEBUG|TRACE)\b", re.IGNORECASE)
SAME_LEVEL = {"CRIT": "CRITICAL", "ERR": "ERROR", "WARNING": "WARN"}
# ISO dates, web server dates, syslog dates: down to the hour.
HOUR = re.compile(r"(\d{4}-\d\d-\d\d)[T ](\d\d)|(\d\d/[A-Z][a-z]{2}/\d{4}):(\d\d)|([A-Z][a-z]{2} [ \d]\d) (\d\d):\d\d")
STAMP = re.compile(r"^\W*(?:\d{4}-\d\d-\d\d[T ]|[A-Z][a-z]{2} [ \d]\d )[\d:.,]+(?:Z|[+-]\d\d:?\d\d)?\W*")
VARIABLE = re.compile(r"0x[0-9a-fA-F]+|\b[0-9a-fA-F]{8,}\b|\b[0-9a-fA-F-]{36}\b|\d+")


def fail(message):
    sys.exit(f"search_text: {message}")


def inside(path):
    full = os.path.realpath(os.path.join(ROOT, path))
    if full != ROOT and not full.startswith(ROOT + os.sep):
        fail(f"{path}: outside the workspace")
    if not os.path.exists(full):
        fail(f"{path}: no such file or folder")
    return full


def files_of(full):
    if os.path.isfile(full):
        return [full]
    found = []
    for folder, folders, names in os.walk(full):
        folders.sort()
        for name in sorted(names):
            path = os.path.join(folder, name)
            if os.path.isfile(path) and not os.path.islink(path):
                found.append(path)
    return found


def hour_of(line):
    found = HOUR.search(line[:200])
    if not found:
        return None
    day, hour = next(pair for pair in zip(found.groups()[::2], found.groups()[1::2], strict=True) if pair[0])
    return f"{day} {hour}h"


def level_of(line):
    found = LEVEL.search(line)
    if not found:
        return "OTHER"
    word = found.group(1).upper()
    return SAME_LEVEL.get(word, word)


class Summary:
    def __init__(self, samples):
        self.matches = 0
        self.levels = collections.Counter()
        self.hours = collections.Counter()
        self.kinds = {}
        self.samples = []
        self.wanted = samples
        self.first = self.last = None

    def add(self, path, number, line):
        self.matches += 1
        self.levels[level_of(line)] += 1
        hour = hour_of(line)
        if hour:
            self.hours[hour] += 1
        if self.first is None:
            self.first = line[:SHOWN]
        self.last = line[:SHOWN]
        kind = VARIABLE.sub("#", STAMP.sub("", line))[:SHOWN]
        if kind in self.kinds:
            self.kinds[kind]["count"] += 1
        elif len(self.kinds) < MAX_KINDS:
            # The first line of each kind of message makes a better sample than more of the same.
            self.kinds[kind] = {"count": 1, "path": path, "line": number, "example": line[:SHOWN]}
            if len(self.samples) < self.wanted:
                self.samples.append({"path": path, "line": number, "text": line[:SHOWN]})


def search(full, path, expression, summary):
    opened = gzip.open if full.endswith(".gz") else open
    lines = matches = 0
    with opened(full, "rb") as file:
        if b"\0" in file.read(8192):
            return None
    with opened(full, "rb") as file:
        for lines, raw in enumerate(file, 1):
            line = raw[:MAX_LINE].decode("utf-8", "replace").rstrip("\r\n")
            if expression.search(line):
                matches += 1
                summary.add(path, lines, line)
    return {"path": path, "lines": lines, "matches": matches}


def main():
    arguments = json.load(sys.stdin)["arguments"]
    try:
        expression = re.compile(arguments["pattern"], re.IGNORECASE if arguments.get("ignore_case") else 0)
    except re.error as error:
        fail(f"pattern: {error}")
    summary = Summary(arguments.get("samples", 20))
    files, skipped = [], []
    found = files_of(inside(arguments.get("path", "in")))
    for full in found[:MAX_FILES]:
        path = os.path.relpath(full, ROOT).encode(errors="replace").decode()
        try:
            counted = search(full, path, expression, summary)
        except (OSError, EOFError) as error:
            skipped.append({"path": path, "reason": str(error)})
            continue
        if counted is None:
            skipped.append({"path": path, "reason": "not a text file"})
        else:
            files.append(counted)
    top = sorted(summary.kinds.values(), key=lambda kind: -kind["count"])[:TOP]
    print(
        json.dumps(
            {
                "pattern": arguments["pattern"],
                "matches": summary.matches,
                "lines": sum(file["lines"] for file in files),
                "files": sorted(files, key=lambda file: -file["matches"])[:50],
                "by_level": dict(summary.levels.most_common()),
                "by_hour": dict(sorted(summary.hours.items())[-MAX_HOURS:]),
                "top": top,
                "samples": summary.samples,
                "first": summary.first,
                "last": summary.last,
                "skipped": [*skipped[:20], *([{"path": "...", "reason": "more files"}] if found[MAX_FILES:] else [])],
            }
        )
    )


main()
