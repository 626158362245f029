"""Values that stand under a name: `db_password = "x"`, `"token": "x"`, `--api-key x`, headers, connection strings."""

import base64
import binascii
import re
from collections.abc import Callable, Iterator

from policies.redaction.names import name_kind, words_of
from policies.redaction.scan import Finding, Match, Pattern, compiled
from policies.redaction.values import is_secret, looks_random

_WORDS = (
    r"(?:passw(?:or)?d|passwort|passphrase|passcode|secret|credential|creds|cookie|jwt|sess(?:ion)?[_-]?(?:id|key)"
    r"|(?:api|access|private|account|auth|signing|encryption|shared|master|license|hmac|app|client|admin|service)"
    r"[_.-]?key"
    r"|pwd|[a-z0-9][_-]?pass|[a-z0-9][_-]?pw)"
)
# `tokens` counts them; one token is a secret.
NAMED = rf"(?i:{_WORDS}[\w-]{{0,40}}|token(?:[a-rt-z0-9_-][\w-]{{0,40}})?)"
"""The telling part of a name and the rest of it."""
_INDEX = r"(?:\[\w{0,20}\])?"
_CLOSE = r"(?:\\{0,3}[\"'`])?"
_IS = r"[ \t]{0,4}(?:=>|[:!=]={1,2}|=|:[ \t]{0,2}(?:[A-Za-z][\w.|\[\]]{0,30}[ \t]{0,2}=)?|%3[Dd])[ \t]{0,8}"
_QUOTED = (
    r"(?:[@$]|[bBrRuUfF]{1,2})?(?:\\{1,3}\"([^\"\\\n]{2,})|\"((?:[^\"\\\n]|\\[^\n]){2,})"
    r"|\\{1,3}'([^'\\\n]{2,})|'((?:[^'\\\n]|\\[^\n]){2,})|`([^`\n]{2,}))"
)
_BARE = r"((?:[^\s\"'`,;&\\]|,[^\sA-Za-z0-9\"'`,;&\\]){3,})"

_ASSIGNED = compiled(rf"{NAMED}{_INDEX}{_CLOSE}({_IS})(?:{_QUOTED}|{_BARE})")
_RANDOM_KEY = compiled(
    rf"(?i:[a-z0-9][_-]?key|\bkey){_CLOSE}{_IS}\\{{0,3}}[\"'`]?([A-Za-z0-9+/_=~.-]{{20,}})"
)  # fmt: skip
_COMPARED = compiled(r"(?:\"([^\"\n]{4,})\"|'([^'\n]{4,})')[ \t]{0,4}[!=]={1,2}[ \t]{0,4}([A-Za-z_$][\w.$-]{0,60})")
_BESIDE = compiled(
    rf"{NAMED}{_INDEX}(?:[\"'][ \t]{{0,4}},\s{{0,20}}b?|[ \t]{{1,4}})(?:\"([^\"\s]{{6,}})\"|'([^'\s]{{6,}})')"
)
_OPTION = compiled(rf"(?:^|[\s\"'])--?[\w.-]{{0,40}}{NAMED}[ \t]+[\"']?([^\s\"']{{4,}})")
_ELEMENT = compiled(rf"<[\w.:-]{{0,40}}{NAMED}(?:\s[^<>]{{0,200}})?>([^<>\n]{{3,}})</")
_PAIR = compiled(
    rf"(?i:\b(?:name|key|id)\"?[ \t]{{0,4}}[:=][ \t]{{0,4}}[\"']?([\w.:-]{{0,60}}{NAMED}[\w.-]{{0,40}})"
    rf"[\"']?,?\s{{1,40}}\"?value\"?)[ \t]{{0,4}}[:=][ \t]{{0,4}}(?:{_QUOTED}|{_BARE})"
)
_SAID = compiled(
    r"(?i:\b(?:password|passcode|passphrase|pwd|pass\s?code)\s+(?:is|was|of|to)\s*:?\s+)[\"'`]?([^\s\"'`]{4,})"
)
_NETRC = compiled(r"\b(?:login|user)[ \t]+\S{1,100}\s{1,20}password[ \t]+(\S{3,})")
_SCHEME = compiled(r"(?i:\b(?:bearer|basic|negotiate|digest|token|apikey)[ \t]+)([A-Za-z0-9._~+/=-]{8,})")
_HEADER = compiled(
    r"(?i:\b(?:proxy-)?authorization)\\{0,3}[\"']?\s{0,4}[:=,]\s{0,4}b?\\{0,3}[\"']?"
    r"(?:[A-Za-z][\w-]{2,20}[ \t]+)?([^\s\"'\\,;]{6,})"
)
_COOKIE = compiled(
    r"(?i:\b(?:set-)?cookie)\\{0,3}[\"']?[ \t]{0,4}[:,][ \t]{0,4}b?\\{0,3}[\"']?([^\s=;\"'\\]{1,80}=[^\n\"'\\]+)"
)
_USERINFO = compiled(r"\b[A-Za-z][A-Za-z0-9+.-]{1,30}://[^\s:/?#@\"'<>]{0,200}:([^\s@\"'<>/]{1,500})@")
_QUERY = compiled(
    r"(?i:[?&;](?:sig|signature|x-amz-signature|x-amz-security-token|x-goog-signature|hmac|code_verifier|assertion"
    r"|key|sessid|sid|auth|_auth|passwd|otp))=([A-Za-z0-9%+/_=.~-]{12,})"
)
_USER_OPTION = compiled(
    r"\b(?:curl|wget|http|docker|podman|helm)\b[^\n]{0,300}?\s(?:-u|--user)[ =][\"']?[^\s:'\"]{1,100}:([^\s'\"]{3,})"
)
_PASS_OPTION = compiled(
    r"\b(?:sshpass|docker login|podman login|helm registry login)\b[^\n]{0,300}?\s-p[ ]?[\"']?([^\s'\"-][^\s'\"]{3,})"
)
_SQL = compiled(
    r"(?i:\bidentified\s{1,8}(?:with\s{1,8}\S{1,40}\s{1,8})?(?:by|as)(?:\s{1,8}password)?)\s{1,8}['\"]([^'\"\n]{3,})"
)
_MYSQL = compiled(r"\b(?:mysql|mariadb)[a-z-]{0,12}\b[^\n]{0,300}?\s-p([^\s'\"$][^\s'\"]{3,})")
_REGISTRY = compiled(r"\"(?:auth|identitytoken)\\{0,3}\"[ \t]{0,4}:\s{0,20}\\{0,3}\"([A-Za-z0-9+/_.-]{12,}={0,2})")
_VENDOR = compiled(
    r"(?i:(?:cloudant|\bclou?)[_-]?(?:api[_-]?)?(?:key|pwd|pw|password|pass|token))[\"']?[ \t]{0,4}(?:=|:|:=|=>|==)"
    r"[ \t]{0,4}[\"']?([a-z]{24})\b"
    r"|(?i:softlayer\.com/soap/v3(?:\.1)?/)([a-z0-9]{64})"
)

_NPMRC = compiled(r":_(?:authToken|auth|password)[ \t]?=[ \t]?([^\s\"'$]{8,})")
_SENTENCE = frozenset(
    b"a an are as be by can for if in is must not of on or should that the this to used was when which will".split()
)


def _is_given(value: str) -> bool:
    """No template: `$PASSWORD`, `<password>`, `{password}`."""
    return not value.startswith(("$", "<", "{", "%(", "%s", "*"))


def _is_credential(value: str) -> bool:
    return is_secret("password", value, quoted=False)


_CARRIED: tuple[tuple[Pattern, Callable[[str], bool]], ...] = (
    (_HEADER, _is_credential),
    (_QUERY, looks_random),
    (_REGISTRY, lambda value: _is_basic(value) or looks_random(value)),
    *(
        (pattern, _is_given)
        for pattern in (_USERINFO, _VENDOR, _NPMRC, _COOKIE, _NETRC, _USER_OPTION, _PASS_OPTION, _SQL, _MYSQL)
    ),
)
_NAME_BEFORE = re.compile(rb"[A-Za-z0-9_.$-]{0,60}$")
_CLOSING = {")": "(", "]": "[", "}": "{", ">": "<"}


def assigned(data: bytes) -> Iterator[Finding]:
    """`name = value` in the ways that code, configuration, JSON and YAML write it."""
    for match in _ASSIGNED.finditer(data):
        start, end, quoted = _value(match, first=2)
        name = _name(data, match)
        kind = name_kind(name)
        if kind is None:
            continue
        value = data[start:end].decode("utf-8", "replace")
        sign = match.group(1) or b""
        spaced = sign.strip() == b"=" and sign != b"="
        if not quoted and value.isalpha() and sign.startswith(b":") and kind != "token":
            words = _words_after(data, end)
            if words:
                if _is_phrase(data, match, value, words) and is_secret("password", value, quoted=True, name=name):
                    yield Finding(start, end + len(words), "secret")
                continue
        if not is_secret(kind, value, quoted=quoted, spaced=spaced, name=name):
            continue
        if not quoted:
            end = start + len(_unclosed(data[start:end]))
        yield Finding(start, end, "secret")
    for match in _RANDOM_KEY.finditer(data):
        value = data[match.start(1) : match.end(1)].decode()
        name = _name(data, match)
        if (name_kind(name) == "key" or words_of(name) == ["key"]) and is_secret("key", value, quoted=True):
            yield Finding(*match.span(1), "secret")


def beside(data: bytes) -> Iterator[Finding]:
    """Comparisons the other way round, lists of arguments, command lines, XML, pairs of name and value, prose."""
    for match in _COMPARED.finditer(data):
        span = match.span(1) if match.start(1) >= 0 else match.span(2)
        kind = name_kind((match.group(3) or b"").decode())
        if kind and is_secret(kind, data[slice(*span)].decode("utf-8", "replace"), quoted=True):
            yield Finding(*span, "secret")
    for match in _BESIDE.finditer(data):
        span = match.span(1) if match.start(1) >= 0 else match.span(2)
        value = data[slice(*span)].decode("utf-8", "replace")
        if name_kind(_name(data, match, cut=b"\"' ,\t\n")) in ("password", "secret", "token") and _complex(value):
            yield Finding(*span, "secret")
    for match in _OPTION.finditer(data):
        words = data[match.start() : match.start(1)].decode("latin-1").strip(" \t\n\"'-")
        kind = name_kind(words)
        value = data[slice(*match.span(1))].decode("utf-8", "replace")
        if kind and not value.startswith("-") and is_secret(kind, value, quoted=kind != "token"):
            yield Finding(*match.span(1), "secret")
    for match in _ELEMENT.finditer(data):
        kind = name_kind(data[match.start() + 1 : match.start(1)].decode("latin-1").split()[0].rstrip(">"))
        if kind and is_secret(kind, data[slice(*match.span(1))].decode("utf-8", "replace"), quoted=True):
            yield Finding(*match.span(1), "secret")
    for match in _PAIR.finditer(data):
        start, end, _ = _value(match, first=2)
        kind = name_kind((match.group(1) or b"").decode("latin-1"))
        if kind and is_secret(kind, data[start:end].decode("utf-8", "replace"), quoted=True):
            yield Finding(start, end, "secret")


def carried(data: bytes) -> Iterator[Finding]:
    """Headers, addresses with a password in them, signed addresses, `curl -u`, `.netrc`, "the password is"."""
    for pattern, check in _CARRIED:
        for match in pattern.finditer(data):
            start, end = match.span(1 if match.start(1) >= 0 else 2)
            value = data[start:end].decode("utf-8", "replace")
            if check(value):
                yield Finding(start, end, "secret")
    for match in _SCHEME.finditer(data):
        start, end = match.span(1)
        value = data[start:end].decode()
        basic = data[match.start() : match.start() + 5].lower() == b"basic"
        if _is_basic(value) if basic else looks_random(value) or (_complex(value) and len(value) >= 12):
            yield Finding(start, end, "secret")
    for match in _SAID.finditer(data):
        start, end = match.span(1)
        value = data[start:end].rstrip(b".,;!?")
        if _complex(value.decode("utf-8", "replace")):
            yield Finding(start, start + len(value), "secret")


def _value(match: Match, *, first: int) -> tuple[int, int, bool]:
    """Where the value stands, and whether in quotes; the last group is the bare one."""
    last = first + 5
    for group in range(first, last + 1):
        if match.start(group) >= 0:
            return match.start(group), match.end(group), group != last
    raise AssertionError("a match without a value")


def _name(data: bytes, match: Match, *, cut: bytes = b"\"'`\\ \t:=!>%") -> str:
    """The whole name of which the pattern matched the telling part."""
    before = _NAME_BEFORE.search(data[max(0, match.start() - 60) : match.start()])
    head = before[0] if before else b""
    tail = data[match.start() : match.start() + 80]
    end = next((at for at, byte in enumerate(tail) if byte in cut), len(tail))
    name = (head + tail[:end]).decode("latin-1")
    # In escaped text a line feed reads `\n`, and its n is no part of the name.
    at = match.start() - len(head)
    return name[1:] if name[:1] in "nrt" and data[at - 1 : at] == b"\\" else name


def _words_after(data: bytes, end: int) -> bytes:
    """What follows on the line, when it starts with a further word."""
    rest = data[end : end + 300].partition(b"\n")[0].rstrip()
    return rest if re.match(rb" [A-Za-z|]", rest) else b""


def _is_phrase(data: bytes, match: Match, value: str, words: bytes) -> bool:
    """Whether a line is a name and a phrase of plain words: a YAML value, and not a sentence about the name."""
    name_at = match.start()
    head = data[data.rfind(b"\n", 0, name_at) + 1 : name_at]
    phrase = value.encode() + words
    plain = re.fullmatch(rb"[a-z]{1,20}(?: [a-z0-9]{1,20}){1,8}", phrase)
    return bool(plain and re.fullmatch(rb"[\w\s-]{0,60}", head)) and not _SENTENCE & set(phrase.split())


def _unclosed(value: bytes) -> bytes:
    """Without the bracket that closes something before the value."""
    text = value.decode("latin-1")
    while text and text[-1] in _CLOSING and text.count(text[-1]) > text.count(_CLOSING[text[-1]]):
        text = text[:-1]
    return text.encode("latin-1")


def _complex(value: str) -> bool:
    """No plain word or name: has a digit next to letters, or several symbols."""
    letters, digits = any(c.isalpha() for c in value), any(c.isdigit() for c in value)
    symbols = sum(not c.isalnum() and c not in "-_./" for c in value)
    return (letters and digits) or (letters and symbols >= 2)


def _is_basic(value: str) -> bool:
    """Whether it is base64 of `user:password`."""
    try:
        plain = base64.b64decode(value + "=" * (-len(value) % 4), validate=True)
    except (ValueError, binascii.Error):
        return False
    return b":" in plain and all(32 <= byte < 127 or byte >= 0xC2 for byte in plain)
