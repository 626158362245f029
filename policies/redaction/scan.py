"""What all detectors share: RE2 over the bytes of a text, findings, and how findings are taken out.

Everything is matched with RE2, so no input can make it slow: bytes as Latin-1, because the shapes are ASCII and the
automata are then small. A detector says where; a check in Python says whether, only for what matched.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple, Protocol, cast

import re2  # pyright: ignore[reportMissingTypeStubs]

_MEMORY = 64 << 20


class Finding(NamedTuple):
    """Bytes `start` to `end` hold something of this kind."""

    start: int
    end: int
    kind: str


Detector = Callable[[bytes], Iterable[Finding]]


class Match(Protocol):
    """As of the module `re`, on bytes."""

    def start(self, group: int = 0) -> int: ...  # noqa: D102
    def end(self, group: int = 0) -> int: ...  # noqa: D102
    def span(self, group: int = 0) -> tuple[int, int]: ...  # noqa: D102
    def group(self, group: int = 0) -> bytes | None: ...  # noqa: D102
    def groups(self) -> tuple[bytes | None, ...]: ...  # noqa: D102


class Pattern(Protocol):
    """As of the module `re`, on bytes."""

    def search(self, text: bytes, pos: int = 0) -> Match | None: ...  # noqa: D102
    def fullmatch(self, text: bytes) -> Match | None: ...  # noqa: D102
    def match(self, text: bytes) -> Match | None: ...  # noqa: D102
    def finditer(self, text: bytes) -> Iterator[Match]: ...  # noqa: D102


def compiled(pattern: str) -> Pattern:
    """RE2 of `pattern`, for bytes."""
    options = re2.Options()
    options.encoding = re2.Options.Encoding.LATIN1  # pyright: ignore[reportUnknownMemberType]
    options.max_mem = _MEMORY
    options.log_errors = False
    return cast("Pattern", re2.compile(pattern.encode("latin-1"), options=options))  # pyright: ignore[reportUnknownMemberType]


def escaped(data: bytes) -> str:
    """`data` as a pattern that matches just it."""
    return cast("bytes", re2.escape(data)).decode("latin-1")  # pyright: ignore[reportUnknownMemberType]


def encoded(text: str) -> bytes:
    """UTF-8, also of lone surrogates, so that any text can be scanned."""
    return text.encode("utf-8", "surrogatepass")


def decoded(data: bytes) -> str:
    """The inverse of `encoded`."""
    return data.decode("utf-8", "surrogatepass")


def gated(gate: Pattern, detectors: Iterable[Detector]) -> Detector:
    """The detectors, asked only about the lines where `gate` matches and those after: most text is passed over.

    The gate must match wherever one of them could.
    """
    asked = tuple(detectors)

    def find(data: bytes) -> Iterator[Finding]:
        reach = _REACH
        while True:
            parts = _windows(gate, data, reach)
            findings, cut = _asked(asked, data, parts)
            if not cut:
                yield from findings
                return
            reach *= 16  # something goes on beyond its window

    return find


_BEFORE, _REACH = 240, 1024


def _windows(gate: Pattern, data: bytes, reach: int) -> list[tuple[int, int]]:
    """Where the gate matches: from the start of the line, or near, to the end of the next line, or `reach` bytes."""
    parts: list[tuple[int, int]] = []
    size, at = len(data), 0
    while at < size and (match := gate.search(data, at)) is not None:
        first, last = match.span()
        start = max(first - _BEFORE, 0)
        start = max(data.rfind(b"\n", start, first) + 1, start)
        limit = min(last + reach, size)
        stop = data.find(b"\n", last, limit)
        stop = data.find(b"\n", stop + 1, limit) if stop >= 0 else -1  # a value may stand on the line after its name
        stop = limit if stop < 0 else stop
        if parts and start <= parts[-1][1]:
            parts[-1] = (parts[-1][0], max(stop, parts[-1][1]))
        else:
            parts.append((start, stop))
        at = max(stop, at + 1)
    return parts


def _asked(detectors: tuple[Detector, ...], data: bytes, parts: list[tuple[int, int]]) -> tuple[list[Finding], bool]:
    """What they find in these parts, and whether a finding ended where its part was cut."""
    if not parts:
        return [], False
    if len(parts) == 1 and parts[0] == (0, len(data)):
        return [finding for detector in detectors for finding in detector(data)], False
    joined = b"\n".join(data[start:stop] for start, stop in parts)
    starts: list[int] = []
    at = 0
    for start, stop in parts:
        starts.append(at)
        at += stop - start + 1
    findings: list[Finding] = []
    for detector in detectors:
        for found in detector(joined):
            number = bisect_right(starts, found.start) - 1
            start, stop = parts[number]
            shift = start - starts[number]
            end = min(found.end + shift, stop)
            if end == stop and stop < len(data) and data[stop : stop + 1] != b"\n":
                return [], True
            findings.append(Finding(found.start + shift, end, found.kind))
    return findings, False


def merged(findings: Iterable[Finding]) -> list[Finding]:
    """In order, without overlap, and never cutting a character: of two that overlap one covers both."""
    done: list[Finding] = []
    for finding in sorted(findings, key=lambda found: (found.start, -found.end)):
        if done and finding.start < done[-1].end:
            if finding.end > done[-1].end:
                kind = "secret" if "secret" in (finding.kind, done[-1].kind) else done[-1].kind
                done[-1] = Finding(done[-1].start, finding.end, kind)
        else:
            done.append(finding)
    return done


def whole(data: bytes, findings: Iterable[Finding]) -> Iterator[Finding]:
    """The findings, widened to whole characters."""
    for start, end, kind in findings:
        while start > 0 and data[start] & 0xC0 == 0x80:
            start -= 1
        while end < len(data) and data[end] & 0xC0 == 0x80:
            end += 1
        yield Finding(start, end, kind)


def replaced(data: bytes, findings: Iterable[Finding], by: Callable[[Finding], bytes]) -> bytes:
    """`data` with each finding (merged, in order) replaced."""
    parts: list[bytes] = []
    at = 0
    for finding in findings:
        parts += (data[at : finding.start], by(finding))
        at = finding.end
    return b"".join((*parts, data[at:])) if parts else data
