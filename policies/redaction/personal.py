"""Personal data that can be told by shape: addresses, numbers of people, cards and accounts. Names it cannot tell.

A format with a check digit is checked. A shape that machines write too (a bare number, a date) counts only behind a
word that says what it is.
"""

import ipaddress
import re
from collections.abc import Callable, Iterator

from policies.redaction import checksums
from policies.redaction.scan import Finding, compiled

_AT = r"(?:@|%40|\\u0040)"
_LETTER = r"[A-Za-z0-9\x80-\xff]"
_EMAIL = compiled(
    rf"[A-Za-z0-9.!#$&*+/=?^_`{{|}}~'\x80-\xff-]+{_AT}(?:{_LETTER}(?:[A-Za-z0-9\x80-\xff-]*{_LETTER})?\.)+"
    r"[A-Za-z\x80-\xff]{2,24}"
)
_NO_DOMAIN = frozenset(
    b"png jpg jpeg gif svg webp ico css js ts map json html htm xml yaml yml py go rs java so dll exe txt md sock "
    b"service local localdomain internal".split()
)

_NUMBER = compiled(r"\b[0-9](?:[ -]?[0-9]){11,22}\b")
_CARD_WORD = re.compile(rb"(?i)\b(?:cards?|cc|credit|debit|visa|mastercard|maestro|amex|pan)\b[^\n]{0,30}$")

_IBAN = compiled(r"\b[A-Za-z]{2}[0-9]{2}(?: ?[A-Za-z0-9]{4}){2,7}(?: ?[A-Za-z0-9]{1,3})?\b")

_EXTENSION = r"(?: ?(?:x|ext\.? ?)[0-9]{1,6})?"
_PHONE = compiled(
    r"(?:\+|\b00)[1-9][0-9]{0,2}[ .\-/]?(?:\(0?[0-9]{1,5}\)[ .-]?)?[0-9]{1,5}(?:[ .\-/]?[0-9]{2,5}){1,5}"
    rf"{_EXTENSION}\b|\([0-9]{{2,5}}\)[ -]?[0-9]{{2,5}}(?:[ .-][0-9]{{2,5}}){{1,3}}{_EXTENSION}\b"
    rf"|\b(?:1[-. ])?[0-9]{{3}}(?:-[0-9]{{3}}-|\.[0-9]{{3}}\.| [0-9]{{3}} |-[0-9]{{3}} )[0-9]{{4}}{_EXTENSION}\b"
    r"|\b0[0-9]{1,4}[ ./-][0-9]{2,8}(?:[ .-][0-9]{2,5}){0,4}\b"
)
_STATUSES = frozenset(
    b"200 201 202 204 206 301 302 303 304 307 308 400 401 403 404 405 409 413 422 429 499 500 502 503 504".split()
)
_PHONE_SAID = compiled(
    r"(?i:\b(?:(?:tele)?phone|tel|mobile|cell|fax|whatsapp|msisdn|call (?:me |us |him |her |them )?(?:back )?(?:on|at)"
    r"|(?:text|reach|contact|ring) (?:me|us|him|her|them) (?:on|at)|registered)(?:[ _]?(?:number|no|nr|num|#))?)"
    r"[\"']?(?:\s{0,3}[:=#.]|\s+is)?\s{0,3}[\"']?([+(]?[0-9][0-9 ()./-]{5,20}[0-9])\b"
)

_IPV4 = compiled(r"\b[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3}\b")
# Public ones start with 2 or 3.
_IPV6 = compiled(r"\b[23][0-9A-Fa-f]{3}:(?:[0-9A-Fa-f]{0,4}:){1,7}[0-9A-Fa-f]{0,4}")

_DATE = (
    r"(?:[0-9]{4}[-/.][0-9]{1,2}[-/.][0-9]{1,2}|[0-9]{1,2}[-/. ]{1,2}[0-9]{1,2}[-/. ]{1,2}[0-9]{2,4}"
    r"|[0-9]{1,2}(?:st|nd|rd|th)?[ -]{1,2}(?:of )?[A-Za-z]{3,9}\.?,?[ -][0-9]{2,4}"
    r"|[A-Za-z]{3,9}\.? [0-9]{1,2}(?:st|nd|rd|th)?,? [0-9]{2,4})"
)
_BORN = compiled(
    r"(?i:\b(?:dob|d\.o\.b\.?|date[ _]of[ _]birth|birth[ _]?da(?:te|y)|born(?: on)?|geboren(?: am)?"
    r"|n\xc3\xa9(?:e)? le|geburtsdatum))"
    rf"[\"']?(?:\s{{0,3}}[:=]|\s+(?:is|was))?\s{{0,3}}[\"']?({_DATE})\b"
)
_SAID = compiled(
    r"(?i:\b(?:(ssn|social[ _]security(?:[ _](?:number|no|#))?|tax(?:payer)?[ _]id(?:entification)?(?:[ _]number)?"
    r"|itin|sin|tfn|bsn|nhs(?:[ _](?:number|no))?|steuer-?id(?:nr)?|aadhaar|pesel|national[ _]id(?:[ _]number)?)"
    r"|(passport(?:[ _](?:number|no|nr|#))?|driver'?s?[ _]licen[cs]e(?:[ _](?:number|no|#))?|licen[cs]e[ _]plate"
    r"|medical[ _]record(?:[ _]number)?|mrn|npi|health[ _]insurance[ _](?:number|no))"
    r"|((?:bank[ _])?account[ _](?:number|no|nr|#)|acct(?:[ _](?:number|no|#)|\.)?|routing[ _](?:number|no)"
    r"|sort[ _]code"
    r"|kontonummer)"
    r"|(zip(?:[ _]?code)?|post(?:al)?[ _]?code|plz)"
    r"|(cvv2?|cvc2?|card[ _](?:verification|security)[ _](?:code|value)|pin(?:[ _](?:code|number))?)))"
    r"\.?[\"']?(?:\s{0,3}[:=#]|\s+(?:is|number|no\.?)){0,2}[ \t]{0,3}[\"']?"
    r"([A-Za-z0-9](?:[A-Za-z0-9]|[ ./-][A-Za-z0-9]){2,19})"
)
_SAID_KINDS = ("id", "id", "account", "postcode", "pin")
_POSTCODE = (
    rb"(?:[0-9]{3} [0-9]{2}|[0-9]{4,5}(?:-[0-9]{3,4}| ?[A-Z]{2}\b)?|[A-Z]{1,2}[0-9][0-9A-Z]? ?[0-9][A-Z]{2}\b"
    rb"|[A-Z][0-9][A-Z] ?[0-9][A-Z][0-9])"
)
_SAID_SHAPES = tuple(
    re.compile(shape)
    for shape in (
        rb"[0-9](?:[ ./-]?[0-9]){7,11}",
        rb"(?=[A-Z0-9-]*[0-9]{3})[A-Z0-9](?:[A-Z0-9]|[ -][A-Z0-9]){4,14}\b",
        rb"[0-9](?:[ -]?[0-9]){5,17}",
        _POSTCODE,
        rb"[0-9]{3,6}\b",
    )
)

_IDS = compiled(
    r"\b(?:([0-9]{3}-[0-9]{2}-[0-9]{4})"  # United States
    r"|([A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z] ?[0-9]{2} ?[0-9]{2} ?[0-9]{2} ?[A-D])"  # United Kingdom
    r"|([0-9]{8}[ -]?[A-HJ-NP-TV-Z]|[XYZ]-?[0-9]{7}-?[A-HJ-NP-TV-Z])"  # Spain
    r"|([A-Za-z]{6}[0-9]{2}[A-EHLMPRSTa-ehlmprst][0-9]{2}[A-Za-z][0-9]{3}[A-Za-z])"  # Italy
    r"|([12] ?[0-9]{2} ?(?:0[1-9]|1[0-2]|[2-9][0-9]) ?(?:[0-9]{2}|2[AB]) ?[0-9]{3} ?[0-9]{3} ?[0-9]{2})"  # France
    r"|([0-9]{3}\.[0-9]{3}\.[0-9]{3}-[0-9]{2})"  # Brazil
    r"|([STFGM][0-9]{7}[A-Z])"  # Singapore
    r"|([1-9][0-9]{5}(?:19|20)[0-9]{2}(?:0[1-9]|1[0-2])[0-3][0-9][0-9]{3}[0-9Xx])"  # China
    r"|([0-3][0-9][01][0-9]{3}[-+A][0-9]{3}[0-9A-Y])"  # Finland
    r"|([0-9]{6}[-+][0-9]{4}|(?:19|20)[0-9]{6}-[0-9]{4})"  # Sweden
    r"|([2-9][0-9]{3}[ -][0-9]{4}[ -][0-9]{4})"  # India
    r"|([0-9]{3}-[0-9]{3}-[0-9]{3})"  # Canada
    r"|([A-Z]{3}[ABCFGHLJPT][A-Z][0-9]{4}[A-Z])"  # India, tax
    r"|([0-9]{6}-[1-8][0-9]{6})"  # Korea
    r"|([0-9]{11})"  # Poland
    r"|((?:bc1[02-9ac-hj-np-z]{25,60}|[13][1-9A-HJ-NP-Za-km-z]{25,34}))"
    r")\b"
)  # fmt: skip
_ID_CHECKS: tuple[Callable[[str], bool], ...] = (
    checksums.ssn,
    lambda text: text[:2].upper() not in ("BG", "GB", "KN", "NK", "NT", "TN", "ZZ"),
    checksums.dni,
    checksums.fiscal_code,
    checksums.nir,
    checksums.cpf,
    checksums.nric,
    checksums.resident_id,
    checksums.hetu,
    lambda text: checksums.personnummer(text[-10:]),
    checksums.verhoeff,
    lambda text: checksums.luhn(text) and text[0] not in "08",
    lambda _: True,
    lambda text: 1 <= int(text[2:4]) <= 12 and 1 <= int(text[4:6]) <= 31,
    checksums.pesel,
    checksums.bitcoin,
)


def emails(data: bytes) -> Iterator[Finding]:
    """Addresses as mail uses them, also with `@` escaped."""
    if b"@" not in data and b"%40" not in data and b"\\u0040" not in data:
        return
    for match in _EMAIL.finditer(data):
        start, end = match.span()
        text = data[start:end]
        while text.rpartition(b".")[2].lower() in _NO_DOMAIN:
            text = text.rpartition(b".")[0]  # a file named after an address, or `icon@2x.png`
        end = start + len(text)
        if text.startswith(b"git@") or b"." not in re.split(rb"@|%40|\\u0040", text, maxsplit=1)[-1]:
            continue
        if text.startswith((b"//", b"=", b"'", b"/")) or b"=" in text or b"/" in text:
            local = re.split(rb"@|%40|\\u0040", text, maxsplit=1)[0]
            start += max(local.rfind(byte) for byte in (b"=", b"/", b"'", b"?", b"&", b"`")) + 1
            if data[start : start + 1] in (b"@", b"%"):
                continue
        if data[max(0, start - 1) : start] == b"\\" and data[start : start + 1] in (b"n", b"r", b"t"):
            start += 1  # the letter of an escape
        yield Finding(start, end, "email")


def numbers(data: bytes) -> Iterator[Finding]:
    """Payment cards and international bank account numbers, by their check digits."""
    for match in _NUMBER.finditer(data):
        start, end = match.span()
        text = data[start:end]
        digits = text.translate(None, b" -").decode()
        if (data[start - 1 : start] in (b".", b"-", b"+") and start) or re.match(rb"\.[0-9]", data[end : end + 2]):
            continue  # the fraction of a number, a part of an identifier
        if not 12 <= len(digits) <= 19 or not checksums.card(digits):
            continue
        if len(digits) == 12 and not _CARD_WORD.search(data[max(0, start - 60) : start]):
            continue
        yield Finding(start, end, "card")
    for match in _IBAN.finditer(data):
        start, end = match.span()
        text = data[start:end].decode()
        # What follows after a space may have been taken along: the longest head that is one counts.
        for size in range(len(text), 14, -1):
            if checksums.iban(text[:size].replace(" ", "")) and (size == len(text) or not text[size].isalnum()):
                yield Finding(start, start + size, "iban")
                break


def phones(data: bytes) -> Iterator[Finding]:
    """Telephone numbers in the ways people write them; a bare number only behind a word that says so."""
    for match in _PHONE.finditer(data):
        start, end = match.span()
        if _is_phone(data, start, end):
            yield Finding(start, end, "phone")
    for match in _PHONE_SAID.finditer(data):
        digits = sum(48 <= byte < 58 for byte in match.group(1) or b"")
        if 7 <= digits <= 15 and not re.match(rb"[0-9]{4}-[0-9]{2}-[0-9]{2}", match.group(1) or b""):
            yield Finding(*match.span(1), "phone")


def addresses(data: bytes) -> Iterator[Finding]:
    """Public addresses of the internet; those of a private net say nothing about a person."""
    for match in _IPV4.finditer(data):
        start, end = match.span()
        near = data[max(0, start - 9) : start].lower()
        version = re.search(rb"(?:[a-z0-9][/_-]|[0-9.]|\bv|ver(?:sion)?[ =:]*|==?|[a-z])$", near) and not near.endswith(
            (b"ip=", b"ip_", b"addr=", b"host=", b"from=", b"\\n", b"\\t")
        )
        if not version and not re.match(rb"[.-]?[0-9A-Za-z_]", data[end : end + 2]) and _is_public(data[start:end]):
            yield Finding(start, end, "ip")
    if b":" in data:
        for match in _IPV6.finditer(data):
            start, end = match.span()
            text = data[start:end]
            if (
                text.count(b":") >= 2
                and data[start - 1 : start] not in (b":", b".")
                and data[end : end + 1] != b":"
                and _is_public(text)
            ):
                yield Finding(start, end, "ip")


def identities(data: bytes) -> Iterator[Finding]:
    """Numbers that states, banks and insurers give to people, and dates of birth."""
    for match in _IDS.finditer(data):
        group = next(at for at, text in enumerate(match.groups(), 1) if text is not None)
        start, end = match.span()
        beside = (data[max(0, start - 1) : start], data[end : end + 1])
        if (
            (beside[0] in (b"-", b".", b"/", b"+", b"=") and group != 1)
            or beside[1] in (b"-", b"/")
            or re.match(rb"\.[0-9]", data[end : end + 2])
        ):
            continue
        text = data[start:end].decode()
        bare = text.translate(str.maketrans("", "", " -./+"))
        if _ID_CHECKS[group - 1](text if group == 9 else bare):
            yield Finding(start, end, "id")
    for match in _BORN.finditer(data):
        yield Finding(*match.span(1), "birth_date")
    for match in _SAID.finditer(data):
        group = next(at for at, text in enumerate(match.groups(), 1) if text is not None)
        shape = _SAID_SHAPES[group - 1].match(match.group(6) or b"")
        if shape:
            yield Finding(match.start(6), match.start(6) + shape.end(), _SAID_KINDS[group - 1])


def _is_phone(data: bytes, start: int, end: int) -> bool:
    text = data[start:end]
    digits = sum(48 <= byte < 58 for byte in re.split(rb"x|ext", text)[0])
    if not 7 <= digits <= 15 or (text[:1] == b"0" and not 9 <= digits <= 14):
        return False
    before, after = data[max(0, start - 1) : start], data[end : end + 1]
    if (
        before
        and (before.isalnum() or before in b"._/=:-+$#@%")
        and not (before == b":" and text[:1] in b"+(0")
        and not (before == b"=" and text[:1] == b"+")
    ):
        return False
    if after in (b":", b"-", b"/", b"_", b"%") or re.match(rb"\.[0-9]", data[end : end + 2]):
        return False
    if re.match(rb"[0-9]{1,2}[./-][0-9]{1,2}[./-](?:19|20)[0-9]{2}|[0-9]{4}[-./][0-9]{2}[-./][0-9]{2}", text):
        return False  # a date
    if re.match(rb"[0-9]{3} ", text) and (text[:1] < b"2" or text[:3] in _STATUSES):
        return False  # of a request, with sizes behind it
    return not (text[:1] == b"+" and digits < 8) and len(set(text)) > 2


def _is_public(text: bytes) -> bool:
    try:
        return ipaddress.ip_address(text.decode()).is_global
    except ValueError:
        return False
