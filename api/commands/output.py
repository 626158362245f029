"""How results and progress are printed: data on stdout, progress on stderr, and nothing that could steer a terminal.

Much of what is shown was written by a model or found in a file, so control characters never reach the terminal raw.
"""

import json
import os
import shutil
import sys
import unicodedata
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, TextIO, cast

_HIDDEN = {"Cc", "Cf", "Co", "Cs", "Zl", "Zp"}
_COLOURS = {"red": "31", "green": "32", "yellow": "33", "blue": "34", "dim": "2", "bold": "1"}
GOOD = {"allow", "succeeded", "approved", "ok", "approve"}
BAD = {"deny", "denied", "failed", "expired", "fail", "unknown", "cancelled"}
ATTENTION = {"ask", "awaiting_approval", "awaiting_human", "pending", "warn", "frozen"}


def visible(text: object, *, lines: bool = False) -> str:
    """The text with control, format and direction characters written as escapes; `lines` keeps line breaks."""
    kept = "\n" if lines else ""
    return "".join(
        c if c in kept or unicodedata.category(c) not in _HIDDEN else c.encode("unicode_escape").decode()
        for c in str(text)
    )


def coloured(stream: TextIO) -> bool:
    """Whether colour is welcome there (a terminal, and NO_COLOR unset)."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def paint(text: str, colour: str, stream: TextIO | None = None) -> str:
    """The text in that colour where colour is welcome."""
    return f"\033[{_COLOURS[colour]}m{text}\033[0m" if colour and coloured(stream or sys.stdout) else text


def shade(word: str) -> str:
    """The colour of a verdict, state or outcome; empty for others."""
    return "green" if word in GOOD else "red" if word in BAD else "yellow" if word in ATTENTION else ""


def say(line: str) -> None:
    """One line of progress, on stderr."""
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


def put(text: str) -> None:
    """One piece of the result, on stdout."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def put_json(value: Any) -> None:
    """The result as JSON, on stdout."""
    put(json.dumps(value, indent=2, ensure_ascii=not sys.stdout.isatty()))


def put_table(columns: Sequence[str], rows: Sequence[Sequence[object]], empty: str) -> None:
    """Aligned columns on stdout, the last one cut to fit a terminal; without rows, `empty` on stderr."""
    if not rows:
        say(empty)
        return
    cells = [[visible("" if v is None else v) for v in row] for row in rows]
    widths = [max(len(columns[i]), *(len(row[i]) for row in cells)) for i in range(len(columns))]
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else 0
    put(paint("  ".join(c.upper().ljust(w) for c, w in zip(columns, widths, strict=True)).rstrip(), "bold"))
    for row in cells:
        shown = [c.ljust(w) for c, w in zip(row, widths, strict=True)]
        room = width - sum(len(s) + 2 for s in shown[:-1])
        if width and room > 10:
            shown[-1] = row[-1] if len(row[-1]) <= room else row[-1][: room - 1] + "…"
        put("  ".join(paint(s, shade(c)) for s, c in zip(shown, row, strict=True)).rstrip())


def put_fields(fields: Sequence[tuple[str, object]]) -> None:
    """Name and value, one a line, on stdout; a list as its items, empty values are left out."""
    width = max((len(name) for name, value in fields if value not in (None, "")), default=0)
    for name, value in fields:
        if value not in (None, ""):
            items = cast("list[object]", value) if isinstance(value, list) else [value]
            text = visible(", ".join(map(str, items)) or "(none)")
            put(f"{paint(name.ljust(width), 'dim')}  {paint(text, shade(text))}")


def pretty(value: Any) -> str:
    """JSON for people: indented, escapes kept where a terminal could be steered."""
    return visible(json.dumps(value, indent=2, ensure_ascii=False), lines=True)


def moment(text: str | None) -> str:
    """An ISO time as local time to the second."""
    if not text:
        return ""
    try:
        return datetime.fromisoformat(text).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    except ValueError:
        return text


def until(text: str | None) -> str:
    """A deadline with the time left: `2026-11-23 10:00:00 (in 23 h 59 min)`."""
    if not text:
        return ""
    try:
        left = (datetime.fromisoformat(text) - datetime.now(UTC)).total_seconds()
    except (ValueError, TypeError):
        return text
    return f"{moment(text)} ({'in ' + span(left) if left > 0 else 'over'})"


def span(seconds: float) -> str:
    """A duration in the two largest units that matter."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, hours = int(seconds // 60), int(seconds // 3600)
    if hours >= 48:
        return f"{hours // 24} d {hours % 24} h"
    return f"{hours} h {minutes % 60} min" if hours else f"{minutes} min {int(seconds % 60)} s"
