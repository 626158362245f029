"""Cheap patterns that match wherever a detector could: a line without such a match is never looked at closely."""

import re

from policies.redaction.assignments import NAMED as COUNTED
from policies.redaction.scan import compiled
from policies.redaction.tokens import SHAPES

_LITERAL = re.compile(r"(?:\\[.$/{}]|\[[^\]]*\](?![{?*+])|\{(?=SSHA)|[^\\\[\](){}|?*+^$.])+")
_HEX = "[0-9a-f]"
NAMED = COUNTED.replace("{0,40}", "*")
_INNER = (
    r"A3T[A-Z0-9]", "AKIA", "ASIA", "ABIA", "ACCA", r"[78]Q~", "AZDO", r"\+ASt", "ACDb", "AzFu", "AIoT",
    r"\.atlasv1\.", r"webhook\.office\.com", r"discord(?:app)?\.com/api/webhooks", r"xox[abeoprs]-", r"[0-9]:AA[\w-]",
    r"-us[0-9]", rf"{_HEX}-{_HEX}{{8}}-{_HEX}{{8}}\b", r"[sr]k_(?:live|test|prod)_", rf"(?:AC|SK){_HEX}{{8}}",
    r"(?:sdk|api|mob)-[0-9a-f]{8}-", r"[sp]k\.eyJ", r"[ps]at\.[\w-]{8}", r"[0-9]/[0-9]{16}:",
    r"(?:live|test)_[0-9a-z]", r"A{21}", r"\$(?:1|5|6|y|2[abxy]?|apr1|argon2(?:id|i|d))\$",
    r"[MNOA][A-Za-z0-9_-]{20}", "pa-", "esecret-", "eyJ", r"AP[0-9A-F][A-Za-z0-9]{10}", r"AKC[A-Za-z0-9]{10}",
    r"s[lk]?\.[A-Za-z0-9]{8}", r"x(?:keysib|smtpsib)-", r"gl[a-z]{2,5}-[\w.-]",
    r"\{SSHA", "sk-[A-Za-z0-9_-]{4}", r"pbkdf2_sha", "NR(?:AK|II|JS|AA)-",
)  # fmt: skip


def head(shape: str) -> str:
    """The literal start of a shape, or nothing when it is too short to tell anything."""
    match = _LITERAL.match(shape)
    return match[0] if match and len(re.sub(r"\[[^\]]*\]|\\", "x", match[0])) >= 3 else ""


_HEADS = sorted({start for shape in SHAPES if (start := head(shape))})
_ASSIGNMENTS = (
    rf"{NAMED}(?:\[\w*\])?(?:\\*[\"'`])?(?:[ \t]*(?:[=:,>!]|%3[dD])|[ \t]+[\"'])",
    rf"-[\w.-]*{NAMED}[ \t]",
    r"(?i:pass\s?(?:word|code|phrase)|pwd)\s+\S",
    rf"{NAMED}[\w.-]*[\"']?,?\s+\"?value",
    r"(?i:key)\\*[\"'`]?[ \t]*(?:=|:|!=)[=>]?[ \t]*\\*[\"'`]?[A-Za-z0-9+/_=~.-]{16}",
    r"\b(?:login|user)[ \t]+\S+\s+password",
    r"[\"'][ \t]*[!=]=?=[ \t]*[A-Za-z_$]",
    r"(?i:bearer|basic|negotiate|digest|\btoken|apikey|authorization)[\"':=\\, \t]+[A-Za-z0-9._~+/=-]{3}",
    r"(?i:cookie)\\*[\"']?[ \t]*[:,]",
    r"://[^\s/?#@\"'<>]*:[^\s/@\"'<>]+@",
    r"(?i:[?&;](?:sig|signature|x-amz-s|x-goog-s|hmac|code_verifier|assertion|key|sessid|sid|_?auth|passwd|otp))",
    r":_(?:auth|password)",
    r"\s(?:-u|--user)[ =][\"']?[^\s:'\"]+:",
    r"(?:sshpass|docker login|podman login|registry login)\b",
    r"(?i:cloudant|\bclou?[_-])", r"(?i:softlayer\.com)",
    r"(?i:\bidentified\s)", r"\b(?:mysql|mariadb)[^\n]*\s-p\S", r"\"(?:auth|identitytoken)\\*\"[ \t]*:",
)  # fmt: skip

SECRETS_GATE = compiled("|".join((*_HEADS, *_INNER, *_ASSIGNMENTS)))
PERSONAL_GATE = compiled(
    r"(?:@|%40|\\u0040)[A-Za-z0-9\x80-\xff]"
    r"|\b[0-9]{8}|\b[0-9]{4}[ -][0-9]{4}[ -][0-9]{4}|\b[0-9]{4}[ -][0-9]{6}[ -]|\b[12] [0-9]{2} [0-9]{2} "
    r"|\b[A-Za-z]{2}[0-9]{2} ?[A-Za-z0-9]{4}[ 0-9]"
    r"|[+(][0-9]{1,5}[) ./-]|\b[0-9]{3}[-.][0-9]{3}[-. ][0-9]{3}|\b[2-9][0-9]{2} [0-9]{3} [0-9]{4}"
    r"|\b0[0-9]{1,4}[ ./-][0-9]{2}"
    r"|\b[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3}\."
    r"|\b[23][0-9A-Fa-f]{3}:[0-9A-Fa-f]{0,4}:"
    r"|\b[XYZSTFGM]-?[0-9]{7}|\b[A-Z]{2} ?[0-9]{2} ?[0-9]{2} ?[0-9]|\b(?i:[a-z]{6}[0-9]{2})|\b[A-Z]{5}[0-9]{4}"
    r"|\b[0-9]{6}[-+A]|\b[0-9]{3}-[0-9]{2}-[0-9]|\b[0-9]{3}\.[0-9]{3}\.|\bbc1[02-9a-z]{8}"
    r"|\b[13][1-9A-HJ-NP-Za-km-z]{20}"
    r"|(?i:phone|\btel|mobile|cell|fax|whatsapp|msisdn|\bcall|\btext|\breach|contact|\bring|registered|ssn|social|\btax"
    r"|itin|\bsin|tfn|bsn|nhs|steuer|aadhaar|pesel|national|passport|licen|medical|\bmrn|\bnpi|insurance|account|acct"
    r"|routing|sort.code|konto|\bzip|\bpost|\bplz|\bcvv|\bcvc|card|\bpin|dob\b|d\.o\.b|birth|born|geb[ou]r|n\xc3\xa9e?)"
    r"[^0-9]{0,16}[0-9]"
)
