"""The Gatehouse API as the CLI and the demo use it: plain HTTP, every failure a CommandError that says what to do."""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote

import httpx

from api.commands.session import CommandError, Exit

Obj = dict[str, Any]
PREFIX = "/api/v1"
TIMEOUT_S = 30.0
STREAM_SILENCE_S = 60.0
"""The server sends a comment well within this; longer silence means the connection is dead."""
RECONNECTS = 60
_DENIED = {401, 403}
_USAGE = {400, 413, 415, 422}


@dataclass(frozen=True)
class Event:
    """One audit record of a run, as the event stream carries it."""

    seq: int
    type: str
    record: Obj


def segment(text: str) -> str:
    """A path segment for any name."""
    return quote(text, safe="")


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
            raise CommandError(f"--file {path}: {'not a file' if path.exists() else 'no such file'}", code=Exit.USAGE)
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

    def events_so_far(self, run_id: str, quiet_s: float = 1.0) -> Iterator[Event]:
        """The run's records up to now: stops when the stream has nothing more to tell for `quiet_s`."""
        path, headers = f"/runs/{segment(run_id)}/events", {"Accept": "text/event-stream"}
        try:
            with self._opened("GET", path, headers=headers, silence_s=quiet_s) as response:
                for event in _parse(response):
                    yield event
                    if event.type == "run.closed":
                        return
        except httpx.ReadTimeout:
            return

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
    """Server-sent events: `id`, `event`, `data`; an empty line ends one."""
    fields: dict[str, str] = {}
    for line in response.iter_lines():
        if not line:
            if "data" in fields and fields.get("id", "").isdigit():
                record = cast(Obj, json.loads(fields["data"]))
                yield Event(int(fields["id"]), fields.get("event", ""), record)
            fields = {}
        elif not line.startswith(":"):
            name, _, value = line.partition(":")
            value = value.removeprefix(" ")
            fields[name] = f"{fields[name]}\n{value}" if name == "data" and name in fields else value


def _problem(response: httpx.Response) -> CommandError:
    """An RFC 9457 answer as the error a person reads."""
    try:
        found = cast(Obj, response.json())
    except ValueError:
        found = {}
    status = response.status_code
    detail = str(found.get("detail") or found.get("title") or f"HTTP {status}")
    remedy = str(found.get("remedy") or "")
    if errors := found.get("errors"):
        lines = [f"{e.get('field')}: {e.get('problem')} ({e.get('remedy')})" for e in cast(list[Obj], errors)]
        detail, remedy = "the request is not valid\n    " + "\n    ".join(lines), ""
    if status == 401:
        remedy = "export GATEHOUSE_KEY=$(gatehouse keys create <name> --role operator), or use --key-file"
    elif status == 429:
        remedy = f"try again in {response.headers.get('Retry-After', 'a few')} seconds"
    elif status == 503 and not remedy:
        remedy = "`gatehouse doctor` says which part is down"
    code = Exit.DENIED if status in _DENIED else Exit.USAGE if status in _USAGE else Exit.FAILED
    kind = str(found.get("kind") or "")
    return ApiProblemError(f"{detail} [{kind}]" if kind else detail, remedy, code, status, kind)


class ApiProblemError(CommandError):
    """The API refused; `kind` is its stable reason."""

    def __init__(self, problem: str, remedy: str, code: Exit, status: int, kind: str) -> None:
        super().__init__(problem, remedy, code)
        self.status = status
        self.kind = kind
