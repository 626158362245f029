"""Numbers, amounts and dates as people write them, so that `1,234.50 €` and 1234.5 are found to be the same. Pure.

Where a spelling can be read in two ways only the safer reading counts: a value that is not found is asked about.
"""

import re
from decimal import Decimal, InvalidOperation

Day = tuple[int | None, int, int]
"""Year (None when it was not written), month, day."""

# Not inside words, dates, times, versions, paths: `2024-05-19` is not the number 2024. `GB29` is not 29.
_NUMBER = re.compile(
    r"(?<![\w.,:/\\-])(-?)[ ]?(?:[$€£¥₹]|[a-z]{2,3}\s)?[ ]?(-?)"
    r"(\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d{1,3}(?:\.\d{3})+,\d+|\d{1,3}(?:['’ \u00a0\u202f]\d{3})+(?:[.,]\d{1,2})?"
    r"|\d+,\d{1,2}|\d+(?:\.\d+)?)"
    r"(?![\w]*[^\W\d_][\d])(?!\d|[.,:/\\-]\d)(?=[^\w]|$|k\b|eur|usd|gbp|chf|€|\$)",
    re.IGNORECASE,
)
_MONTHS = {
    name: number
    for number, names in enumerate(
        (
            "january jan januar janvier enero gennaio januari janeiro",
            "february feb februar février fevrier febrero febbraio februari fevereiro",
            "march mar märz maerz mars marzo maart março marco",
            "april apr avril abril aprile",
            "may mai mayo maggio mei maio",
            "june jun juni juin junio giugno junho",
            "july jul juli juillet julio luglio julho",
            "august aug août aout agosto augustus",
            "september sep sept septembre septiembre settembre setembro",
            "october oct oktober okt octobre octubre ottobre outubro",
            "november nov novembre noviembre novembro",
            "december dec dezember dez décembre decembre diciembre dicembre dezembro",
        ),
        start=1,
    )
    for name in names.split()
}
_MONTH = "|".join(sorted(_MONTHS, key=len, reverse=True))
_ISO = re.compile(r"(?<![\w-])(\d{4})[-/.](\d{1,2})[-/.](\d{1,2})(?![\d-])")
_NUMERIC = re.compile(r"(?<![\w./-])(\d{1,2})([./-])(\d{1,2})\2(\d{4}|\d{2})(?![\w/-])")
_DAY_MONTH = re.compile(
    rf"(?<!\w)(\d{{1,2}})(?:st|nd|rd|th|er|\.|º)?\s*(?:of\s+|de\s+)?({_MONTH})\b\.?,?(?:\s*(?:de\s+)?(\d{{4}}))?",
    re.IGNORECASE,
)
_MONTH_DAY = re.compile(
    rf"(?<!\w)({_MONTH})\b\.?\s*(\d{{1,2}})(?:st|nd|rd|th)?(?!\w)(?:,?\s*(\d{{4}}))?", re.IGNORECASE
)
_RANGE = r"\s*(?:-|–|to|until|till|through|and|&|bis|und|au|et|al|y|a)\s*(?:the\s+)?"
_UNTIL = re.compile(rf"{_RANGE}(\d{{1,2}})(?:st|nd|rd|th)?(?!\w|[:.,]\d)", re.IGNORECASE)
_SINCE = re.compile(rf"(?<!\w)(\d{{1,2}})(?:st|nd|rd|th|er|\.)?{_RANGE}$", re.IGNORECASE)
"""The other end of `15th to 20th January`, `January 15-20`."""
_TIME = re.compile(
    r"(?<![\w:.-])([01]?\d|2[0-4])(?:[:.h]([0-5]\d))?(?::[0-5]\d)?\s*([ap])?\.?(?:m\b\.?)?(?![\w:])", re.IGNORECASE
)
_CLOCK = re.compile(
    r"(?<![\w:])(?:[01]?\d|2[0-4])(?:[:h][0-5]\d(?::[0-5]\d)?\s*(?:[ap]\.?m\b)?|\s*[ap]\.?m\b)", re.IGNORECASE
)
_STAMP = re.compile(
    r"\s*(\d{4}-\d{1,2}-\d{1,2})(?:[T ]\s*(\d{1,2}:\d{2})(?::\d{2}(?:\.\d+)?)?\s*(?:Z|[+-]\d{2}:?\d{2})?)?\s*"
)


def number(value: object) -> Decimal | None:
    """The number a value is, or None. Text counts when it is one number and at most a currency sign or code."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        try:
            return Decimal(str(value)).normalize()
        except InvalidOperation:
            return None
    if not isinstance(value, str) or len(value) > 40:
        return None
    match = _NUMBER.search(" " + value.strip().lower() + " ")
    rest = _NUMBER.sub("", " " + value.strip().lower() + " ", count=1).strip() if match else ""
    return _read(match) if match and (not rest or re.fullmatch(r"[$€£¥₹%]|[a-z]{3}", rest)) else None


def numbers(text: str) -> set[Decimal]:
    """Every number a text names."""
    if not any(c.isdigit() for c in text):
        return set()
    return {found for match in _NUMBER.finditer(text) if (found := _read(match)) is not None}


def _read(match: re.Match[str]) -> Decimal | None:
    digits = match[3]
    if re.fullmatch(r"\d{1,3}(,\d{3})+(\.\d+)?", digits):
        digits = digits.replace(",", "")
    elif re.fullmatch(r"\d{1,3}(\.\d{3})+,\d+", digits):
        digits = digits.replace(".", "").replace(",", ".")
    else:
        digits = re.sub(r"['’ \u00a0\u202f]", "", digits).replace(",", ".")
    try:
        return Decimal(("-" if match[1] or match[2] else "") + digits).normalize()
    except InvalidOperation:
        return None


def days(text: str) -> set[Day]:
    """Every date a text names. `03/04/2025` counts as both of its readings."""
    found: set[Day] = set()
    for match in _ISO.finditer(text):
        _add(found, int(match[1]), int(match[2]), int(match[3]))
    for match in _NUMERIC.finditer(text):
        year = int(match[4]) + (2000 if len(match[4]) == 2 else 0)
        _add(found, year, int(match[3]), int(match[1]))
        if match[2] != ".":
            _add(found, year, int(match[1]), int(match[3]))
    for match in _DAY_MONTH.finditer(text):
        _add(found, int(match[3]) if match[3] else None, _MONTHS[match[2].lower()], int(match[1]))
        since = _SINCE.search(text, max(0, match.start() - 20), match.start())
        if since:
            _add(found, int(match[3]) if match[3] else None, _MONTHS[match[2].lower()], int(since[1]))
    for match in _MONTH_DAY.finditer(text):
        _add(found, int(match[3]) if match[3] else None, _MONTHS[match[1].lower()], int(match[2]))
        until = _UNTIL.match(text, match.end())
        if until:
            _add(found, int(match[3]) if match[3] else None, _MONTHS[match[1].lower()], int(until[1]))
    return found


def _add(found: set[Day], year: int | None, month: int, day: int) -> None:
    if 1 <= month <= 12 and 1 <= day <= 31:
        found.add((year, month, day))


def clocks(text: str) -> set[str]:
    """Every time of day a text names, as HH:MM."""
    found: set[str] = set()
    for match in _CLOCK.finditer(text):
        parts = _TIME.fullmatch(match[0].strip())
        if parts:
            hour = int(parts[1]) % 12 + (12 if (parts[3] or "").lower() == "p" else 0) if parts[3] else int(parts[1])
            found.add(f"{hour:02d}:{parts[2] or '00'}")
    return found


def moment(value: str) -> tuple[Day, str | None] | None:
    """A value that is a date, or a date with a time (HH:MM); None for anything else."""
    match = _STAMP.fullmatch(value)
    if match is None:
        found = days(value) if len(value) <= 30 else set[Day]()
        letters = re.sub(rf"({_MONTH})|st|nd|rd|th|\d|\W", "", value.lower())
        return (next(iter(found)), None) if len(found) == 1 and not letters else None
    year, month, day = (int(part) for part in match[1].split("-"))
    time = f"{int(match[2].split(':')[0]):02d}:{match[2].split(':')[1]}" if match[2] else None
    return (year, month, day), time


def same_day(day: Day, known: set[Day]) -> bool:
    """Whether a date is among those known; one written without its year fits any year."""
    return day in known or (None, day[1], day[2]) in known or (day[0] is None and any(k[1:] == day[1:] for k in known))
