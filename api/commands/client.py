"""The Gatehouse API as the CLI and the demo use it: plain HTTP, every failure a CommandError that says what to do."""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import httpx

from api.commands.session import CommandError, Exit
from gatehouse_client.problems import (
    AuthenticationError,
    ForbiddenError,
    InvalidError,
    TooManyRequestsError,
    UnavailableError,
    problem_of,
)
from gatehouse_client.sse import EventParser
from gatehouse_client.transport import segment

Obj = dict[str, Any]
PREFIX = "/api/v1"
TIMEOUT_S = 30.0
STREAM_SILENCE_S = 60.0
"""The server sends a comment well within this; longer silence means the connection is dead."""
RECONNECTS = 60


@dataclass(frozen=True)
class Event:
    """One audit record of a run, as the event stream carries it."""

    seq: int
    type: str
    record: Obj


class Client:
    """One API with one key. Methods return parsed JSON; they raise CommandError."""

    def __init__(self, url: str, key: str) -> None:
        self.url = url
        self._http = httpx.Client(
            base_url=url + PREFIX, headers={"Authorization": f"Bearer {key}"}, timeout=TIMEOUT_S, trust_env=False
        )

    def get(self, path: str, **query: str | int | None) -> Obj:
        """GET one object."""
        return self._object("GET", path, params=query)

    def post(self, path: str, body: Obj | None = None, headers: dict[str, str] | None = None) -> Obj:
        """POST a JSON body."""
        return self._object("POST", path, json=body, headers=headers)

    def delete(self, path: str) -> None:
        """DELETE one thing."""
        self._send("DELETE", path)

    def items(self, path: str, limit: int, **query: str | int | None) -> list[Obj]:
        """Up to `limit` items of a list, over as many pages as it takes."""
        found: list[Obj] = []
        cursor: str | None = None
        while len(found) < limit:
            page = self.get(path, limit=min(200, limit - len(found)), cursor=cursor, **query)
            found += cast(list[Obj], page["items"])
            cursor = page.get("next_cursor")
            if not cursor:
                break
        return found

    def upload(self, path: Path) -> Obj:
        """Send one file; its `id` is what a run takes."""
        if not path.is_file():
            why = "not a file" if path.exists() else "no such file"
            raise CommandError(f"--file {path}: {why}", "name a file that exists", Exit.USAGE)
        try:
            with path.open("rb") as source:
                return self._object(
                    "POST", "/files", params={"name": path.name}, content=iter(lambda: source.read(1 << 18), b""),
                    headers={"Content-Type": "application/octet-stream", "Content-Length": str(path.stat().st_size)},
                    timeout=600.0,
                )  # fmt: skip
        except PermissionError as error:
            raise CommandError(f"--file {path}: {error.strerror}", "make it readable for you", Exit.USAGE) from None

    def download(self, path: str, target: Path) -> int:
        """GET bytes into a file, written beside it first; the size."""
        size = 0
        draft = target.with_name(target.name + ".part")
        with self._opened("GET", path) as response, draft.open("wb") as sink:
            for chunk in response.iter_bytes():
                size += sink.write(chunk)
        draft.replace(target)
        return size

    def text(self, path: str, most: int = 1 << 20) -> str:
        """GET text, up to `most` bytes of it."""
        return self._send("GET", path).content[:most].decode(errors="replace")

    def events(self, run_id: str, after: int = 0) -> Iterator[Event]:
        """The run's records as they are written, from the first; ends behind `run.closed`. Reconnects by itself."""
        failures = 0
        while True:
            try:
                headers = {"Accept": "text/event-stream", **({"Last-Event-ID": str(after)} if after else {})}
                with self._opened("GET", f"/runs/{segment(run_id)}/events", headers=headers) as response:
                    for event in _parse(response):
                        failures, after = 0, event.seq
                        yield event
                        if event.type == "run.closed":
                            return
            except httpx.TransportError as error:
                if failures >= RECONNECTS:
                    raise self._unreachable(error) from None
            except CommandError as error:
                if not isinstance(error, UnreachableError) or failures >= RECONNECTS:
                    raise
            failures += 1
            time.sleep(min(0.25 * failures, 5))

    def events_so_far(self, run_id: str) -> Iterator[Event]:
        """The run's records up to now."""
        path = f"/runs/{segment(run_id)}/events?until_now=true"
        try:
            with self._opened("GET", path, headers={"Accept": "text/event-stream"}) as response:
                yield from _parse(response)
        except httpx.TransportError as error:
            raise self._unreachable(error) from None

    def _object(self, method: str, path: str, **options: Any) -> Obj:
        response = self._send(method, path, **options)
        try:
            return cast(Obj, response.json())
        except ValueError:
            raise CommandError(f"{self.url} did not answer with JSON", "is that address a Gatehouse API?") from None

    def _send(self, method: str, path: str, **options: Any) -> httpx.Response:
        if params := options.get("params"):
            options["params"] = {k: v for k, v in params.items() if v is not None}
        try:
            response = self._http.request(method, path, **options)
        except httpx.TransportError as error:
            raise self._unreachable(error) from None
        if response.is_error:
            raise _problem(response)
        return response

    def _opened(
        self, method: str, path: str, headers: dict[str, str] | None = None, silence_s: float = STREAM_SILENCE_S
    ) -> "_Stream":
        timeout = httpx.Timeout(TIMEOUT_S, read=silence_s)
        return _Stream(self, self._http.build_request(method, path, headers=headers, timeout=timeout))

    def open_stream(self, request: httpx.Request) -> httpx.Response:
        """Send a request whose body is read as it comes."""
        try:
            response = self._http.send(request, stream=True)
        except httpx.TransportError as error:
            raise self._unreachable(error) from None
        if response.is_error:
            response.read()
            raise _problem(response)
        return response

    def _unreachable(self, error: httpx.TransportError) -> "UnreachableError":
        return UnreachableError(
            f"the API at {self.url} does not answer ({type(error).__name__})",
            "start it with `gatehouse up --detach`, or name another with --url or GATEHOUSE_URL",
        )


class UnreachableError(CommandError):
    """Nobody answers at the API's address."""


class _Stream:
    def __init__(self, client: Client, request: httpx.Request) -> None:
        self._client = client
        self._request = request
        self._response: httpx.Response | None = None

    def __enter__(self) -> httpx.Response:
        self._response = self._client.open_stream(self._request)
        return self._response

    def __exit__(self, *_: object) -> None:
        if self._response is not None:
            self._response.close()


def _parse(response: httpx.Response) -> Iterator[Event]:
    parser = EventParser()
    for line in response.iter_lines():
        if (found := parser.feed(line)) and found.id.isdigit():
            yield Event(int(found.id), found.event, cast(Obj, json.loads(found.data)))


def _problem(response: httpx.Response) -> CommandError:
    """An RFC 9457 answer as the error a person reads."""
    found = problem_of(response)
    detail, remedy = found.detail, found.remedy
    if found.errors:
        lines = [f"{e.field}: {e.problem} ({e.remedy})" for e in found.errors]
        detail, remedy = "the request is not valid\n    " + "\n    ".join(lines), ""
    match found:
        case AuthenticationError():
            code = Exit.DENIED
            remedy = "export GATEHOUSE_KEY=$(gatehouse keys create <name> --role operator), or use --key-file"
        case ForbiddenError():
            code = Exit.DENIED
        case InvalidError():
            code = Exit.USAGE
        case TooManyRequestsError(retry_after_s=after):
            code = Exit.FAILED
            remedy = f"try again in {'a few' if after is None else f'{after:g}'} seconds"
        case UnavailableError():
            code = Exit.FAILED
            remedy = remedy or "`gatehouse doctor` says which part is down"
        case _:
            code = Exit.FAILED
    return ApiProblemError(f"{detail} [{found.kind}]" if found.kind else detail, remedy, code, found.status, found.kind)


class ApiProblemError(CommandError):
    """The API refused; `kind` is its stable reason."""

    def __init__(self, problem: str, remedy: str, code: Exit, status: int, kind: str) -> None:
        super().__init__(problem, remedy, code)
        self.status = status
        self.kind = kind
