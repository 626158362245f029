"""The egress proxy of one call: a forward proxy on a unix socket that lets through what the call was granted.

The socket is the identity: it is mounted into one box and nowhere else. Tunnels to port 443 are opaque after their
ClientHello; plain requests come one to a connection, so that each is checked anew. A request for `http://host:443/` is
carried on by TLS from here, which is where credentials can be added without the program ever seeing them.
"""

import asyncio
import ssl
from collections.abc import Coroutine, Sequence
from typing import Final

from tools.egress import HTTPS
from worker.sandbox import client_hello, proxy_request
from worker.sandbox.addresses import NotPublic, Resolve, Target, Unresolved
from worker.sandbox.grant import Credential, Grant, Refusal, Traffic
from worker.sandbox.proxy_request import Refused, Request
from worker.sandbox.scrubbing import Watch

CONNECTIONS: Final = 16
"""At once, of one call. More are dropped unanswered: each costs the worker two file descriptors."""
_PATIENCE: Final = 20
"""Requests that are still answered (with a refusal) after the limit of requests; then the proxy stops listening."""
_CHUNK: Final = 64 << 10
_ACCESS_DENIED: Final = 49
_UNRECOGNIZED_NAME: Final = 112


class Proxy:
    """Serves the connections of one call. `resolve` decides which addresses exist, `tls` whom we believe."""

    def __init__(
        self,
        grant: Grant,
        *,
        resolve: Resolve,
        tls: ssl.SSLContext,
        head_s: float = 10.0,
        connect_s: float = 10.0,
        idle_s: float = 60.0,
    ) -> None:
        self.grant = grant
        self.traffic = Traffic()
        self.resolve = resolve
        self.tls = tls
        self.head_s, self.connect_s, self.idle_s = head_s, connect_s, idle_s
        self._serving: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    def attach(self, server: asyncio.Server) -> None:
        """The server that accepts for this proxy."""
        self._server = server

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Callback of the server: serve the connection, unless there are too many."""
        if len(self._serving) >= CONNECTIONS:
            self.traffic.note(Refusal("connections", "", 0, f"more than {CONNECTIONS} connections at once"))
            writer.transport.abort()
            return
        task = asyncio.create_task(_Exchange(self, reader, writer).run())
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)

    async def close(self) -> None:
        """Stop listening and end every connection."""
        if self._server is not None:
            self._server.close()
        serving = list(self._serving)
        for task in serving:
            task.cancel()
        await asyncio.gather(*serving, return_exceptions=True)

    def admit(self, request: Request) -> None:
        """Raises Refused unless the grant covers the request."""
        traffic, limits = self.traffic, self.grant.limits
        traffic.requests += 1
        if traffic.requests > limits.requests:
            if traffic.requests > limits.requests + _PATIENCE and self._server is not None:
                self._server.close()
            raise Refused("requests", f"more than {limits.requests} requests")
        if not any(rule.allows(request.host, request.port) for rule in self.grant.rules):
            raise Refused("not_allowed", f"{request.host}:{request.port} is not on the allow-list")
        self._within(request.body_bytes, 0)
        traffic.hosts[f"{request.host}:{request.port}"] += 1

    def _within(self, sent: int, received: int) -> None:
        limits, traffic = self.grant.limits, self.traffic
        if traffic.sent_bytes + sent > limits.sent_bytes:
            raise Refused("sent_bytes", f"more than {limits.sent_bytes} bytes sent")
        if traffic.received_bytes + received > limits.received_bytes:
            raise Refused("received_bytes", f"more than {limits.received_bytes} bytes received")

    def sent(self, count: int) -> None:
        """Account for bytes about to leave. Raises Refused instead when they are too many."""
        self._within(count, 0)
        self.traffic.sent_bytes += count

    def received(self, count: int) -> None:
        """Account for bytes that came. Raises Refused instead when they are too many."""
        self._within(0, count)
        self.traffic.received_bytes += count


class _Exchange:
    """One connection of a program: one tunnel, or one request and its answer."""

    def __init__(self, proxy: Proxy, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._proxy = proxy
        self._reader, self._writer = reader, writer
        self._up_reader, self._up_writer = reader, writer  # until connected
        self._answering = False
        """An answer has begun, so that a refusal can no longer be one."""

    async def run(self) -> None:
        """Serve it to its end; raises nothing but CancelledError."""
        request: Request | None = None
        try:
            request = await proxy_request.read(self._reader, within_s=self._proxy.head_s)
            if request is not None:
                await self._serve(request)
            self._writer.close()
        except Refused as refused:
            host, port = (request.host, request.port) if request else (refused.host, refused.port)
            self._proxy.traffic.note(Refusal(refused.kind, host, port, refused.reason, refused.detail))
            await self._tell(refused)
        except (OSError, EOFError):
            pass  # one of the ends went away or fell silent (TimeoutError is an OSError)
        finally:
            if self._up_writer is not self._writer:
                self._up_writer.transport.abort()
            if not self._writer.is_closing():
                self._writer.transport.abort()

    async def _tell(self, refused: Refused) -> None:
        if self._answering:
            return
        body = f"egress refused: {refused.reason}\n".encode()
        # The reason also as the reason phrase: of an answer to CONNECT, clients show nothing else.
        head = (
            f"HTTP/1.1 {refused.status} Egress refused: {refused.reason}\r\nX-Egress-Refused: {refused.kind}\r\n"
            f"Content-Type: text/plain; charset=utf-8\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        )
        try:
            self._writer.write(head.encode("latin-1", "replace") + body)
            await self._writer.drain()
            self._writer.close()
        except OSError:
            return

    async def _serve(self, request: Request) -> None:
        self._proxy.admit(request)
        await self._connect(request)
        try:
            async with asyncio.timeout(self._proxy.idle_s) as self._idle:
                await (self._tunnel(request) if request.method == "CONNECT" else self._forward(request))
        except TimeoutError as error:
            raise Refused("timeout", f"nothing moved for {self._proxy.idle_s:g} s", status=504) from error

    def _alive(self) -> None:
        self._idle.reschedule(asyncio.get_running_loop().time() + self._proxy.idle_s)

    async def _targets(self, request: Request) -> Sequence[Target]:
        try:
            return await self._proxy.resolve(request.host, request.port)
        except NotPublic as error:
            reason = f"{request.host} resolves to an address that is not public"
            raise Refused("address", reason, detail=str(error)) from error
        except Unresolved as error:
            raise Refused("unresolved", f"{request.host} cannot be resolved", status=502) from error

    async def _connect(self, request: Request) -> None:
        """To the first vetted address that answers; the name is not looked up again."""
        secure = request.method != "CONNECT" and request.port == HTTPS
        reason = "no address"
        for target in await self._targets(request):
            try:
                async with asyncio.timeout(self._proxy.connect_s):
                    self._up_reader, self._up_writer = await asyncio.open_connection(
                        target.address, target.port, limit=_CHUNK,
                        ssl=self._proxy.tls if secure else None, server_hostname=request.host if secure else None,
                    )  # fmt: skip
                    return
            except ssl.SSLCertVerificationError as error:
                reason = f"its certificate is not valid: {error.verify_message}"
            except TimeoutError:
                reason = "no answer"
            except OSError:
                reason = "the connection failed"
        raise Refused("unreachable", f"{request.host}: {reason}", status=502)

    # ------------------------------------------------------------ tunnels

    async def _tunnel(self, request: Request) -> None:
        self._writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        await self._writer.drain()
        hello = await self._hello(request)
        self._answering = True
        self._proxy.sent(len(hello.raw))
        self._up_writer.write(hello.raw)
        await _all_or_none(
            self._pump(self._reader, self._up_writer, out=True), self._pump(self._up_reader, self._writer, out=False)
        )

    async def _hello(self, request: Request) -> client_hello.Hello:
        """The program's ClientHello, when it names the host it asked for. Nothing was sent to that host before."""
        try:
            async with asyncio.timeout(self._proxy.head_s):
                hello = await client_hello.read(self._reader)
        except TimeoutError as error:
            self._answering = True
            raise Refused("timeout", f"no ClientHello within {self._proxy.head_s:g} s") from error
        except client_hello.NotTls as error:
            # Who does not speak TLS may be able to read the refusal, inside the tunnel as it is.
            raise Refused("not_tls", f"only TLS passes on port 443: {error}") from error
        if hello.encrypted:
            self._alert(_ACCESS_DENIED)
            raise Refused("hidden_name", "the TLS server name is encrypted (ECH)")
        if hello.server_name != request.host:
            self._alert(_UNRECOGNIZED_NAME)
            name = (hello.server_name or "(none)")[:100]
            raise Refused("server_name", f"the TLS server name {name} is not {request.host}")
        return hello

    def _alert(self, description: int) -> None:
        """Refuse in the language of TLS: a fatal alert instead of an answer of HTTP."""
        self._answering = True
        self._writer.write(b"\x15\x03\x03\x00\x02\x02" + bytes([description]))
        self._writer.close()

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, out: bool) -> None:
        account = self._proxy.sent if out else self._proxy.received
        while data := await source.read(_CHUNK):
            self._alive()
            account(len(data))
            sink.write(data)
            await sink.drain()
        sink.write_eof()

    # ------------------------------------------------------------ plain requests

    async def _forward(self, request: Request) -> None:
        added = [c for c in self._proxy.grant.credentials if c.host.allows(request.host, request.port)]
        self._up_writer.write(_head(request, added))
        if request.waits:
            self._writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        left = request.body_bytes
        # Exactly the body and not a byte more: what follows it would be a request that nobody checked.
        while left:
            data = await self._reader.read(min(left, _CHUNK))
            if not data:
                return
            self._alive()
            left -= len(data)
            self._proxy.sent(len(data))
            self._up_writer.write(data)
            await self._up_writer.drain()
        watch = Watch(credential.secret for credential in added)
        while data := await self._up_reader.read(_CHUNK):
            self._alive()
            self._proxy.received(len(data))
            ready = watch.passed(data)
            if ready is None:
                raise Refused("echo", "the answer contains the credential")
            self._answering = self._answering or bool(ready)
            self._writer.write(ready)
            await self._writer.drain()
        self._writer.write(watch.held)


def _head(request: Request, added: Sequence[Credential]) -> bytes:
    """The request as the server gets it: our Host, our credentials, one request and no compression."""
    ours = {credential.header.lower().encode() for credential in added}
    port = "" if request.port in (80, HTTPS) else f":{request.port}"
    lines = [
        f"{request.method} {request.target} HTTP/1.1".encode(),
        f"Host: {request.host}{port}".encode(),
        b"Connection: close",
        # An answer is looked through for a credential as it passes.
        b"Accept-Encoding: identity",
        *(b"%s: %s" % header for header in request.headers if header[0].lower() not in ours),
        *(b"%s: %s" % (credential.header.encode(), credential.value) for credential in added),
    ]
    if request.body_bytes or request.method in ("POST", "PUT", "PATCH"):
        lines.append(b"Content-Length: %d" % request.body_bytes)
    return b"\r\n".join([*lines, b"", b""])


async def _all_or_none(*work: Coroutine[object, object, None]) -> None:
    """Run these together; the first failure ends the others."""
    tasks = [asyncio.ensure_future(one) for one in work]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
