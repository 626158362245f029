"""What the egress proxy lets through and what not, over its socket. What the servers behind it saw is what counts."""

import contextlib
import ssl
from collections.abc import Sequence

import pytest

from tests.fixtures.egress import HOST, OTHER, Opened, Sites
from worker.sandbox.addresses import Target, public_targets
from worker.sandbox.proxy_request import HEAD_BYTES


async def test_plain_and_tls_pass(opened: Opened, sites: Sites) -> None:
    async with opened() as client:
        assert (await client.get(f"http://{HOST}/a?b=c#d")).endswith(b"\r\n\r\nhello")
        reader, writer = await client.tunnel(f"{HOST}:443")
        writer.write(f"GET /x HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n".encode())
        assert (await reader.read()).endswith(b"hello")
        writer.close()
    assert sites.plain.heads[0].startswith(f"GET /a?b=c HTTP/1.1\r\nHost: {HOST}\r\n".encode())
    assert client.proxy.traffic.hosts == {f"{HOST}:80": 1, f"{HOST}:443": 1}
    assert client.proxy.traffic.received_bytes > 1000
    assert client.kinds == []


@pytest.mark.parametrize(
    "host",
    [OTHER, f"x.{HOST}", f"x{HOST}", f"{HOST}.evil.example", "test.example", f"{HOST}\x00.evil.example", f"{HOST}_"],
)
async def test_the_allow_list_is_exact(opened: Opened, sites: Sites, host: str) -> None:
    async with opened() as client:
        for answer in (await client.get(f"http://{host}/"), await client.ask(f"CONNECT {host}:443 HTTP/1.1\r\n\r\n")):
            assert answer.startswith((b"HTTP/1.1 403 Egress refused: ", b"HTTP/1.1 400 Egress refused: "))
        assert client.proxy.traffic.refusals == 2
    assert sites.plain.connections == sites.tls.connections == 0


async def test_names_are_compared_without_case_and_final_dot(opened: Opened) -> None:
    async with opened() as client:
        assert b"hello" in await client.get(f"http://{HOST.upper()}./")


async def test_a_suffix_covers_names_below_it_only(opened: Opened) -> None:
    async with opened("*.test.example:80") as client:
        assert b"hello" in await client.get(f"http://{HOST}/")
        assert b" 403 " in await client.get("http://test.example/")
        assert b" 403 " in await client.get("http://eviltest.example/")


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "8.8.8.8", "2130706433", "0x7f000001", "0x7f.1", "127.1", "0177.0.0.1", "[::1]", "[::ffff:8.8.8.8]",
     "[fe80::1%eth0]", "localhost", "metadata"],
)  # fmt: skip
async def test_no_ip_literals_in_any_spelling(opened: Opened, host: str) -> None:
    async with opened("*.test.example", HOST) as client:
        assert b" 403 " in await client.ask(f"CONNECT {host}:443 HTTP/1.1\r\n\r\n")
        assert b" 403 " in await client.get(f"http://{host}/")
        assert client.kinds == ["host", "host"]


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        (f"CONNECT {HOST}:22", "port"),
        (f"CONNECT {HOST}:80", "port"),
        (f"CONNECT {HOST}", "bad_request"),
        (f"CONNECT {HOST}:443:443", "bad_request"),
        (f"CONNECT user@{HOST}:443", "bad_request"),
        (f"GET http://{HOST}:8080/", "port"),
        (f"GET http://{HOST}:99999/", "port"),
        (f"GET http://{HOST}@{OTHER}/", "bad_request"),
        (f"GET http://{HOST}\\@{OTHER}/", "bad_request"),
        (f"GET https://{HOST}/", "bad_request"),
        ("GET /", "bad_request"),
        ("GET http://[::1/", "bad_request"),
        (f"TRACE http://{HOST}/", "method"),
        (f"get http://{HOST}/", "method"),
    ],
)
async def test_odd_requests(opened: Opened, sites: Sites, line: str, kind: str) -> None:
    async with opened() as client:
        answer = await client.ask(f"{line} HTTP/1.1\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 4")
        assert b"egress refused: " in answer
        assert client.kinds == [kind]
    assert sites.plain.connections == 0


async def test_only_the_declared_port(opened: Opened) -> None:
    async with opened(HOST) as client:
        assert b" 403 " in await client.get(f"http://{HOST}/")
    async with opened(f"{HOST}:80") as client:
        assert b" 403 " in await client.ask(f"CONNECT {HOST}:443 HTTP/1.1\r\n\r\n")
        assert client.kinds == ["not_allowed"]


# ---------------------------------------------------------------- what a tunnel may carry


async def test_server_name_must_be_the_host(opened: Opened, sites: Sites) -> None:
    async with opened() as client:
        with pytest.raises(ssl.SSLError, match=r"(?i)unrecognized.name"):
            await client.tunnel(f"{HOST}:443", name=OTHER)
        assert client.kinds == ["server_name"]
        assert client.proxy.traffic.sent_bytes == 0
    assert sites.tls.heads == []


def hello(name: str | None = HOST, *, ech: bool = False, twice: bool = False) -> bytes:
    """A ClientHello of our own making."""
    extensions = b""
    for _ in range(2 if twice else 1):
        if name is not None:
            entry = b"\0" + len(name).to_bytes(2, "big") + name.encode()
            entries = len(entry).to_bytes(2, "big") + entry
            extensions += b"\0\0" + len(entries).to_bytes(2, "big") + entries
    if ech:
        extensions += b"\xfe\x0d\0\x01\0"
    body = b"\x03\x03" + bytes(32) + b"\0" + b"\0\x02\x13\x01" + b"\x01\0" + len(extensions).to_bytes(2, "big")
    body += extensions
    return b"\x01" + len(body).to_bytes(3, "big") + body


def records(message: bytes, size: int = 1 << 14) -> bytes:
    pieces = [message[i : i + size] for i in range(0, len(message), size)]
    return b"".join(b"\x16\x03\x01" + len(piece).to_bytes(2, "big") + piece for piece in pieces)


@pytest.mark.parametrize(
    ("first", "kind"),
    [
        (b"SSH-2.0-OpenSSH_9.2\r\n", "not_tls"),
        (b"GET / HTTP/1.1\r\n\r\n", "not_tls"),
        (b"\x16\x03\x01\xff\xff" + bytes(100), "not_tls"),
        (b"\x17\x03\x03\x00\x10" + bytes(16), "not_tls"),
        (records(b"\x02" + hello()[1:]), "not_tls"),
        (records(hello() + b"extra"), "not_tls"),
        (records(hello()[:-9] + bytes([255] * 9)), "not_tls"),
        (records(b"\x01\xff\xff\xff" + bytes(20_000)), "not_tls"),
        (records(hello(None)), "server_name"),
        (records(hello(twice=True)), "server_name"),
        (records(hello(OTHER), 7), "server_name"),
        (records(hello(ech=True)), "hidden_name"),
    ],
)
async def test_nothing_but_tls_for_this_host_passes_on_443(
    opened: Opened, sites: Sites, first: bytes, kind: str
) -> None:
    async with opened() as client:
        answer = await client.after_connect(first)
        assert client.kinds == [kind]
        assert (b"only TLS passes on port 443" in answer) if kind == "not_tls" else answer.startswith(b"\x15\x03\x03")
        assert client.proxy.traffic.sent_bytes == 0
    assert sites.tls.heads == []


async def test_a_hello_in_many_records_is_understood(opened: Opened, sites: Sites) -> None:
    """Cutting it up does not get past the check, and does not break what is allowed."""
    sent, received = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = sites.trust.wrap_bio(received, sent, server_hostname=HOST)
    with contextlib.suppress(ssl.SSLWantReadError):
        tls.do_handshake()
    cut = records(sent.read()[5:], 100)
    async with opened() as client:
        reader, writer = await client.open()
        writer.write(f"CONNECT {HOST}:443 HTTP/1.1\r\n\r\n".encode() + cut)
        assert b" 200 " in await reader.readuntil(b"\r\n\r\n")
        assert (await reader.readexactly(3))[0] == 0x16  # the server goes on with the handshake
        assert client.kinds == []
        assert client.proxy.traffic.sent_bytes == len(cut)


# ---------------------------------------------------------------- addresses


async def test_names_inside_are_refused_and_not_told(opened: Opened) -> None:
    async def inside(host: str) -> list[str]:
        return ["169.254.169.254"]

    async with opened(resolve=public_targets(inside)) as client:
        answer = await client.get(f"http://{HOST}/latest/meta-data/")
        assert b" 403 " in answer
        assert b"not public" in answer
        assert b"169.254" not in answer
        (refusal,) = client.proxy.traffic.refused
        assert (refusal.kind, refusal.host, refusal.port) == ("address", HOST, 80)
        assert "169.254.169.254" in refusal.detail


async def test_each_request_is_resolved_and_vetted_anew_and_once(opened: Opened, sites: Sites) -> None:
    """Rebinding: what was vetted is what is connected to; a later, other answer is vetted too."""
    asked: list[str] = []

    async def changing(host: str) -> list[str]:
        asked.append(host)
        return ["127.0.0.1"]

    first, later = sites.resolve, public_targets(changing)
    count = 0

    async def resolve(host: str, port: int) -> Sequence[Target]:
        nonlocal count
        count += 1
        return await (first if count == 1 else later)(host, port)

    async with opened(resolve=resolve) as client:
        assert b"hello" in await client.get(f"http://{HOST}/")
        assert count == 1
        assert b" 403 " in await client.get(f"http://{HOST}/")
    assert sites.plain.connections == 1


async def test_redirects_are_new_requests(opened: Opened, sites: Sites) -> None:
    moved = f"HTTP/1.1 302 Found\r\nLocation: http://{OTHER}/\r\nContent-Length: 0\r\n\r\n".encode()
    sites.plain.answer = moved
    async with opened() as client:
        assert await client.get(f"http://{HOST}/") == moved
        assert b" 403 " in await client.get(f"http://{OTHER}/")
    assert sites.plain.connections == 1


async def test_one_request_a_connection(opened: Opened, sites: Sites) -> None:
    """A second request behind the first, or hidden in its body, never reaches the server."""
    second = f"GET http://{HOST}/second HTTP/1.1\r\nHost: {OTHER}\r\n\r\n"
    async with opened() as client:
        await client.ask(f"GET http://{HOST}/first HTTP/1.1\r\n\r\n{second}")
        await client.ask(f"POST http://{HOST}/first HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc{second}")
    assert b"second" not in b"".join(sites.plain.heads)
    assert sites.plain.bodies == [b"", b"abc"]
    assert sites.plain.beyond == b""


@pytest.mark.parametrize(
    "header",
    [
        "Transfer-Encoding: chunked", "Content-Length: 3\r\nContent-Length: 4", "Content-Length: +3",
        "Content-Length: 3, 3", "Content-Length : 3", " folded: x", "X: a\nY: b", "X: a\x00b", "no colon",
        f"X: {'a' * HEAD_BYTES}",
    ],
)  # fmt: skip
async def test_headers_two_servers_could_read_differently(opened: Opened, sites: Sites, header: str) -> None:
    async with opened() as client:
        answer = await client.get(f"http://{HOST}/", f"{header}\r\n")
        assert answer[:12] in (b"HTTP/1.1 400", b"HTTP/1.1 411", b"HTTP/1.1 431")
    assert sites.plain.connections == 0


async def test_headers_of_one_hop_stay_here(opened: Opened, sites: Sites) -> None:
    async with opened() as client:
        extra = "Proxy-Authorization: x\r\nConnection: close, X-Mine\r\nX-Mine: 1\r\nUpgrade: h2c\r\nX-Yours: 2\r\n"
        await client.get(f"http://{HOST}/", extra)
    sent = sites.plain.heads[0].lower()
    assert b"x-yours: 2" in sent
    assert not [word for word in (b"proxy-", b"x-mine", b"upgrade", b"whatever") if word in sent]
