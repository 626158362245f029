"""Promises: somebody with an account at the organisation's provider signs in with it and is who their token says; a
token that is not the provider's, not for us, not for this log-in or not of now opens nothing."""

import asyncio
import hmac
import json
import time
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from joserfc.jwk import ECKey
from oidc_provider_mock import User, run_server_in_thread
from playwright.async_api import Browser, expect

from api import oidc
from api.oidc import Attempt, OidcRefused, OidcUnreachable, Provider
from tests.api.running import Api, running
from tests.console.people import Desk
from tests.fixtures.issuer import CLIENT, KEY, OTHER, Issuer, claims_of, signed
from worker.settings import Settings

GROUPS = {"reviewers": "approver", "ops": "operator"}


@pytest.fixture(scope="module")
def provider() -> Iterator[str]:
    """An OpenID provider's own address."""
    users = [
        User(sub="ruth", claims={"groups": ["reviewers", "everybody"], "email": "ruth@corp.example"}),
        User(sub="stranger", claims={"groups": ["everybody"]}),
    ]
    with run_server_in_thread(user_claims=users, require_nonce=True) as server:
        yield f"http://localhost:{server.server_port}"


@pytest.fixture(scope="module")
async def federated(tmp_path_factory: pytest.TempPathFactory, provider: str) -> AsyncIterator[Api]:
    """An API whose people sign in there."""
    async with running(
        tmp_path_factory.mktemp("oidc"), "127.0.0.1:1", oidc_issuer=provider, oidc_client_id=CLIENT,
        oidc_client_secret="s", oidc_roles=GROUPS, oidc_name="Corp",
    ) as api:  # fmt: skip
        yield api


async def test_sign_in_with_the_organisations_account(federated: Api, browser: Browser) -> None:
    desk = Desk(federated, browser)
    page = await desk.person("nobody", signed_in=False)
    run = await federated.put_run()
    question = await federated.put_question(run)
    await page.goto(f"/console/questions/{question.id}")
    await page.get_by_role("link", name="Sign in with Corp").click()
    await page.locator("button, input[type=submit]").filter(has_text="ruth").first.click()
    await expect(page.get_by_role("button", name="Approve as asked")).to_be_visible()
    await expect(page.locator(".who")).to_contain_text("ruth")
    (opened,) = [r for r in await federated.records("session.opened") if r["via"] == "oidc"]
    assert (opened["actor"], opened["roles"]) == ("ruth", ["approver"])
    await desk.close()


async def begin(client: httpx.AsyncClient) -> dict[str, str]:
    there = (await client.get("/console/sign-in/oidc")).headers["location"]
    asked = {k: v[0] for k, v in parse_qs(urlsplit(there).query).items()}
    assert asked["code_challenge_method"] == "S256"
    assert len(asked["code_challenge"]) == 43
    return asked | {"there": there}


async def code_for(there: str, sub: str) -> dict[str, str]:
    async with httpx.AsyncClient(timeout=60) as browser:
        back = (await browser.post(there, data={"sub": sub})).headers["location"]
    return {k: v[0] for k, v in parse_qs(urlsplit(back).query).items()}


async def test_no_role_no_session(federated: Api) -> None:
    async with httpx.AsyncClient(base_url=federated.url, timeout=60) as client:
        answer = await code_for((await begin(client))["there"], "stranger")
        response = await client.get("/console/sign-in/callback", params=answer)
        assert (response.status_code, "does not open this console" in response.text) == (403, True)
        assert (await client.get("/console/queue")).status_code == 303


async def test_a_code_counts_only_where_it_was_asked_for(federated: Api) -> None:
    """Nobody can end a log-in in another browser, and a code is worth nothing without its verifier or twice."""
    async with (
        httpx.AsyncClient(base_url=federated.url, timeout=60) as mine,
        httpx.AsyncClient(base_url=federated.url, timeout=60) as theirs,
    ):
        answer = await code_for((await begin(mine))["there"], "ruth")
        assert (await theirs.get("/console/sign-in/callback", params=answer)).status_code == 403  # no attempt at all
        other = await begin(theirs)
        assert (await theirs.get("/console/sign-in/callback", params=answer)).status_code == 403  # another state
        other = await begin(theirs)
        mixed = await theirs.get("/console/sign-in/callback", params={"code": answer["code"], "state": other["state"]})
        assert mixed.status_code == 403  # another verifier: the provider refuses the code
        other = await begin(theirs)
        denied = {"error": "access_denied", "state": other["state"]}
        assert (await theirs.get("/console/sign-in/callback", params=denied)).status_code == 403


# ---------------------------------------------------------------- tokens of an enemy


@pytest.fixture(scope="module")
def issuer() -> Iterator[Issuer]:
    found = Issuer()
    yield found
    found.server.shutdown()


def provider_of(issuer: Issuer, **more: Any) -> Provider:
    settings = Settings(
        data=Path("/nonexistent"), oidc_issuer=issuer.address, oidc_client_id=CLIENT, oidc_roles=GROUPS, **more
    )
    return Provider(settings)


async def test_a_good_token(issuer: Issuer) -> None:
    found = provider_of(issuer)
    claims = await found.verify(signed(claims_of(issuer)), audience=CLIENT, nonce="n")
    who = found.principal(claims)
    assert (who.id, who.roles, who.tenant) == ("ruth", ("approver",), "default")


@pytest.mark.parametrize(
    ("why", "changes"),
    [
        ("issuer", {"iss": "http://evil.example"}),
        ("audience", {"aud": "another"}),
        ("no audience", {"aud": None}),
        ("handed to another", {"aud": [CLIENT, "x"], "azp": "x"}),
        ("expired", {"exp": int(time.time()) - 3600}),
        ("no expiry", {"exp": None}),
        ("expiry is no number", {"exp": "tomorrow"}),
        ("not yet", {"nbf": int(time.time()) + 3600}),
        ("another log-in", {"nonce": "m"}),
        ("no nonce", {"nonce": None}),
    ],
)
async def test_claims_that_do_not_count(issuer: Issuer, why: str, changes: dict[str, Any]) -> None:
    with pytest.raises(OidcRefused):
        await provider_of(issuer).verify(signed(claims_of(issuer, **changes)), audience=CLIENT, nonce="n")


def unsigned(issuer: Issuer) -> str:
    parts = signed(claims_of(issuer)).split(".")
    return ".".join([_b64({"alg": "none", "kid": "good"}), parts[1], ""])


def by_public_key_as_secret(issuer: Issuer) -> str:
    """The classic: the provider's public key, taken for a shared secret."""
    text = f"{_b64({'alg': 'HS256', 'kid': 'good'})}.{_b64(claims_of(issuer))}"
    mac = hmac.digest(KEY.as_pem(private=False), text.encode(), "sha256")
    return f"{text}.{urlsafe_b64encode(mac).decode().rstrip('=')}"


def changed_after_signing(issuer: Issuer) -> str:
    head, _, tail = signed(claims_of(issuer)).split(".")
    return ".".join([head, _b64(claims_of(issuer, sub="admin")), tail])


def _b64(value: dict[str, Any]) -> str:
    return urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


FORGERIES: list[Callable[[Issuer], str]] = [
    unsigned,
    by_public_key_as_secret,
    changed_after_signing,
    lambda i: signed(claims_of(i), OTHER),  # another key under the same name
    lambda i: signed(claims_of(i), OTHER, kid="unknown"),
    lambda i: signed(claims_of(i), ECKey.generate_key("P-256"), "ES256"),
    lambda i: signed(claims_of(i), OTHER, jwk=OTHER.as_dict(private=False)),  # its own key in the header
    lambda i: signed(claims_of(i), OTHER, jku="http://evil.example/jwks"),
    lambda _: "x.y.z",
    lambda _: "",
    lambda _: "a" * 100_000,
]


@pytest.mark.parametrize("forge", FORGERIES)
async def test_forged_tokens(issuer: Issuer, forge: Callable[[Issuer], str]) -> None:
    with pytest.raises(OidcRefused):
        await provider_of(issuer).verify(forge(issuer), audience=CLIENT, nonce="n")


async def test_unknown_keys_do_not_make_us_hammer_the_provider(issuer: Issuer) -> None:
    clock = time.time()
    settings = Settings(data=Path("/nonexistent"), oidc_issuer=issuer.address, oidc_client_id=CLIENT)
    found = Provider(settings, clock=lambda: clock)
    token = signed(claims_of(issuer), OTHER, kid="rotated")
    before = issuer.fetched
    for _ in range(20):
        with pytest.raises(OidcRefused):
            await found.verify(token, audience=CLIENT)
    assert issuer.fetched == before + 1
    await asyncio.gather(*(found.verify(signed(claims_of(issuer)), audience=CLIENT) for _ in range(5)))
    assert issuer.fetched == before + 1
    clock += oidc.REFRESH_S + 1  # a key may have come
    with pytest.raises(OidcRefused):
        await found.verify(token, audience=CLIENT)
    assert issuer.fetched == before + 2


@pytest.mark.parametrize(
    ("settings", "claims"),
    [
        ({}, {"groups": ["everybody"]}),
        ({}, {"groups": None}),
        ({}, {"sub": None}),
        ({}, {"sub": ""}),
        ({"oidc_tenant_claim": "org"}, {}),
        ({"oidc_principal_claim": "email"}, {"email": "ruth@corp.example"}),
        ({"oidc_principal_claim": "email"}, {"email": "ruth@corp.example", "email_verified": "true"}),
    ],
)
async def test_claims_that_name_nobody(issuer: Issuer, settings: dict[str, Any], claims: dict[str, Any]) -> None:
    with pytest.raises(OidcRefused):
        provider_of(issuer, **settings).principal(claims_of(issuer, **claims))


async def test_tenant_and_address_from_claims(issuer: Issuer) -> None:
    found = provider_of(issuer, oidc_principal_claim="email", oidc_tenant_claim="org")
    who = found.principal(claims_of(issuer, email="r@corp.example", email_verified=True, org="acme", groups="ops"))
    assert (who.id, who.tenant, who.roles) == ("r@corp.example", "acme", ("operator",))


async def test_a_provider_that_is_another(issuer: Issuer) -> None:
    with pytest.raises(OidcUnreachable):
        Provider(Settings(data=Path("/nonexistent"), oidc_issuer="http://corp.example", oidc_client_id=CLIENT))
    spelt = Settings(data=Path("/nonexistent"), oidc_issuer=issuer.address + "/", oidc_client_id=CLIENT)
    with pytest.raises(OidcUnreachable, match="calls itself"):
        await Provider(spelt).authorization_url(Attempt.new(), "http://127.0.0.1/x")
