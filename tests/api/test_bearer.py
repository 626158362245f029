"""Promises: an access token of the organisation's provider opens the API like a key of the same roles, a program's own
token is a service; an ID token, a token for somebody else, or one while the provider is away opens nothing."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from api.oidc import Provider
from tests.api.running import Api, running
from tests.fixtures.issuer import CLIENT, OTHER, Issuer, claims_of, signed
from worker.settings import Settings

AUDIENCE = "https://gatehouse.corp.example"
GROUPS = {"reviewers": "approver", "ops": "operator"}


@pytest.fixture(scope="module")
def issuer() -> Iterator[Issuer]:
    found = Issuer()
    yield found
    found.server.shutdown()


@pytest.fixture(scope="module")
async def federated(tmp_path_factory: pytest.TempPathFactory, issuer: Issuer) -> AsyncIterator[Api]:
    async with running(
        tmp_path_factory.mktemp("bearer"), "127.0.0.1:1", oidc_issuer=issuer.address, oidc_client_id=CLIENT,
        oidc_audience=AUDIENCE, oidc_roles=GROUPS, oidc_tenant_claim="org",
    ) as api:  # fmt: skip
        yield api


def token(issuer: Issuer, **changes: Any) -> str:
    return signed(claims_of(issuer, **({"aud": AUDIENCE, "nonce": None, "org": "acme"} | changes)))


async def ask(api: Api, path: str, bearer: str) -> httpx.Response:
    return await api.anonymous().get(path, headers={"Authorization": f"Bearer {bearer}"})


async def test_a_person(federated: Api, issuer: Issuer) -> None:
    me = await ask(federated, "/me", token(issuer))
    assert me.json() == {"id": "ruth", "tenant": "acme", "roles": ["approver"], "kind": "person"}
    assert (await ask(federated, "/approvals", token(issuer))).status_code == 200
    assert (await ask(federated, "/keys", token(issuer))).status_code == 403


@pytest.mark.parametrize("named", ["client_id", "azp"])
async def test_a_program(federated: Api, issuer: Issuer, named: str) -> None:
    me = await ask(federated, "/me", token(issuer, sub="nightly", groups=["ops"], **{named: "nightly"}))
    assert (me.json()["kind"], me.json()["roles"]) == ("service", ["operator"])


async def test_what_opens_nothing(federated: Api, issuer: Issuer) -> None:
    wrong = [
        token(issuer, aud=CLIENT, nonce="n"),  # an ID token
        token(issuer, aud="https://another.corp.example"),
        token(issuer, exp=1),
        token(issuer, groups=["everybody"]),
        token(issuer, org=None),
        signed(claims_of(issuer, aud=AUDIENCE, org="acme"), OTHER),
        "a.b.c",
        "..",
    ]
    for bearer in wrong:
        refused = await ask(federated, "/me", bearer)
        assert (refused.status_code, refused.json()["kind"]) == (401, "unauthenticated"), bearer
    assert {r["reason"] for r in await federated.records("access.denied")} >= {"bad_key"}


async def test_keys_go_on_beside_tokens(federated: Api) -> None:
    assert (await (await federated.client("viewer")).get("/me")).status_code == 200


async def test_without_the_provider_tokens_cannot_be_checked_and_keys_can(tmp_path: Path, issuer: Issuer) -> None:
    gone = "http://127.0.0.1:9"
    async with running(
        tmp_path, "127.0.0.1:1", oidc_issuer=gone, oidc_client_id=CLIENT, oidc_audience=AUDIENCE, oidc_roles=GROUPS
    ) as api:
        refused = await ask(api, "/me", token(issuer, iss=gone))
        assert (refused.status_code, refused.json()["kind"]) == (503, "provider_unreachable")
        assert (await (await api.client("viewer")).get("/me")).status_code == 200


async def test_tokens_are_not_taken_unasked(tmp_path: Path, issuer: Issuer) -> None:
    async with running(
        tmp_path, "127.0.0.1:1", oidc_issuer=issuer.address, oidc_client_id=CLIENT, oidc_roles=GROUPS
    ) as api:
        assert (await ask(api, "/me", token(issuer, aud=CLIENT))).status_code == 401
    with pytest.raises(ValueError, match="OIDC_AUDIENCE"):
        Provider(Settings(data=tmp_path, oidc_issuer=issuer.address, oidc_client_id=CLIENT, oidc_audience=CLIENT))
