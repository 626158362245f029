"""Whether what stands under a secret's name is a secret: not a placeholder, a word of code, or prose."""

import math
import re
from collections import Counter
from itertools import pairwise

from policies.redaction.names import NameKind, name_kind, words_of

_TEMPLATE = re.compile(
    r"""\$\{|\$\(|\$[A-Z_]+\b|\{\{|<[^<>]*>|%[sd(]|\{[a-z_.]*\}|\[redacted|\*{3,}|\.{3}|(?P<same>[xX*#.\-_•])(?P=same)*$
      | your[_ -] | [_ -]here$ | change[_-]?me | insert[_ -] | (?:process|import\.meta|os)\.env | getenv | environ
      | [a-z_-]*(?:fake|dummy|placeholder)[a-z_-]*$ | (?:secret|vault|env|ref|ssm|op|arn|file|https?|kms):
      | (?:[.~]{0,2}/)(?:[a-z][a-z0-9._-]*/)+[a-z0-9._-]*$""",
    re.VERBOSE,
)
"""At its start, a value that stands for another."""
_CODE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(?:(?:\.|::|->)[A-Za-z_][A-Za-z0-9_]*)*(?:[(\[].*|[!?]?)$", re.DOTALL)
"""A name, a path of names, a call, an index."""
_CALL = re.compile(r"[A-Za-z_][\w.:]*[(\[]")
_WORD_AND_YEAR = re.compile(r"[A-Za-z]{3,}(?!(?:224|256|384|512)$)[0-9]{3,}$")
"""What people make up: a word and a number, which is not that of a hash function."""
_PROSE = frozenset(
    """
    a all amd64 an and any arm64 are array as at be basic bearer bool boolean by bytes can cannot cant changed
    default denied did digest do does empty encrypted enter error exception expired failed false for from has
    have hidden if in incorrect int integer invalid is it login mandatory masked may missing mismatch must my
    new nil no none not null nullptr number object off ok old on only optional or please prompt provided
    redacted removed required reset self set should show str string strong text that the this to true type
    typing undefined unset unknown updated use user username valid void was weak weil when which will with
    wrong yes you your
    """.split()  # noqa: SIM905  (words)
)
_SEPARATED = re.compile(r"[\s_.-]+")


def entropy(value: str) -> float:
    """Bits a character, judged by the value's own letters."""
    size = len(value)
    return -sum(n / size * math.log2(n / size) for n in Counter(value).values()) if size else 0.0


def looks_random(value: str, *, at_least: int = 16) -> bool:
    """Long, of letters and digits that change often: a generated value and not words or a number."""
    if len(value) < at_least or not value.isascii():
        return False
    classes = [("d" if c.isdigit() else "u" if c.isupper() else "l" if c.islower() else "") for c in value]
    if "d" not in classes or not ({"u", "l"} & set(classes)):
        return False
    changes = sum(1 for a, b in pairwise(classes) if a and b and a != b)
    return changes >= 3 and entropy(value) >= 2.3


def is_secret(kind: NameKind, value: str, *, quoted: bool, spaced: bool = False, name: str = "") -> bool:
    """Whether `value`, found under a name of this kind, is a secret.

    `quoted`: it stood in quotes. `spaced`: there were spaces around a single `=`, as code has it.
    """
    value = value.strip()
    if value.startswith("[redacted"):
        return True  # taken out already: what belongs to it goes too
    if len(value) < 3 or not any(c.isalnum() for c in value) or _stands_for_another(value, name):
        return False
    digit = any(c.isdigit() for c in value)
    if kind == "key":
        return looks_random(value, at_least=20) and not _is_words(value)
    if not quoted and _CODE.fullmatch(value) and not looks_random(value):
        # `token = new_token(2)`, `password = prompt`; but a settings file has `password = aB3dE5fG` and `= Winter2026`.
        made = looks_random(value, at_least=8) or (kind == "password" and _WORD_AND_YEAR.match(value))
        if _CALL.match(value) or (spaced and not made):
            return False
    if kind == "password":
        return len(value) >= 4
    if kind == "secret" and quoted:
        return True
    if value.isdigit():
        return len(value) >= 16
    if digit:
        return len(value) >= 8
    if " " in value:
        return False
    symbols = sum(not c.isalnum() and c not in "-_." for c in value)
    mixed = len(value) >= 16 and value.lower() != value and value.upper() != value and not _is_words(value)
    return symbols >= 3 or mixed or (len(value) >= 24 and value.isalpha())


def _stands_for_another(value: str, name: str) -> bool:
    lowered = value.lower()
    if _TEMPLATE.match(lowered) or _TEMPLATE.match(value):
        return True
    if lowered.rstrip(".,;:!?)]}") in _PROSE:
        return True
    if not any(c.isdigit() for c in value) and all(c.isalpha() or c in " _-.*:!?'’,;()[]{}&|" for c in value):
        # "Your password", settings.api_key, `password: Optional[Password]`: words of which one names a secret.
        parts = words_of(value)
        return any(name_kind("x_" + part) is not None for part in parts) or lowered == name.lower()
    return False


def _is_words(value: str) -> bool:
    """Words with separators, or a camel-cased name, and at most a number at the end."""
    parts = [part for part in _SEPARATED.split(value) if part]
    if len(parts) > 1:
        return all(part.isalpha() or part.isdigit() for part in parts)
    runs = words_of(value)
    return len(value) / max(1, len(runs)) >= 4 and not any(c.isdigit() for c in value[:-3])
