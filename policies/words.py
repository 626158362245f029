"""How text is compared when the gate looks where a value comes from: one normal form, whole tokens, links. Pure.

Look-alikes are never folded together. Folding would let `аdmin@corp.example` with a Cyrillic letter pass for the real
one; kept apart, it simply stands nowhere.
"""

import re
import unicodedata
from collections.abc import Iterator

MAX_LINKS = 64
"""Links looked at in one text; the caller treats a text with more as unknown."""

_SPACE = re.compile(r"\s+")
_WORD = re.compile(r"[^\W_]+")
_INVISIBLE = re.compile(
    r"[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufe00-\ufe0f\ufeff]"
)
_JOINTS = ".-+/\\%&~'’:?=#@"
"""Characters that join two words into one token: `x.com` does not stand in `x.com.evil.example`."""

# Scripts written without spaces between words: the edge of a word cannot be asked for there.
_UNSPACED = re.compile(r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]")

# Endings that are far more often a file's than a country's.
_FILES = "ai bz cc cs cu db gz go hs js kt md mk ml mo pl pm ps py rb rs sh so tf tm ts vb vi"
_FILE_ENDINGS = frozenset(_FILES.split())
_TLDS = """
com net org info biz edu gov mil int io app dev xyz online site website top shop store tech club live news link click
pro name mobi cloud art blog space world life today email support services finance bank money page web company agency
digital media systems network center academy example test invalid localhost onion
"""
_COMMON_TLDS = frozenset(_TLDS.split())
_URL = re.compile(
    r"(?:(?:https?|hxxps?|ftps?|wss?|file|data|javascript)\s?:(?://)?|www\.)[^\s<>\"'`|\\^{}]+", re.IGNORECASE
)
_EMAIL = re.compile(r"[^\s<>\"'`|\\^{}()\[\],;:@]+@[^\s<>\"'`|\\^{}()\[\],;:@]+\.[^\W\d_]{2,}")
_HOST = re.compile(
    r"(?<![\w@./-])(?:[^\W_](?:[\w-]{0,61}[^\W_])?\.)+([^\W\d_]{2,18}|xn--[a-z0-9-]{2,59})(?![\w-])(?::\d{1,5})?(/[^\s<>\"'`|\\^{}]*)?"
)
_ADDRESS = re.compile(r"(?<![\w.])\d{1,3}(?:\.\d{1,3}){3}(?![\w.]*\d)(?::\d{1,5})?(?:/[^\s<>\"']*)?")
_IBAN = re.compile(r"(?<!\w)[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,8}(?: ?[A-Z0-9]{1,4})?(?!\w)")
_OPAQUE = re.compile(r"(?<![\w])(?=[A-Za-z]*\d)(?=\d*[A-Za-z])[A-Za-z0-9]{24,}(?!\w)")
_PHONE = re.compile(r"(?<![\w+])(?:\+|00)\d[\d ()./-]{6,18}\d(?!\w)")
_TRAILING = ".,;:!?)]}>»”’'\""


def plain(text: str) -> str:
    """The form texts are compared in: compatibility forms folded (full-width letters, ligatures, odd spaces), lower
    case, single spaces. Not case-folded: `ß` and `ss` stay two different things, as they are in host names."""
    if text.isascii():
        return _SPACE.sub(" ", text).strip().lower()
    return _SPACE.sub(" ", _INVISIBLE.sub("", unicodedata.normalize("NFKC", text))).strip().lower()


def is_plain(text: str) -> bool:
    """Whether the text means what it shows: no invisible characters, no compatibility forms of other characters."""
    return text.isascii() or (
        not _INVISIBLE.search(text) and unicodedata.is_normalized("NFKC", unicodedata.normalize("NFC", text))
    )


def words(text: str) -> list[str]:
    """The words of a text already in plain form: runs of letters and digits."""
    return _WORD.findall(text)


def stands_in(value: str, text: str) -> bool:
    """Whether `value` stands in `text` as a whole token or phrase; both in plain form."""
    if not value:
        return False
    at = text.find(value)
    while at >= 0:
        if _edge_before(text, at, value[0]) and _edge_after(text, at + len(value), value[-1]):
            return True
        at = text.find(value, at + 1)
    return False


def _edge_before(text: str, at: int, first: str) -> bool:
    if at == 0 or _UNSPACED.match(first):
        return True
    before = text[at - 1]
    if before.isalnum() or before == "_":
        return bool(_UNSPACED.match(before)) or not (first.isalnum() or first == "_")
    if before == "@":
        return at == 1 or text[at - 2].isspace()  # `@alice`, but not the host of `bob@alice.example`
    if before == "/" and text.startswith("://", at - 3):
        return True
    return not (before in _JOINTS and before not in "=:'’" and at > 1 and text[at - 2].isalnum())


def _edge_after(text: str, end: int, last: str) -> bool:
    if end == len(text) or _UNSPACED.match(last):
        return True
    after = text[end]
    if after.isalnum() or after == "_":
        return bool(_UNSPACED.match(after)) or not (last.isalnum() or last == "_")
    if after in "'’" or (after == "/" and not text[end + 1 : end + 2].isalnum()):
        return True
    return after != "@" and not (after in _JOINTS and text[end + 1 : end + 2].isalnum())


def spellings(value: str) -> Iterator[str]:
    """How a target may be written and still be the same target: with or without scheme, `www.` and a last slash."""
    yield value
    bare = re.sub(r"^(?:https?://|mailto:|tel:)", "", value).rstrip("/") if "/" in value or ":" in value else value
    if bare != value and bare:
        yield bare
    if bare.startswith("www."):
        yield bare[4:]
    elif bare != value or "." in bare:
        yield "www." + bare


def compact(text: str) -> str:
    """Letters and digits only, for account and phone numbers that people write in groups."""
    return "".join(c for c in text if c.isalnum())


def links(text: str) -> list[str]:
    """Everything in a free text that can lead somewhere: URLs, hosts, e-mail addresses, account and phone numbers.

    At most `MAX_LINKS` + 1 of them; defanged forms (`hxxp`, `evil[.]example`) count as what they stand for.
    """
    text = _tellings(text)
    found: dict[str, None] = {}
    for pattern, marks in _PATTERNS:
        if len(found) > MAX_LINKS or not any(mark in text for mark in marks):
            continue
        for match in pattern.finditer(text):
            link = match[0].strip().rstrip(_TRAILING)
            found[re.sub(r"^hxxp", "http", link, flags=re.IGNORECASE)] = None
        text = pattern.sub(" ", text)
    for match in _HOST.finditer(text):
        if match[2] or _is_tld(match[1].lower()):
            found[match[0].rstrip(_TRAILING)] = None
    return list(found)[: MAX_LINKS + 1]


_DIGITS = "0123456789"
_PATTERNS = ((_URL, ":."), (_EMAIL, "@"), (_ADDRESS, "."), (_IBAN, _DIGITS), (_OPAQUE, _DIGITS), (_PHONE, _DIGITS))
"""Pattern, and characters of which a match has at least one."""
_DEFANGED = re.compile(r"\s?(?:\[\.\]|\(\.\)|\{\.\}|\[dot\]|\(dot\))\s?", re.IGNORECASE)
_TELLING = re.compile(r"[.:@/\d]")


def _tellings(text: str) -> str:
    """The text with every word left out that cannot be part of a link: most of it, so that the patterns are quick."""
    if not text.isascii():
        text = _INVISIBLE.sub("", unicodedata.normalize("NFKC", text)).replace("。", ".")
    if "[" in text or "(" in text or "{" in text:
        text = _DEFANGED.sub(".", text)
    kept: list[str] = []
    for word in text.split():
        if _TELLING.search(word, 0, len(word) - (word[-1] in ".:")):
            kept.append(word)
        elif not kept or kept[-1] != "|":
            kept.append("|")
    return " ".join(kept)


def _is_tld(ending: str) -> bool:
    if ending.startswith("xn--") or ending in _COMMON_TLDS:
        return True
    return len(ending) == 2 and ending.isascii() and ending not in _FILE_ENDINGS
