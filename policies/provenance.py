"""Where a value comes from: the operator, trusted data, outside content, or nowhere. Pure, deterministic, incremental.

Texts are taken in as they arrive (`operator_said`, `result`), so that asking is quick. A value is found only as a whole
token: an address inside a longer address is another address. Two things keep trust from being made up:

* A result lends no trust to what the call itself brought: `no contact evil@x.example found` vouches for nobody.
* A confirmation of a write (`ack`) vouches for the ids it gives and for nothing else.

Records (see policies.records) tell which values belong together. When a phrase of the operator is the whole value of a
field in exactly one record, or a query in the operator's words found exactly one record, its values are `named`.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal

from pydantic import JsonValue

from policies.corpus import Corpus
from policies.decision import Origin
from policies.quantities import moment, number
from policies.records import CAMEL, Record, is_id_field, parsed, records_of, scalar, top
from policies.words import is_plain, plain, words
from tools.contract import ArgumentRole, Trust

SHORT_HANDLE = 4
"""A handle shorter than this stands in any text by chance; it counts only where an id is expected."""
MIN_PHRASE = 4
"""Characters of the shortest phrase by which the operator can single out a record."""

MAX_FIGURES = 40
"""Figures an amount may be worked out of; with more, nearly any amount could be."""
_LARGEST = Decimal(10) ** 12

MAX_NEW_WORDS = 20
"""Words in one field of a confirmation that neither the call nor the operator brought; more is somebody's text."""

_PROPER = re.compile(r"(?<!\w)(?=\w*[^\W\d_])\w*[A-ZÀ-ÖØ-Þ]\w{2,}(?!\w)")
_PERCENT = re.compile(r"(?<![\w.,])(\d+(?:[.,]\d+)?)\s?(?:%|percent\b|per cent\b|prozent\b)")
_STATES = "true false none null confirmed pending active open closed sent received read unread yes"
_SAYS_NOTHING = frozenset(_STATES.split())


@dataclass
class Named:
    """Values of the records that the operator's words single out."""

    values: set[str] = field(default_factory=set[str])
    numbers: set[Decimal] = field(default_factory=set[Decimal])

    def add(self, key: str, value: JsonValue) -> None:
        """One scalar of such a record, with the name of its field; an id is no figure to count with."""
        amount = number(value)
        if amount is not None and not is_id_field(key):
            self.numbers.add(amount)
        text = scalar(value)
        if text:
            self.values.add(text)


class Sources:
    """Everything a run has seen, by who can have written it."""

    def __init__(self) -> None:
        self._operator = Corpus()
        self._own = Corpus()
        self._vendor = Corpus()
        self._outside = Corpus()
        self._own_named = Named()
        self._named = Named()
        self._figures: set[Decimal] = set()
        """Numbers of records that a name the operator uses singles out, field by field: weaker than `named`, so it
        is enough for an amount and never for an id."""
        self._proper: set[str] = set()
        """Names: words the operator wrote with a capital letter."""
        self._percents: set[Decimal] = set()
        self.tainted = False
        """Whether something that anybody may have written was read."""

    def operator_said(self, *texts: str) -> None:
        """What the requester or the author of the automation wrote."""
        for text in texts:
            self._operator.add(text)
            self._proper.update(plain(word) for word in _PROPER.findall(text))
            self._percents |= {rate for found in _PERCENT.findall(text) if (rate := number(found)) is not None}

    def result(self, trust: Trust, content: str, arguments: Iterable[JsonValue]) -> None:
        """What a call gave back, with the values of its arguments. Never raises."""
        brought = [value for value in arguments if scalar(value)]
        value = parsed(content)
        records = [] if value is None else records_of(value)
        if trust == "untrusted":
            self.tainted = True
            self._outside.add(content)
        elif trust == "ack":
            self._confirm(value if value is not None else content, records, brought)
            self._outside.add(content)
            return
        else:
            corpus = self._own if trust == "own" else self._vendor
            doubtful = [v for v in brought if self.origin("target", v) not in ("operator", "own_named", "own")]
            corpus.add(_without(content, doubtful))
            corpus.ids |= {text for r in records for k, v in r if is_id_field(k) and (text := scalar(v))}
            corpus.ids -= {scalar(v) for v in doubtful}
        named = self._own_named if trust == "own" else self._named
        for record in self._singled_out(value, records, brought):
            for key, item in record:
                if item not in brought:
                    named.add(key, item)
        if len(self._figures) < MAX_FIGURES:
            pointed = (field for record in self._pointed_at(records) for field in record if not is_id_field(field[0]))
            self._figures |= {amount for _, item in pointed if (amount := number(item)) is not None}

    def _confirm(self, value: JsonValue, records: Sequence[Record], brought: Sequence[JsonValue]) -> None:
        """Take the new ids of a confirmation as the organisation's own; long text that nobody vouched for taints."""
        for record in records:
            for key, item in record:
                if is_id_field(key) and item not in brought:
                    self._own_named.add(key, item)
        known = {word for item in brought for word in words(scalar(item))} | self._operator.words | self._own.words
        texts = [item for record in records for _, item in record] or [value]
        if any(len(set(words(scalar(text))) - known) > MAX_NEW_WORDS for text in texts):
            self.tainted = True

    def _singled_out(self, value: JsonValue, records: Sequence[Record], brought: Sequence[JsonValue]) -> list[Record]:
        """The records that the operator's own words name."""
        if len(top(value)) == 1 and brought and all(self._is_phrase(v) for v in brought if number(v) is None):
            return list(records)
        phrases: Counter[str] = Counter()
        for record in records:
            phrases.update({phrase for _, item in record if (phrase := self._phrase(item))})
        return [r for r in records if any((p := self._phrase(item)) and phrases[p] == 1 for _, item in r)]

    def _pointed_at(self, records: Sequence[Record]) -> list[Record]:
        """The records of which one field holds a name, or is a phrase, that the same field of no other record has."""
        marks = [
            {
                (key, mark)
                for key, item in record
                if isinstance(item, str) and len(item) <= 80
                for mark in self._marks(item)
            }
            for record in records
        ]
        counts = Counter(mark for found in marks for mark in found)
        return [
            record for record, found in zip(records, marks, strict=True) if any(counts[mark] == 1 for mark in found)
        ]

    def _marks(self, item: str) -> set[str]:
        phrase = self._phrase(item)
        return {word for word in words(plain(item)) if word in self._proper} | ({phrase} if phrase else set[str]())

    def _is_phrase(self, value: JsonValue) -> bool:
        """Whether a query is the operator's: a phrase of theirs that is more than one short word."""
        text = scalar(value)
        distinct = len(text) > MIN_PHRASE + 1 or " " in text
        return distinct and (self._operator.has(text) or self._operator.has_moment(text))

    def _phrase(self, value: JsonValue) -> str | None:
        """The value as a phrase of the operator's, when it is one; a file name counts without its ending too."""
        if not isinstance(value, str) or not MIN_PHRASE <= len(value) <= 200:
            return None
        text = plain(value)
        if text in _SAYS_NOTHING or not any(c.isalpha() for c in text):
            return None
        if self._operator.has(text):
            return text
        bare = " ".join(words(re.sub(r"\.[a-z0-9]{1,5}$", "", text)))
        return bare if len(bare) > MIN_PHRASE and " " in bare and self._operator.has(bare) else None

    # ------------------------------------------------------------ questions

    def origin(self, role: ArgumentRole, value: JsonValue, name: str = "") -> Origin:
        """Where one scalar value stands best. `name` is the argument's own name, such as `event_id`."""
        text = scalar(value)
        match role:
            case "quantity":
                return self._quantity(value, text)
            case "content":
                return self._content(text)
            case "handle" if len(text) < SHORT_HANDLE and is_plain(text):
                return self._short_handle(text, name)
            case "target" if len(text) < SHORT_HANDLE and text.isdigit():
                return self._short_handle(text, name)
            case _:
                if isinstance(value, str) and not is_plain(value):
                    return "unknown"
                return self._token(text) if text else "unknown"

    def _token(self, text: str) -> Origin:
        """An address, an account, a long id: whole tokens only."""
        if self._operator.has_target(text):
            return "operator"
        if text in self._own_named.values:
            return "own_named"
        if self._own.has_target(text):
            return "own"
        if text in self._named.values:
            return "named"
        if self._vendor.has_target(text):
            return "vendor"
        return "untrusted" if self._outside.has_target(text) else "unknown"

    def _short_handle(self, text: str, name: str) -> Origin:
        """A short id: in the operator's words beside a word for what it is, in data as all of an id field's value."""
        if any(re.search(_mention(text, name), said) for said in self._operator.texts):
            return "operator"
        if text in self._own_named.values:
            return "own_named"
        if text in self._own.ids:
            return "own"
        if text in self._named.values:
            return "named"
        if text in self._vendor.ids:
            return "vendor"
        return "untrusted" if self._outside.has(text) else "unknown"

    def _quantity(self, value: JsonValue, text: str) -> Origin:
        amount = number(value)
        if amount is None and (not isinstance(value, str) or moment(value) is None):
            return self._token(text) if isinstance(value, str) and is_plain(value) else "unknown"

        def there(corpus: Corpus) -> bool:
            return amount in corpus.numbers if amount is not None else corpus.has_moment(text)

        def among(named: Named) -> bool:
            return amount in named.numbers if amount is not None else text in named.values

        def worked_out() -> bool:
            return amount is not None and self._can_be_worked_out(amount)

        if there(self._operator):
            return "operator"
        if among(self._own_named):
            return "own_named"
        if there(self._own):
            return "own"
        if among(self._named) or worked_out():
            return "named"
        if there(self._vendor):
            return "vendor"
        return "untrusted" if there(self._outside) else "unknown"

    def _can_be_worked_out(self, amount: Decimal) -> bool:
        """Whether an amount is a figure the operator points at, or follows from such figures and the operator's own
        numbers: a sum, a difference, a percentage the operator wrote, and that with a fee."""
        named = self._own_named.numbers | self._named.numbers | self._figures
        if amount in named:
            return True
        figures = named | (self._operator.numbers - self._percents)
        if not amount.is_finite() or len(figures) > MAX_FIGURES or any(abs(n) > _LARGEST for n in (*figures, amount)):
            return False
        shares = {a * p / 100 for a in figures for p in self._percents}
        parts = figures | shares
        sums = {a + b for a in parts for b in figures} | {abs(a - b) for a in parts for b in figures}
        cent = Decimal("0.005")
        return amount > 0 and any(abs(amount - found) <= cent for found in shares | sums)

    def _content(self, text: str) -> Origin:
        """Free text comes from where all of its words do; word by word, because text is rephrased."""
        used = set(words(text))
        known: set[str] = set()
        steps: tuple[tuple[Origin, Corpus], ...] = (
            ("operator", self._operator), ("own", self._own), ("vendor", self._vendor), ("untrusted", self._outside),
        )  # fmt: skip
        for origin, corpus in steps:
            known |= used & corpus.words
            if known == used:
                return origin
        return "unknown"


def _mention(text: str, name: str) -> str:
    """`id 24`, `#24`, `event 24`, `Nr. 24`: the id beside a word that says what it is."""
    kinds = {"id", "ids", "no", "nr", "num", "number", "nummer", "numéro", "número", "key", "code", "ref"}
    kinds |= {word for word in words(CAMEL.sub("_", name).lower().replace("_", " ")) if len(word) > 1}
    either = "|".join(sorted(map(re.escape, kinds), key=len, reverse=True))
    return rf"(?:(?:\b|(?<=_))(?:{either})s?\b[^0-9a-z]{{0,6}}|[#№]\s?|n°\s?){re.escape(text)}(?![\w-]|[.,:]\w)"


def _without(content: str, values: Sequence[JsonValue]) -> str:
    """The content without what the call itself brought."""
    content = plain(content)
    for text in sorted({scalar(v) for v in values}, key=len, reverse=True):
        if len(text) > 1:
            content = content.replace(text, " | ")
    return content
