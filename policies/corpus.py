"""All text of one kind of source, kept in the forms in which values are looked up. Pure, incremental."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal

from policies.quantities import Day, clocks, days, moment, numbers, same_day
from policies.words import compact, plain, spellings, stands_in, words

MAX_CORPUS = 1 << 20
"""Characters kept of one kind of source. What is beyond cannot vouch for a value; never the other way round."""

_PIECE = re.compile(r"[^\W_]+|[^\w ./()+-]|_")
LONGEST_ACCOUNT = 64


@dataclass
class Corpus:
    """All text of one kind of source, in the forms values are looked up in."""

    texts: list[str] = field(default_factory=list[str])
    whole: str = ""
    """The texts in one, put together when first asked for."""
    words: set[str] = field(default_factory=set[str])
    numbers: set[Decimal] = field(default_factory=set[Decimal])
    days: set[Day] = field(default_factory=set[Day])
    clocks: set[str] = field(default_factory=set[str])
    compacts: set[str] = field(default_factory=set[str])
    ids: set[str] = field(default_factory=set[str])
    """Whole values of fields whose name says that they hold an id."""
    size: int = 0

    def add(self, text: str) -> None:
        """Take a text in; what does not fit any more is left out."""
        text = plain(text[: max(0, MAX_CORPUS - self.size)])
        if not text:
            return
        self.size += len(text)
        self.texts.append(text)
        self.whole = ""
        self.words.update(words(text))
        if any(c.isdigit() for c in text):
            self.numbers |= numbers(text)
            self.days |= days(text)
            self.clocks |= clocks(text)
            self.compacts.update(_grouped(text))

    def has(self, value: str) -> bool:
        """Whether a value in plain form stands here as a whole token or phrase."""
        if any(word not in self.words for word in words(value)) and not _is_unspaced(value):
            return False
        if not self.whole:
            self.whole = "\n".join(self.texts)
        return stands_in(value, self.whole)

    def has_target(self, value: str) -> bool:
        """As `has`, in any spelling that leads to the same place."""
        if any(self.has(spelling) for spelling in spellings(value)):
            return True
        bare = compact(value)
        return _is_account(bare) and (bare in self.compacts or (bare != value and self.has(bare)))

    def has_moment(self, value: str) -> bool:
        """Whether a date, or a date with a time of day, stands here in any spelling."""
        found = moment(value)
        if found is None:
            return False
        day, time = found
        return same_day(day, self.days) and (time is None or time == "00:00" or time in self.clocks)


def _is_unspaced(value: str) -> bool:
    return not value.isascii() and len(words(value)) == 1


def _grouped(text: str) -> Iterator[str]:
    """Numbers written in groups, put together: `DE89 3704 0044`, `+49 (170) 123-4567`. Every group holds a digit."""
    run: list[str] = []
    for piece in (*_PIECE.findall(text), ""):
        if any(c.isdigit() for c in piece):
            run.append(piece)
        else:
            if len(run) > 1:
                yield "".join(run)
            run = []


def _is_account(bare: str) -> bool:
    """Letters and digits that people write in groups: at least 8, at least 6 of them digits."""
    return 8 <= len(bare) <= LONGEST_ACCOUNT and sum(c.isdigit() for c in bare) >= 6
