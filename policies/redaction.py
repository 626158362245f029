"""Takes secrets out of text and JSON before they reach a model, the audit log, a log line or a reviewer.

Shapes are matched with RE2 in one pass, so no input can make it slow. This is a net, not a wall: it knows the common
shapes, keys that name a secret, and the exact secrets the process holds (`Redactor`); it cannot know others.
"""

import json
import re
from collections.abc import Callable, Iterable
from typing import Protocol, cast
from urllib.parse import quote

import re2  # pyright: ignore[reportMissingTypeStubs]
from pydantic import JsonValue

MARK = "[redacted]"
MIN_KNOWN = 6
"""A known secret shorter than this is not scrubbed: it would blank out ordinary words."""

_KEY_LABEL = r"[A-Z ]{0,40}PRIVATE KEY[A-Z ]{0,8}"
_SHAPES = (
    rf"-----BEGIN {_KEY_LABEL}-----(?s:.*?)(?:-----END {_KEY_LABEL}-----|\z)",
    r"\beyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*",  # JSON Web Token
    r"\bgh_[A-Za-z0-9]{4,64}_[A-Za-z0-9_-]{16,}",  # our own API keys
    r"\bgh[pousr]_[A-Za-z0-9]{30,255}",  # GitHub
    r"\bgithub_pat_[A-Za-z0-9_]{22,255}",
    r"\bglpat-[A-Za-z0-9_-]{20,}",  # GitLab
    r"\bsk-[A-Za-z0-9_-]{20,}",  # OpenAI, Anthropic and others
    r"\b(?:AKIA|ASIA|ABIA|ACCA|A3T[0-9A-Z])[0-9A-Z]{16}\b",  # AWS access key id
    r"\bAIza[0-9A-Za-z_-]{35}",  # Google
    r"\bxox[abeoprs]-[A-Za-z0-9-]{10,}",  # Slack
    r"\bhooks\.slack\.com/services/[A-Za-z0-9/]{20,}",
    r"\b[MNO][A-Za-z0-9_-]{23,25}\.[A-Za-z0-9_-]{6}\.[A-Za-z0-9_-]{27,38}",  # Discord
    r"\b[0-9a-f]{32}-us[0-9]{1,2}\b",  # Mailchimp
    r"\bsq0(?:csp|atp)-[A-Za-z0-9\\_-]{22,}",  # Square
    r"\b[rs]k_(?:live|test)_[0-9A-Za-z]{16,}",  # Stripe
    r"\bnpm_[A-Za-z0-9]{36}",
    r"\bpypi-AgE[A-Za-z0-9_-]{40,}",
    r"\bhf_[A-Za-z0-9]{30,}",
    r"\bSG\.[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{16,}",  # SendGrid
)
# `_pass` and not `pass`: "pass: 12 tests" is no secret.
_NAMES = (
    r"(?:password|passwd|passphrase|_pass|pwd|secret|token|api[_-]?key|access[_-]?key|secret[_-]?key|private[_-]?key"
    r"|account[_-]?key|auth[_-]?key|signing[_-]?key|credentials?)"
)
_SPACES = r"[ \t]{0,4}"
_IS = rf"{_SPACES}(?:=>|[:!]?={{1,3}}|:){_SPACES}"
# What stays before and after the secret is captured; what is between is replaced.
_KEPT = (
    r"((?i:\bbearer)\s+)[A-Za-z0-9._~+/=-]{12,}",
    r"((?i:\bauthorization\\?[\"']?\s{0,4}[:=]\s{0,4}\\?[\"']?(?:basic|token|apikey))\s+)[A-Za-z0-9._~+/=-]{6,}",
    r"(\b[A-Za-z][A-Za-z0-9+.-]{1,30}://[^\s:/@\"'<>]{0,100}:)[^\s@\"'<>/]+(@)",
    rf"((?i:{_NAMES})\\?[\"'`]?{_IS}\\?\")[^\"\\\n]+",
    rf"((?i:{_NAMES})\\?[\"'`]?{_IS}\\?')[^'\\\n]+",
    rf"((?i:{_NAMES})\\?[\"'`]?{_IS}`)[^`\n]+",
    rf"((?i:{_NAMES})(?:{_SPACES}(?:=>|:?={{1,3}}){_SPACES}|:[ \t]+))[^\s\"'`,;&\\]{{4,}}",
    rf"((?i:{_NAMES}):)[^\s\"'`,;&\\/]{{16,}}",
    rf"((?:\s|\A)(?i:--?[a-z0-9-]{{0,40}}{_NAMES})\s+[\"']?)[^\s\"']{{4,}}",  # an option on a command line
)

_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")
_SECRET_WORDS = frozenset(
    {"password", "passwd", "passphrase", "pwd", "secret", "secrets", "token", "apikey", "authorization", "cookie",
     "credential", "credentials", "privatekey", "accesskey", "secretkey"}
)  # fmt: skip
_KEY_OF = frozenset({"api", "access", "secret", "private", "account", "auth", "signing", "encryption"})


class _Match(Protocol):
    lastindex: int | None

    def groups(self) -> tuple[str | None, ...]: ...


class _Pattern(Protocol):
    def sub(self, repl: Callable[[_Match], str], text: str) -> str: ...
    def search(self, text: str) -> object | None: ...


def _compile(pattern: str) -> _Pattern:
    options = re2.Options()
    options.max_mem = 64 << 20
    options.log_errors = False
    return cast("_Pattern", re2.compile(pattern, options=options))  # pyright: ignore[reportUnknownMemberType]


_ALL = _compile("|".join((*_SHAPES, *_KEPT)))


def _replace(match: _Match) -> str:
    kept = [group for group in match.groups() if group is not None]
    return kept[0] + MARK + "".join(kept[1:]) if kept else MARK


def redact(text: str) -> str:
    """`text` with every secret of a known shape replaced by `[redacted]`; what names it (`password=`) stays."""
    return _ALL.sub(_replace, text) if text and _ALL.search(text) else text


def redact_json(value: JsonValue) -> JsonValue:
    """As `redact` on every string; the whole value of a key that names a secret (`api_key`, never `max_tokens`)."""
    return _walk(value, redact)


def names_secret(key: str) -> bool:
    """Whether a field of this name holds a secret. Judged by its last words: `accessToken` yes, `token_count` no."""
    words = [w.lower() for w in _WORDS.findall(key)]
    if not words:
        return False
    return words[-1] in _SECRET_WORDS or (words[-1] == "key" and len(words) > 1 and words[-2] in _KEY_OF)


class Redactor:
    """`redact` plus the exact secrets this process holds, also as JSON and URLs write them."""

    def __init__(self, known: Iterable[str]):
        forms = {f for s in known if len(s) >= MIN_KNOWN for f in (s, json.dumps(s)[1:-1], quote(s, safe=""))}
        ordered = sorted(forms, key=lambda form: (-len(form), form))  # the longest first: RE2 takes the first that fits
        escaped = "|".join(cast("str", re2.escape(form)) for form in ordered)  # pyright: ignore[reportUnknownMemberType]
        self._known = _compile(escaped) if escaped else None

    def text(self, text: str) -> str:
        """`text` without known secrets and known shapes."""
        if self._known is not None and self._known.search(text):
            text = self._known.sub(lambda _: MARK, text)
        return redact(text)

    def json(self, value: JsonValue) -> JsonValue:
        """As `redact_json`, with the known secrets; keys are scrubbed too."""
        return _walk(value, self.text)


def _walk(value: JsonValue, scrub: Callable[[str], str]) -> JsonValue:
    if isinstance(value, str):
        return scrub(value)
    if isinstance(value, list):
        return [_walk(item, scrub) for item in value]
    if isinstance(value, dict):
        return {scrub(k): _hidden(v) if names_secret(k) else _walk(v, scrub) for k, v in value.items()}
    return value


def _hidden(value: JsonValue) -> JsonValue:
    """None and flags tell nothing and stay readable."""
    return value if value is None or isinstance(value, bool) else MARK
