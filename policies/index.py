"""Narrows the policy's rows to those that can match one call, so that Casbin need not look at each of 10,000.

The index never decides: it hands Casbin a superset of the rows that match, in the policy's order, and Casbin's matcher
judges each of them again. Part of an immutable snapshot; safe to use from many threads.
"""

import re
import threading
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import cast

from typing_extensions import override

from policies.glob import any_glob

Cell = str | int | tuple[str, ...] | frozenset[str]
Row = list[Cell]

FIELDS = ("priority", "roles", "tenant", "automations", "tools", "effects", "when", "eft", "verdict", "id")
"""The columns of a row, as `model.conf` declares them."""
_ROLES, _TENANT, _AUTOMATIONS, _TOOLS, _EFFECTS = (FIELDS.index(f) for f in FIELDS[1:6])
_WILD = re.compile(r"[*?]")


class NarrowedRows(list[Row]):
    """A policy's list of rows that shows each thread only the candidates of the call it is deciding.

    Without candidates a thread sees all rows.
    """

    def __init__(self, rows: Iterable[Row]) -> None:
        super().__init__(rows)
        self._local = threading.local()

    def narrow(self, candidates: Sequence[Row] | None) -> None:
        """Show this thread only these rows; all again with None."""
        self._local.rows = candidates

    @property
    def _shown(self) -> Sequence[Row] | None:
        return cast("Sequence[Row] | None", getattr(self._local, "rows", None))

    @override
    def __iter__(self) -> Iterator[Row]:
        shown = self._shown
        return super().__iter__() if shown is None else iter(shown)

    @override
    def __len__(self) -> int:
        shown = self._shown
        return super().__len__() if shown is None else len(shown)

    @override
    def __getitem__(self, at: int, /) -> Row:  # pyright: ignore[reportIncompatibleMethodOverride]  (Casbin never slices)
        shown = self._shown
        return super().__getitem__(at) if shown is None else shown[at]


class RowIndex:
    """Finds the candidates of a call by the literal parts of the rows' patterns."""

    def __init__(self, rows: Sequence[Row], sentinel: Row) -> None:
        """`rows` in the policy's order. `sentinel` matches nobody and ends every list of candidates: without it an
        empty list would be an empty policy, which Casbin allows."""
        self._rows = rows
        self._sentinel = sentinel
        exact: defaultdict[tuple[str, str], list[int]] = defaultdict(list)
        prefix: defaultdict[tuple[str, str], list[int]] = defaultdict(list)
        rest: defaultdict[tuple[str, str, str], list[int]] = defaultdict(list)
        for at, row in enumerate(rows):
            [tenant] = cast("tuple[str]", row[_TENANT])
            for pattern in cast("tuple[str, ...]", row[_TOOLS]):
                wild = _WILD.search(pattern)
                if wild is None:
                    exact[tenant, pattern].append(at)
                elif wild.start():
                    prefix[tenant, pattern[: wild.start()]].append(at)
                else:
                    for automation in _literal(cast("tuple[str, ...]", row[_AUTOMATIONS])):
                        for role in cast("frozenset[str]", row[_ROLES]):
                            rest[tenant, automation, role].append(at)
        self._exact, self._prefix, self._rest = dict(exact), dict(prefix), dict(rest)
        self._lengths = tuple(sorted({len(found) for _, found in prefix}))

    def candidates(
        self, roles: frozenset[str], tenant: str, automation: str, tool: str, effect: str
    ) -> tuple[Row, ...]:
        """Every row whose roles, tenant, patterns and effects fit the call, in the policy's order, and the sentinel."""
        found: set[int] = set()
        for dom in (tenant, "*"):
            found.update(self._exact.get((dom, tool), ()))
            for length in self._lengths:
                if length > len(tool):
                    break
                found.update(self._prefix.get((dom, tool[:length]), ()))
            for role in roles:
                found.update(self._rest.get((dom, automation, role), ()))
                found.update(self._rest.get((dom, "*", role), ()))
        rows = (self._rows[at] for at in sorted(found))
        fitting = [row for row in rows if _fits(row, roles, automation, tool, effect)]
        return (*fitting, self._sentinel)


def _literal(patterns: tuple[str, ...]) -> Iterable[str]:
    """The names, when all patterns are names; else `*`."""
    return ("*",) if any(map(_WILD.search, patterns)) else set(patterns)


def _fits(row: Row, roles: frozenset[str], automation: str, tool: str, effect: str) -> bool:
    return (
        effect in cast("frozenset[str]", row[_EFFECTS])
        and not roles.isdisjoint(cast("frozenset[str]", row[_ROLES]))
        and any_glob(tool, cast("tuple[str, ...]", row[_TOOLS]))
        and any_glob(automation, cast("tuple[str, ...]", row[_AUTOMATIONS]))
    )
