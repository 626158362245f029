"""OpenID Connect, as much as is needed: discovery, keys, one log-in by authorization code with PKCE, verified tokens.

Nothing of a token is believed before its signature is verified with a key of the provider's own set, under an algorithm
from a fixed list (asymmetric ones only: a public key can never become a shared secret). Then issuer, audience, times
and nonce are compared. What of it is a principal, its roles and tenant is a matter of settings; what no setting maps
counts for nothing.
"""

import asyncio
import base64
import hashlib
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeGuard, cast
from urllib.parse import urlencode, urlsplit

import httpx
from joserfc import jws, jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet
from pydantic import BaseModel, ConfigDict, ValidationError

from policies.decision import Principal
from worker.settings import Settings

ALGORITHMS = ("RS256", "PS256", "ES256", "RS384", "PS384", "ES384", "RS512", "PS512", "ES512", "Ed25519", "EdDSA")
LEEWAY_S = 60
"""How far the provider's clock may be off."""
TIMEOUT_S = 5.0
MAX_BYTES = 1 << 20
"""Of one answer of the provider."""
MAX_TOKEN = 16 << 10
FRESH_S = 3600.0
"""How long discovery and keys are used before they are asked for again."""
REFRESH_S = 60.0
"""Least time between two requests for keys because of an unknown one: tokens must not make us hammer the provider."""


class OidcRefused(Exception):  # noqa: N818  (named for what happened to the log-in)
    """The token or the answer does not count. The text is for the log: it may quote what somebody sent."""


class OidcUnreachable(Exception):  # noqa: N818
    """The provider does not answer, or not as OpenID Connect has it."""


class Metadata(BaseModel):
    """What of the provider's discovery document is used."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str


@dataclass(frozen=True, slots=True)
class Attempt:
    """One log-in under way: kept by the browser that began it, so that nobody can end it in another."""

    state: str
    nonce: str
    verifier: str

    @staticmethod
    def new() -> "Attempt":
        """Fresh and unguessable."""
        return Attempt(*(secrets.token_urlsafe(32) for _ in range(3)))

    @property
    def challenge(self) -> str:
        """S256 of the verifier."""
        digest = hashlib.sha256(self.verifier.encode()).digest()
        return base64.urlsafe_b64encode(digest).decode().rstrip("=")


class Provider:
    """The identity provider of `settings.oidc_issuer`. One per process; safe for concurrent use."""

    def __init__(self, settings: Settings, *, clock: Callable[[], float] = time.time) -> None:
        if settings.oidc_issuer is None or settings.oidc_client_id is None:
            raise ValueError("GATEHOUSE_OIDC_ISSUER and GATEHOUSE_OIDC_CLIENT_ID belong together")
        if settings.oidc_audience == settings.oidc_client_id:
            raise ValueError("GATEHOUSE_OIDC_AUDIENCE must not be the client id: an ID token is no access token")
        self._settings = settings
        self._issuer = settings.oidc_issuer
        self._client_id = settings.oidc_client_id
        self._clock = clock
        self._metadata: Metadata | None = None
        self._keys: KeySet | None = None
        self._asked_at = self._keys_at = float("-inf")
        self._lock = asyncio.Lock()
        _check_address(self._issuer)

    @property
    def name(self) -> str:
        """As the log-in button calls it."""
        return self._settings.oidc_name

    async def authorization_url(self, attempt: Attempt, redirect_uri: str) -> str:
        """Where to send the browser. Raises OidcUnreachable."""
        found = await self.metadata()
        query = {
            "response_type": "code", "client_id": self._client_id, "redirect_uri": redirect_uri,
            "scope": self._settings.oidc_scopes, "state": attempt.state, "nonce": attempt.nonce,
            "code_challenge": attempt.challenge, "code_challenge_method": "S256",
        }  # fmt: skip
        joint = "&" if "?" in found.authorization_endpoint else "?"
        return f"{found.authorization_endpoint}{joint}{urlencode(query)}"

    async def log_in(self, attempt: Attempt, code: str, redirect_uri: str) -> Principal:
        """Exchange the code, verify the ID token, and say who it is. Raises OidcRefused, OidcUnreachable."""
        found = await self.metadata()
        form = {
            "grant_type": "authorization_code", "code": code, "redirect_uri": redirect_uri,
            "client_id": self._client_id, "code_verifier": attempt.verifier,
        }  # fmt: skip
        secret = self._settings.oidc_client_secret
        auth = None if secret is None else httpx.BasicAuth(self._client_id, secret.get_secret_value())
        answer = await _fetch("POST", found.token_endpoint, data=form, auth=auth)
        token = answer.get("id_token")
        if not isinstance(token, str):
            raise OidcRefused("the provider gave no ID token")
        return self.principal(await self.verify(token, audience=self._client_id, nonce=attempt.nonce))

    async def bearer(self, token: str) -> Principal:
        """Who an access token stands for. A token that a program got for itself names the program as its subject
        (RFC 9068): then the principal is a service. Raises OidcRefused, OidcUnreachable."""
        if self._settings.oidc_audience is None:
            raise OidcRefused("access tokens are not taken: GATEHOUSE_OIDC_AUDIENCE is not set")
        claims = await self.verify(token, audience=self._settings.oidc_audience)
        own = claims.get("sub") in (claims.get("client_id"), claims.get("azp"))
        return self.principal(claims).model_copy(update={"kind": "service"} if own else {})

    async def verify(self, token: str, *, audience: str, nonce: str | None = None) -> dict[str, Any]:
        """The claims of a token that counts now: signed by the provider, issued by it, meant for `audience`, in time
        and, where `nonce` is given, for this very log-in. Raises OidcRefused, OidcUnreachable."""
        if len(token) > MAX_TOKEN:
            raise OidcRefused("the token is too long")
        try:
            header = jws.extract_compact(token.encode()).headers()
        except (JoseError, ValueError, UnicodeError) as error:
            raise OidcRefused(f"not a token: {error}") from error
        if header.get("alg") not in ALGORITHMS:
            raise OidcRefused(f"the algorithm {header.get('alg')!r} is not accepted")
        keys = await self._keys_for(header.get("kid"))
        try:
            decoded = jwt.decode(token, keys, algorithms=list(ALGORITHMS))
        except (JoseError, ValueError, TypeError, KeyError) as error:
            raise OidcRefused(f"the signature does not hold: {error}") from error
        claims = decoded.claims
        self._check(claims, audience, nonce)
        return claims

    def principal(self, claims: Mapping[str, Any]) -> Principal:
        """Who the claims speak of. Raises OidcRefused when they name nobody, or nobody who may do anything here."""
        s = self._settings
        subject = claims.get(s.oidc_principal_claim)
        if s.oidc_principal_claim == "email" and claims.get("email_verified") is not True:
            raise OidcRefused("the address is not verified by the provider")
        given = _words(claims.get(s.oidc_roles_claim))
        roles = tuple(sorted({ours for theirs, ours in s.oidc_roles.items() if theirs in given}))
        if not roles:
            raise OidcRefused(f"{subject!r} holds none of the groups that mean a role here")
        tenant: Any = s.oidc_tenant
        if s.oidc_tenant_claim is not None:
            tenant = claims.get(s.oidc_tenant_claim)
        try:
            return Principal(id=cast("str", subject), tenant=tenant, roles=roles)
        except ValidationError as error:
            raise OidcRefused(f"the claims name no principal: {error.errors()[0]['msg']}") from error

    async def metadata(self) -> Metadata:
        """The discovery document. Raises OidcUnreachable."""
        if self._metadata is not None and self._clock() < self._asked_at + FRESH_S:
            return self._metadata
        document = await _fetch("GET", self._issuer.rstrip("/") + "/.well-known/openid-configuration")
        try:
            found = Metadata.model_validate(document)
        except ValidationError as error:
            raise OidcUnreachable("the discovery document lacks what log-in needs") from error
        if found.issuer != self._issuer:
            raise OidcUnreachable(f"the provider calls itself {found.issuer}, not {self._issuer}")
        for address in (found.authorization_endpoint, found.token_endpoint, found.jwks_uri):
            _check_address(address)
        self._metadata, self._asked_at = found, self._clock()
        return found

    async def _keys_for(self, kid: object) -> KeySet:
        async with self._lock:
            age = self._clock() - self._keys_at
            known = self._keys is not None and kid in {key.kid for key in self._keys.keys}
            if self._keys is None or age > FRESH_S or (not known and age > REFRESH_S):
                document = await _fetch("GET", (await self.metadata()).jwks_uri)
                self._keys, self._keys_at = _public_keys(document), self._clock()
        if kid is not None and kid not in {key.kid for key in self._keys.keys}:
            raise OidcRefused(f"the provider has no key {kid!r}")
        if kid is None and len(self._keys.keys) != 1:
            raise OidcRefused("the token does not say which key signed it")
        return self._keys

    def _check(self, claims: Mapping[str, Any], audience: str, nonce: str | None) -> None:
        now = self._clock()
        if claims.get("iss") != self._issuer:
            raise OidcRefused(f"issued by {claims.get('iss')!r}")
        meant = _words(claims.get("aud"))
        if audience not in meant:
            raise OidcRefused(f"meant for {sorted(meant)}")
        if len(meant) > 1 and claims.get("azp", audience) != audience:
            raise OidcRefused(f"handed to {claims.get('azp')!r}")
        expires, begins = claims.get("exp"), claims.get("nbf", claims.get("iat", 0))
        if not _number(expires) or now >= expires + LEEWAY_S:
            raise OidcRefused("it has expired, or does not say when it does")
        if not _number(begins) or now < begins - LEEWAY_S:
            raise OidcRefused("it is not valid yet")
        if nonce is not None:
            given = claims.get("nonce")
            if not isinstance(given, str) or not secrets.compare_digest(given.encode(), nonce.encode()):
                raise OidcRefused("it belongs to another log-in")


def _number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _words(value: object) -> set[str]:
    found = [value] if isinstance(value, str) else cast("list[object]", value) if isinstance(value, list) else []
    return {word for word in found if isinstance(word, str)}


def _public_keys(document: Mapping[str, Any]) -> KeySet:
    """Only asymmetric keys for signatures; a key that cannot be read is left out, as the standard has it."""
    found: list[Any] = []
    for key in cast("list[Any]", document.get("keys") or []):
        if isinstance(key, dict) and key.get("kty") in ("RSA", "EC", "OKP") and key.get("use", "sig") == "sig":  # pyright: ignore[reportUnknownMemberType]
            try:
                found += KeySet.import_key_set(cast("Any", {"keys": [key]})).keys
            except (JoseError, ValueError, KeyError, TypeError):
                continue
    if not found:
        raise OidcUnreachable("the provider's key set holds no key that can be used")
    return KeySet(found)


def _check_address(address: str) -> None:
    parts = urlsplit(address)
    if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in ("127.0.0.1", "localhost", "::1")):
        raise OidcUnreachable(f"{address} is not https")


async def _fetch(method: str, url: str, **more: Any) -> dict[str, Any]:
    """One request: bounded in time and size, no redirects. Raises OidcUnreachable; OidcRefused for a 4xx to a POST."""
    try:
        async with httpx.AsyncClient(timeout=TIMEOUT_S, follow_redirects=False) as client:  # noqa: SIM117
            async with asyncio.timeout(2 * TIMEOUT_S), client.stream(method, url, **more) as response:
                body = b""
                async for part in response.aiter_bytes():
                    body += part
                    if len(body) > MAX_BYTES:
                        raise OidcUnreachable(f"{url}: the answer is too long")
    except (httpx.HTTPError, TimeoutError) as error:
        raise OidcUnreachable(f"{url}: {type(error).__name__}: {error}") from error
    if method == "POST" and 400 <= response.status_code < 500:
        raise OidcRefused(f"the provider does not accept the code (HTTP {response.status_code}): {body[:200]!r}")
    if response.status_code != 200:
        raise OidcUnreachable(f"{url}: HTTP {response.status_code}")
    try:
        found: object = httpx.Response(200, content=body).json()
    except ValueError as error:
        raise OidcUnreachable(f"{url}: not JSON") from error
    if not isinstance(found, dict):
        raise OidcUnreachable(f"{url}: not a JSON object")
    return cast("dict[str, Any]", found)
