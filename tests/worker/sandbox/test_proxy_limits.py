"""The egress proxy's limits, and the credentials it adds. What the servers behind it saw is what counts."""

import asyncio
import contextlib
import ssl

import pytest

from tests.fixtures.egress import HOST, OTHER, Opened, Sites, leads_to
from tests.fixtures.temporal import free_port
from tools.egress import HostRule
from worker.sandbox.grant import REFUSALS_KEPT, Credential
from worker.sandbox.proxy import CONNECTIONS


async def test_limit_of_requests(opened: Opened, sites: Sites) -> None:
    async with opened(requests=3) as client:
        answers = [await client.get(f"http://{HOST}/") for _ in range(5)]
        assert [b"hello" in answer for answer in answers] == [True, True, True, False, False]
        assert b"more than 3 requests" in answers[-1]
    assert sites.plain.connections == 3


async def test_a_program_that_does_not_stop_asking_is_not_served_any_more(opened: Opened) -> None:
    async with opened(requests=1) as client:
        for _ in range(40):
            with contextlib.suppress(OSError):
                await client.get("http://no.example/")
        assert client.proxy.traffic.requests < 30
        assert len(client.proxy.traffic.refused) <= REFUSALS_KEPT


async def test_limit_of_sent_bytes(opened: Opened, sites: Sites) -> None:
    async with opened(sent_bytes=1000) as client:
        post = f"POST http://{HOST}/ HTTP/1.1\r\nContent-Length: 600\r\n\r\n" + "x" * 600
        assert b"hello" in await client.ask(post)
        assert b"more than 1000 bytes sent" in await client.ask(post)
        assert client.kinds == ["sent_bytes"]
    assert sites.plain.connections == 1


async def test_limit_of_received_bytes(opened: Opened, sites: Sites) -> None:
    sites.plain.answer = b"HTTP/1.1 200 OK\r\nContent-Length: 900000\r\n\r\n" + bytes(900_000)
    async with opened(received_bytes=300_000) as client:
        answer = await client.get(f"http://{HOST}/")
        assert len(answer) <= 300_000
        assert b"Egress" not in answer
        assert client.kinds == ["received_bytes"]


async def test_limit_of_bytes_in_a_tunnel(opened: Opened, sites: Sites) -> None:
    sites.tls.answer = bytes(500_000)
    async with opened(received_bytes=100_000) as client:
        reader, writer = await client.tunnel(f"{HOST}:443")
        writer.write(b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n")
        with contextlib.suppress(OSError):
            assert len(await reader.read()) < 100_000
        assert client.kinds == ["received_bytes"]


async def test_limit_of_connections(opened: Opened) -> None:
    async with opened() as client:
        held = [await client.open() for _ in range(CONNECTIONS)]
        assert await client.get(f"http://{HOST}/") == b""
        assert client.kinds == ["connections"]
        for _, writer in held:
            writer.close()
        async with asyncio.timeout(30):
            while b"hello" not in await client.get(f"http://{HOST}/"):  # noqa: ASYNC110
                await asyncio.sleep(0.02)


@pytest.mark.parametrize(
    ("raw", "kind"),
    [
        ("GET http:", "timeout"),
        (f"CONNECT {HOST}:443 HTTP/1.1\r\n\r\n", "timeout"),
        (f"POST http://{HOST}/ HTTP/1.1\r\nContent-Length: 5\r\n\r\n", "timeout"),
    ],
)
async def test_silence_ends(opened: Opened, raw: str, kind: str) -> None:
    async with opened(seconds=0.2) as client:
        await client.ask(raw)
        assert client.kinds == [kind]


async def test_a_host_that_is_away_is_told(opened: Opened) -> None:
    async with opened(resolve=leads_to({(HOST, 443): free_port()})) as client:
        assert b" 502 Egress refused: api.test.example: the connection failed" in await client.ask(
            f"CONNECT {HOST}:443 HTTP/1.1\r\n\r\n"
        )
        assert b"cannot be resolved" in await client.get(f"http://{HOST}/")


# ---------------------------------------------------------------- credentials

SECRET = b"s3cr3t/value+with=signs"
CREDENTIAL = Credential(HostRule(HOST, below=False, port=443), "Authorization", b"Bearer " + SECRET, SECRET)


async def test_credential_is_added_on_the_way_and_only_there(opened: Opened, sites: Sites) -> None:
    async with opened(credentials=(CREDENTIAL,)) as client:
        answer = await client.get(f"http://{HOST}:443/v1/x", "authorization: Bearer forged\r\n")
        assert answer.endswith(b"hello")
        assert SECRET not in answer
        await client.get(f"http://{HOST}/plain")
    head = sites.tls.heads[0]
    assert head.startswith(f"GET /v1/x HTTP/1.1\r\nHost: {HOST}\r\n".encode())
    assert head.lower().count(b"authorization:") == 1
    assert b"Authorization: Bearer " + SECRET in head
    assert SECRET not in sites.plain.heads[0]


@pytest.mark.parametrize("step", [1, 7, 1000])
async def test_an_answer_with_the_credential_is_cut(opened: Opened, sites: Sites, step: int) -> None:
    async with opened(credentials=(CREDENTIAL,)) as client:
        sites.tls.echo, sites.tls.step = True, step
        answer = await client.get(f"http://{HOST}:443/")
        assert SECRET[:4] not in answer
        assert client.kinds == ["echo"]


async def test_a_certificate_of_another_is_refused(opened: Opened, sites: Sites) -> None:
    async with opened(credentials=(CREDENTIAL,), trust=ssl.create_default_context()) as client:
        assert b"certificate is not valid" in await client.get(f"http://{HOST}:443/")
    async with opened(OTHER) as client:
        assert b"certificate is not valid" in await client.get(f"http://{OTHER}:443/")
    assert sites.tls.heads == []
