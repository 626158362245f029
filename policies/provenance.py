"""Where a value comes from: the operator, trusted data, outside content, or nowhere. Pure, deterministic, incremental.

Texts are taken in when they arrive (`Sources.operator_said`, `Sources.result`), so that asking is quick. A value is found only as
a whole token: an address inside a longer address is another address. Two things keep trust from being made up:

* A result lends no trust to what the call itself brought: `no contact evil@x.example found` vouches for nobody.
* A confirmation of a write (`ack`) vouches for the ids it gives and for nothing else.

Records (JSON objects of a result) tell which values belong together. When a phrase of the operator is the whole value of
a field in exactly one record, or a query in the operator's words found exactly one record, the values of that record
are `named`. Field boundaries are the tool's own, so text inside a field cannot forge a record.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal

from pydantic import JsonValue

from policies.decision import Origin
from policies.quantities import clocks, days, moment, number, numbers, same_day
from policies.words import compact, is_plain, plain, spellings, stands_in, words
from tools.contract import ArgumentRole, Trust

MAX_CORPUS = 1 << 20
"""Characters kept of one kind of source. What is beyond cannot vouch for a value; never the other way round."""
MAX_RECORDS = 2000
SHORT_HANDLE = 4
"""A handle shorter than this stands in any text by chance; it counts only where an id is expected."""
MIN_PHRASE = 4
"""Characters of the shortest phrase by which the operator can single out a record."""

_ID_KEY = re.compile(r"(?:^|[_\W])(?:id|ids|uid|uuid|guid|no|nr|num|number|key|code|ref|reference|handle|slug|sku|iban|account)_?$")
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_GROUPED = re.compile(r"(?<!\w)\+?(?:[^\W_]*\d[^\W_]*|[(]\d+[)])(?:[ ./-]{1,2}(?:[^\W_]*\d[^\W_]*|[(]\d+[)]))+(?!\w)")
_ACCOUNT = re.compile(r"(?=(?:.*\d){6})[^\W_]{8,}")
_SAYS_NOTHING = frozenset("true false none null confirmed pending active open closed sent received read unread yes".split())


@dataclass
class Corpus:
    """All text of one kind of source, in the forms values are looked up in."""

    texts: list[str] = field(default_factory=list[str])
    words: set[str] = field(default_factory=set[str])
    numbers: set[Decimal] = field(default_factory=set[Decimal])
    days: set[tuple[int | None, int, int]] = field(default_factory=set[tuple[int | None, int, int]])
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
        self.words.update(words(text))
        if any(c.isdigit() for c in text):
            self.numbers |= numbers(text)
            self.days |= days(text)
            self.clocks |= clocks(text)
            self.compacts.update(compact(match[0]) for match in _GROUPED.finditer(text))

    def has(self, value: str) -> bool:
        """Whether a value in plain form stands here as a whole token or phrase."""
        if any(word not in self.words for word in words(value)) and not _is_unspaced(value):
            return False
        return any(stands_in(value, text) for text in self.texts)

    def has_target(self, value: str) -> bool:
        """As `has`, in any spelling that leads to the same place."""
        if any(self.has(spelling) for spelling in spellings(value)):
            return True
        bare = compact(value)
        return bool(_ACCOUNT.fullmatch(bare)) and (bare in self.compacts or (bare != value and self.has(bare)))

    def has_moment(self, value: str) -> bool:
        """Whether a date, or a date with a time of day, stands here in any spelling."""
        found = moment(value)
        if found is None:
            return False
        day, time = found
        return same_day(day, self.days) and (time is None or time == "00:00" or time in self.clocks)


def _is_unspaced(value: str) -> bool:
    return not value.isascii() and len(words(value)) == 1


@dataclass
class Named:
    """Values of the records that the operator's words single out."""

    values: set[str] = field(default_factory=set[str])
    numbers: set[Decimal] = field(default_factory=set[Decimal])

    def add(self, value: JsonValue) -> None:
        """One scalar of such a record."""
        amount = number(value)
        if amount is not None:
            self.numbers.add(amount)
        text = _scalar(value)
        if text:
            self.values.add(text)


Record = list[tuple[str, JsonValue]]
"""Field name and value, every scalar of one JSON object (lists of scalars one by one)."""


class Sources:
    """Everything a run has seen, by who can have written it."""

    def __init__(self) -> None:
        self._operator = Corpus()
        self._own = Corpus()
        self._vendor = Corpus()
        self._outside = Corpus()
        self._own_named = Named()
        self._named = Named()
        self.tainted = False
        """Whether something that anybody may have written was read."""

    def operator_said(self, *texts: str) -> None:
        """What the requester or the author of the automation wrote."""
        for text in texts:
            self._operator.add(text)

    def result(self, trust: Trust, content: str, arguments: Iterable[JsonValue]) -> None:
        """What a call gave back, with the values of its arguments. Never raises."""
        brought = [value for value in arguments if _scalar(value)]
        value = _parsed(content)
        records = [] if value is None else _records(value)
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
            corpus.ids |= {text for r in records for k, v in r if _is_id(k) and (text := _scalar(v))}
            corpus.ids -= {_scalar(v) for v in doubtful}
        named = self._own_named if trust == "own" else self._named
        for record in self._singled_out(value, records, brought):
            for _, item in record:
                if item not in brought:
                    named.add(item)

    def _confirm(self, value: JsonValue, records: Sequence[Record], brought: Sequence[JsonValue]) -> None:
        """Take the new ids of a confirmation as the organisation's own; long text that nobody vouched for taints."""
        for record in records:
            for key, item in record:
                if _is_id(key) and item not in brought:
                    self._own_named.add(item)
        known = {word for item in brought for word in words(_scalar(item))} | self._operator.words | self._own.words
        texts = [item for record in records for _, item in record] or [value]
        if any(len(set(words(_scalar(text))) - known) > MAX_NEW_WORDS for text in texts):
            self.tainted = True

    def _singled_out(self, value: JsonValue, records: Sequence[Record], brought: Sequence[JsonValue]) -> list[Record]:
        """The records that the operator's own words name."""
        if len(_top(value)) == 1 and brought and all(self._is_phrase(v) for v in brought if number(v) is None):
            return list(records)
        phrases: Counter[str] = Counter()
        for record in records:
            phrases.update({phrase for _, item in record if (phrase := self._phrase(item))})
        return [r for r in records if any((p := self._phrase(item)) and phrases[p] == 1 for _, item in r)]

    def _is_phrase(self, value: JsonValue) -> bool:
        """Whether a query is the operator's: a phrase of theirs that is more than one short word."""
        text = _scalar(value)
        distinct = len(text) > MIN_PHRASE + 1 or " " in text
        return distinct and (self._operator.has(text) or self._operator.has_moment(text))

    def _phrase(self, value: JsonValue) -> str | None:
        """The value as a phrase of the operator's, when it is one; a file name counts without its ending too."""
        if not isinstance(value, str) or not MIN_PHRASE <= len(value) <= 200:  # noqa: PLR2004 (a title, not a text)
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
        text = _scalar(value)
        match role:
            case "quantity":
                return self._quantity(value, text)
            case "content":
                return self._content(text)
            case "handle" if len(text) < SHORT_HANDLE and is_plain(text):
                return self._short_handle(text, name)
            case _:
                if not isinstance(value, str) or not is_plain(value):
                    return self._quantity(value, text) if not isinstance(value, str) else "unknown"
                return self._token(text)

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
        """A short id: in the operator's words beside a word for what it is, in data as the whole value of an id field."""
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

        if there(self._operator):
            return "operator"
        if among(self._own_named):
            return "own_named"
        if there(self._own):
            return "own"
        if among(self._named):
            return "named"
        if there(self._vendor):
            return "vendor"
        return "untrusted" if there(self._outside) else "unknown"

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


MAX_NEW_WORDS = 10
"""Words in one field of a confirmation that neither the call nor the operator brought; more is somebody's text."""


def _scalar(value: JsonValue) -> str:
    """A scalar in plain form; empty for what is none."""
    if isinstance(value, str):
        return plain(value)
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else ""


def _is_id(key: str) -> bool:
    return bool(_ID_KEY.search(_CAMEL.sub("_", key).lower()))


def _mention(text: str, name: str) -> str:
    """`id 24`, `#24`, `event 24`, `Nr. 24`: the id beside a word that says what it is."""
    kinds = {"id", "ids", "no", "nr", "num", "number", "nummer", "numéro", "número", "key", "code", "ref"}
    kinds |= {word for word in words(_CAMEL.sub("_", name).lower().replace("_", " ")) if len(word) > 1}
    either = "|".join(sorted(map(re.escape, kinds), key=len, reverse=True))
    return rf"(?:\b(?:{either})s?\b[^0-9a-z]{{0,6}}|[#№]\s?|n°\s?){re.escape(text)}(?![\w-]|[.,:]\w)"


def _without(content: str, values: Sequence[JsonValue]) -> str:
    """The content without what the call itself brought."""
    content = plain(content)
    for text in sorted({_scalar(v) for v in values}, key=len, reverse=True):
        if len(text) > 1:
            content = content.replace(text, " | ")
    return content


def _parsed(content: str) -> JsonValue:
    """The content as JSON objects or lists; None for anything else."""
    if content[:1].strip() and content.lstrip()[:1] not in ("{", "["):
        return None
    try:
        value: JsonValue = json.loads(content)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict | list) else None


def _top(value: JsonValue) -> Sequence[JsonValue]:
    """The records a result consists of: a list, the one list inside an object, or the object itself."""
    if isinstance(value, list):
        return value
    if isinstance(value, dict):
        lists = [item for item in value.values() if isinstance(item, list) and item and isinstance(item[0], dict)]
        return lists[0] if len(lists) == 1 else [value]
    return []


def _records(value: JsonValue) -> list[Record]:
    """Every object of a JSON value; the fields of an object inside an object belong to both."""
    found: list[Record] = []
    stack: list[JsonValue] = [value]
    while stack and len(found) < MAX_RECORDS:
        item = stack.pop()
        if isinstance(item, list):
            stack.extend(reversed(item))
        elif isinstance(item, dict):
            found.append(_fields(item))
            stack.extend(reversed(list(item.values())))
    return found


def _fields(item: dict[str, JsonValue]) -> Record:
    fields: Record = []
    for key, inner in item.items():
        if isinstance(inner, list):
            fields += [(key, one) for one in inner if not isinstance(one, dict | list)]
        elif isinstance(inner, dict):
            fields += [(key + "." + k, v) for k, v in inner.items() if not isinstance(v, dict | list)]
        else:
            fields.append((key, inner))
    return fields
