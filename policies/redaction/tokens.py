"""Tokens that can be told by their shape alone, from the formats their issuers publish."""

import re
from collections.abc import Iterator

from policies.redaction.scan import Finding, compiled
from policies.redaction.values import looks_random

_HEX = "[0-9a-f]"
_UUID = rf"{_HEX}{{8}}-{_HEX}{{4}}-{_HEX}{{4}}-{_HEX}{{4}}-{_HEX}{{12}}"

_PREFIXED = (
    # Clouds and hosting.
    r"(?:A3T[A-Z0-9]|AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{16}\b",  # AWS
    r"ABSK[A-Za-z0-9+/]{100,270}={0,2}", r"bedrock-api-key-[A-Za-z0-9+/=]{30,}",
    r"AIza[\w-]{35}", r"ya29\.[\w-]{20,}", r"GOCSPX-[\w-]{20,}", r"1//0[\w-]{40,}",  # Google
    # Azure
    r"[A-Za-z0-9_~.]{3}[78]Q~[A-Za-z0-9_~.-]{31,34}", r"[A-Za-z0-9]{76}AZDO[A-Za-z0-9]{4}",
    r"[A-Za-z0-9+/]{76}(?:\+ASt|ACDb|AzFu|AIoT)[A-Za-z0-9+/]{5}[AQgw]={0,2}",
    rf"do[opr]_v1_{_HEX}{{64}}", r"LTAI[A-Za-z0-9]{12,24}\b", r"AKID[A-Za-z0-9]{32}\b", r"AQVN[\w-]{35,38}",
    r"t1\.[\w-]{10,}={0,2}\.[\w-]{86}={0,2}",
    r"HRKU-AA[\w-]{40,}", r"fo1_[\w-]{40,}", r"fm[12][ar]?_[A-Za-z0-9+/=_,-]{60,}",
    rf"v1\.0-{_HEX}{{24}}-{_HEX}{{146}}", r"SCW[A-Z0-9]{17}\b", r"nf[pcub]_[A-Za-z0-9]{36,}",
    rf"sbp_{_HEX}{{40}}", r"sb_secret_[\w-]{20,}", r"pscale_(?:tkn|oauth|pw)_[\w=.-]{32,64}",
    rf"dapi{_HEX}{{32}}(?:-\d)?", r"AVNS_[\w-]{15,}", r"cfk_[A-Za-z0-9]{40,}",
    r"dp\.(?:pt|ct|sa|scim|audit|st(?:\.[\w-]{1,40})?)\.[A-Za-z0-9]{40,44}", r"hv[sbr]\.[\w-]{24,}",
    r"[A-Za-z0-9]{14}\.atlasv1\.[\w=-]{60,70}", rf"pul-{_HEX}{{40}}",
    r"ops_eyJ[A-Za-z0-9+/=]{100,}", r"A3-[A-Z0-9]{6}-[A-Z0-9]{6,11}(?:-[A-Z0-9]{5}){3,4}",
    r"tskey-[a-z]{2,12}-[\w-]{10,}", r"s\.[A-Za-z0-9]{24}\b",
    # Forges, packages, builds.
    r"gh[pousr]_[A-Za-z0-9]{30,255}", r"github_pat_\w{22,255}",
    r"gl(?:pat|dt|ft|soat|rt|cbt|imt|ptt|agent|oas|ffct|wt)-[\w.-]{20,}", r"GR1348941[\w-]{20,}",
    r"ATBB[A-Za-z0-9]{24,}", r"ATATT3[\w=-]{60,}", r"ATCTT3[\w=-]{60,}", r"npm_[A-Za-z0-9]{36}",
    r"pypi-AgE[\w-]{40,}", rf"rubygems_{_HEX}{{48}}", r"CLOJARS_[a-z0-9]{60}",
    r"cio[A-Za-z0-9]{32}\b", r"oy2[a-z0-9]{43}\b", r"dckr_(?:pat|oat)_[\w-]{20,}", r"cmVmdGtu[A-Za-z0-9]{40,}",
    r"AKCp[A-Za-z0-9]{60,}",
    rf"bku[ar]_{_HEX}{{40}}", r"CCIP(?:AT|RJ)_[\w-]{30,}", rf"sq[upa]_{_HEX}{{40}}", r"API-[A-Z0-9]{26}\b",
    r"sha256~[\w-]{43}", rf"s-s4t2(?:ud|af)-{_HEX}{{64}}", r"pnu_[a-z0-9]{36}", r"gto_[a-z2-7]{52}",
    # Work and data.
    r"lin_(?:api|oauth)_[A-Za-z0-9]{40}", r"fig[dour]_[\w-]{40,}", rf"PMAK-{_HEX}{{24}}-{_HEX}{{34}}",
    r"ntn_[A-Za-z0-9]{40,}", r"secret_[A-Za-z0-9]{43}\b", rf"pat[A-Za-z0-9]{{14}}\.{_HEX}{{64}}",
    rf"[0-9]/[0-9]{{16}}:{_HEX}{{32}}", r"pk_[0-9]{6,10}_[A-Z0-9]{32}", r"tfp_[\w.=-]{44,}", r"CFPAT-[\w-]{43}",
    rf"pat-(?:na|eu)[0-9]-{_UUID}", r"[sp]k\.eyJ[\w-]{10,}\.[\w-]{10,}",
    r"sl\.[\w-]{100,}", r"fio-u-[\w=-]{64}", r"p8e-[a-z0-9]{32}", r"[ps]at\.[\w-]{22}\.[0-9a-f]{24}\.[A-Za-z0-9]{20}",
    r"dop_v1_[0-9a-f]{64}", r"rdme_[a-z0-9]{70}",
    r"glsa_[A-Za-z0-9]{32}_[0-9A-Fa-f]{8}", r"glc_[A-Za-z0-9+/=]{32,}", r"NR(?:AK|II|JS|AA)-[A-Za-z0-9_-]{16,}",
    r"sntrys_[A-Za-z0-9+/=_]{60,}", rf"sntryu_{_HEX}{{64}}",
    r"dt0[a-z][0-9]{2}\.[A-Z0-9]{24}\.[A-Z0-9]{64}", rf"(?:sdk|api|mob)-{_UUID}",
    rf"sgp_(?:(?:local|{_HEX}{{16}})_)?{_HEX}{{40}}", r"ico-[A-Za-z0-9]{32}\b",
    # Money.
    r"(?:sk|rk)_(?:live|test|prod)_[0-9A-Za-z]{10,}", r"whsec_[A-Za-z0-9+/=]{24,}",
    r"sq0(?:csp|atp|idp)-[\w\\-]{22,}", r"EAAA[\w-]{60}\b", r"shp(?:at|ca|pa|ss|ua|tka)_[0-9a-fA-F]{32}",
    rf"access-(?:sandbox|development|production)-{_UUID}", r"rzp_(?:live|test)_\w{14,}",
    r"access_token\$(?:production|sandbox)\$[0-9a-z]{16}\$[0-9a-f]{32}",
    r"EZ[AT]K[A-Za-z0-9]{54}", rf"shippo_(?:live|test)_{_HEX}{{40}}", r"FLW(?:PUB|SEC)K(?:_TEST)?-[0-9a-h]{32}-X",
    rf"(?:live|test)_(?:pub_)?{_HEX}{{35}}\b", r"duffel_(?:live|test)_[\w=-]{43}",
    # Messages.
    r"xox[abeoprs]-[A-Za-z0-9-]{10,}", r"xoxe\.xox[bp]-\d-[A-Za-z0-9-]{10,}", r"xapp-\d-[A-Z0-9]+-\d+-[a-f0-9]{20,}",
    r"xwfp-[A-Za-z0-9-]{20,}",
    r"hooks\.slack\.com/(?:services|workflows|triggers)/[A-Za-z0-9+/]{20,}",
    r"(?:discord|discordapp)\.com/api/webhooks/[0-9]{10,}/[\w-]{50,}",
    r"[\w-]{1,60}\.webhook\.office\.com/webhookb2/[\w@-]{30,}/IncomingWebhook/[\w-]{20,}(?:/[\w-]{20,})?",
    r"[0-9]{8,10}:AA[\w-]{33}", rf"(?:AC|SK){_HEX}{{32}}\b", r"SG\.[\w-]{16,}\.[\w-]{16,}", rf"key-{_HEX}{{32}}\b",
    rf"{_HEX}{{32}}-us[0-9]{{1,2}}\b", rf"{_HEX}{{32}}-{_HEX}{{8}}-{_HEX}{{8}}\b",
    rf"x(?:keysib|smtpsib)-{_HEX}{{64}}-[A-Za-z0-9]{{16}}", r"EAA[A-Za-z0-9]{80,}", r"A{21}[\w%]{30,}",
    r"AAAA[\w-]{7}:[\w-]{140}",
    # Model providers.
    r"gsk_[A-Za-z0-9]{40,}", r"hf_[A-Za-z0-9]{30,}", r"api_org_[A-Za-z0-9]{34}", r"r8_[A-Za-z0-9]{37}",
    r"pplx-[A-Za-z0-9]{40,}", r"xai-[A-Za-z0-9]{60,}", r"fw_[A-Za-z0-9]{22,}", r"tgp_v1_[\w-]{30,}",
    rf"lsv2_(?:pt|sk)_{_HEX}{{32}}_{_HEX}{{10}}", r"pcsk_[A-Za-z0-9]{5,}_[A-Za-z0-9]{40,}", r"tvly-[A-Za-z0-9-]{20,}",
    r"nvapi-[\w-]{50,}", r"csk-[a-z0-9]{40,}", rf"sk_{_HEX}{{40,}}", r"jina_[\w-]{50,}", rf"fc-{_HEX}{{32}}\b",
    r"AGE-SECRET-KEY-1[A-Z0-9]{58}", r"gh_[A-Za-z0-9]{4,64}_[\w-]{16,}",  # age; our own
)  # fmt: skip
_HASHES = (  # of passwords
    r"\$2[abxy]?\$[0-9]{2}\$[./A-Za-z0-9]{53}", r"\$(?:1|5|6|y|apr1)\$[^\s$:\"']{1,40}\$[./A-Za-z0-9$]{20,}",
    r"\$argon2(?:id|i|d)\$[^\s:\"']{20,}", r"pbkdf2_sha(?:256|512)\$[0-9]+\$[^\s\"']{20,}",
    r"\{SSHA(?:256|512)?\}[A-Za-z0-9+/=]{20,}",
)  # fmt: skip
# Like words or numbers at first sight: a check decides.
_DOUBTFUL: tuple[tuple[str, str], ...] = (
    (r"sk-[A-Za-z0-9_-]{20,}", "random"),  # OpenAI, Anthropic, OpenRouter, DeepSeek and others
    (r"(?:pa|esecret)-[\w-]{40,}", "random"),
    (r"AP[0-9A-F][A-Za-z0-9]{10,}\b", "upper"),  # Artifactory
    (r"AKC[A-Za-z0-9]{10,}\b", "upper"),
    (r"[MNOA][A-Za-z0-9_-]{23,25}\.[A-Za-z0-9_-]{6}\.[A-Za-z0-9_-]{27,40}", "random"),  # Discord
    (r"md-[A-Za-z0-9_-]{22}\b", "random"),
    (
        r"eyJ[A-Za-z0-9_-]{8,}\.(?:eyJ)?[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*(?:\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+)?",
        "any",
    ),  # JWS, JWE
    (r"pub[0-9a-f]{32}\b", "random"),
)

# `\b`, and where text is escaped: `\n` before a token reads as the letter n, `%3D` as D.
_LEFT = r"(?:\b|_|\\[nrtbf]|\\u[0-9a-fA-F]{4}|%[0-9a-fA-F]{2})"
_LEFT_OF = re.compile(rb"(?:_|\\u[0-9a-fA-F]{4}|\\[nrtbf]|%[0-9a-fA-F]{2})")
_ALL = compiled(_LEFT + "(?:" + "|".join((*_PREFIXED, *(shape for shape, _ in _DOUBTFUL))) + ")|" + "|".join(_HASHES))
SHAPES = (*_PREFIXED, *(shape for shape, _ in _DOUBTFUL), *_HASHES)
_CHECKED = tuple((compiled(shape), check) for shape, check in _DOUBTFUL)

_ISSUED = ("sk-proj-", "sk-svcacct-", "sk-admin-", "sk-ant-", "sk-or-", "sk-lf-")
_KEY_LABEL = r"[A-Z0-9 ]{0,40}PRIVATE KEY[A-Z ]{0,8}"
_PRIVATE_KEY = compiled(rf"-----BEGIN {_KEY_LABEL}-----(?s:.*?)(?:-----END {_KEY_LABEL}-----|\z)")
_PUTTY = compiled(r"Private-Lines: [0-9]+\r?\n(?s:.*?)(?:Private-MAC: [0-9a-f]{40,64}|\z)")


def private_keys(data: bytes) -> Iterator[Finding]:
    """PEM and PuTTY keys over all their lines, to the end of the text when the end of one is missing."""
    for word, pattern in ((b"PRIVATE KEY", _PRIVATE_KEY), (b"Private-Lines:", _PUTTY)):
        if word in data:
            for match in pattern.finditer(data):
                yield Finding(*match.span(), "secret")


def tokens(data: bytes) -> Iterator[Finding]:
    """Tokens, and hashes of passwords."""
    for match in _ALL.finditer(data):
        start, end = match.span()
        text = data[start:end]
        before = _LEFT_OF.match(text)
        if before and before.end() < len(text):
            start += before.end()
            text = text[before.end() :]
        if _is_token(text):
            yield Finding(start, end, "secret")


def _is_token(text: bytes) -> bool:
    for shape, check in _CHECKED:
        if shape.fullmatch(text):
            value = text.decode("latin-1")
            if check == "random":
                return looks_random(value, at_least=20) or value.startswith(_ISSUED)
            if check == "upper":
                return not value.isupper() or any(c.isdigit() for c in value[3:])
            return True
    return True
