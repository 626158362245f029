"""Which names stand for secrets: `accessToken` and `db_password` do, `max_tokens` and `password_policy` do not."""

import re
from functools import lru_cache
from typing import Literal

NameKind = Literal["password", "secret", "token", "key"]
"""How much a name alone says. A password may be any word; a token or key looks random."""

_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


_KINDS: dict[str, NameKind] = {
    **dict.fromkeys(_set("password passwords passwd passwort passphrase passcode pwd pass pw"), "password"),
    **dict.fromkeys(
        _set("secret secrets secrete credential credentials creds apikey privatekey secretkey accesskey authkey"),
        "secret",
    ),
    **dict.fromkeys(
        _set("token authtoken accesstoken refreshtoken sessiontoken bearertoken authorization authentication "
             "cookie jwt sessionid sessid jsessionid phpsessid sessionkey"),
        "token",
    ),
}  # fmt: skip
_ENDINGS = tuple(
    word for word in _KINDS if len(word) >= 6 and word not in ("secrete", "cookie", "authentication", "secrets")
)
_KEY_OF = _set("api access secret private account auth signing encryption shared master service deploy license session "
               "webhook app client hmac subscription admin write")  # fmt: skip
# A name with one of these after its secret word speaks about the secret and does not hold it.
_ABOUT = _set("""
    count counts type types length len size limit limits max min policy policies reset resets expires expiry
    expiration expired expire ttl age at on date time timestamp url uri urls uris endpoint path paths file files
    filename dir folder name names id ids field fields column label hint prompt placeholder strength score regex
    pattern format formats validator rules rule required enabled disabled valid invalid changed updated created
    used usage budget cost price per rate index idx position offset ref refs arn version versions manager store
    provider class algorithm alg encoding status state error errors message msg attempts retries history mode
    method prefix mask logprobs embedding embeddings model source env var mount stats ratio total sum
    description title button page form link screen view list exists needed missing free less authentication auth
    grant rotation rotate audience issuer scope scopes lifetime duration
    """)  # fmt: skip
_OTHER_TOKENS = _set("""
    next page previous prev continuation continue cursor pagination sync resume max min stop eos bos pad unk sep
    cls special start end per num n total input output prompt completion cached reasoning first last current
    unexpected syntax word sub lexer parse cancellation cancel design
    """)  # fmt: skip
OTHER_KEYS = _set("""
    public primary foreign sort partition cache object row routing idempotency dedupe dedup index group join
    composite unique natural surrogate lookup map dict hot function arrow registry event message hash range
    order range shard translation i18n locale label field json s3 blob storage file item answer column attribute
    property config issue project ticket
    """)  # fmt: skip


def words_of(name: str) -> list[str]:
    """`accessToken2` -> access, token, 2; in lower case."""
    return [word.lower() for word in _WORDS.findall(name)]


@lru_cache(maxsize=4096)
def name_kind(name: str) -> NameKind | None:
    """What a value under this name is, or None when the name says nothing of a secret."""
    words = words_of(name)
    for at in range(len(words) - 1, -1, -1):
        kind = _kind_at(words, at)
        if kind is None:
            continue
        if any(word in _ABOUT for word in words[at + 1 :]):
            return None
        if kind == "token" and at and words[at - 1] in _OTHER_TOKENS:
            return None
        return kind
    return None


def _kind_at(words: list[str], at: int) -> NameKind | None:
    word, before = words[at], words[at - 1] if at else ""
    if word in ("pass", "pw") and len(words) == 1:
        return None  # "pass: 12 tests"
    if word in _KINDS:
        return _KINDS[word]
    if word.endswith(_ENDINGS):
        ending = next(ending for ending in _ENDINGS if word.endswith(ending))
        return _KINDS[ending]
    if word == "key" and before in _KEY_OF:
        return "secret"
    if word == "key" and before and before not in OTHER_KEYS and at == len(words) - 1:
        return "key"
    return None


def names_secret(name: str) -> bool:
    """Whether a field of this name holds a secret, whatever is in it: `accessToken` yes, `token_count` no."""
    return name_kind(name) in ("password", "secret", "token")
