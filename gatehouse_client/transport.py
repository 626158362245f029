"""HTTP as all operations speak it: the key, the address, repeats where they are harmless, pages, streams, errors."""

import asyncio
import random
from collections.abc import AsyncGenerator, AsyncIterable, Mapping
from contextlib import asynccontextmanager
from typing import Any, TypeVar
from urllib.parse import quote

import httpx
from pydantic import TypeAdapter, ValidationError
from pydantic_core import to_jsonable_python

from gatehouse_client.problems import (
    ConflictError,
    ProblemError,
    TooManyRequestsError,
    UnavailableError,
    UnexpectedAnswerError,
    UnreachableError,
    problem_of,
)

T = TypeVar("T")
Body = bytes | AsyncIterable[bytes]

PREFIX = "/api/v1"
TIMEOUT_S = 30.0
SILENCE_S = 60.0
"""The server sends a comment on a stream well within this; longer silence means the connection is dead."""
FIRST_WAIT_S, MOST_WAIT_S = 0.25, 10.0
PAGE = 200


def segment(text: str) -> str:
    """A path segment for any name."""
    return quote(text, safe="")


class Transport:
    """One API with one key. Subclasses add the operations."""

    def __init__(
        self, url: str, key: str, *, retries: int = 4, timeout_s: float = TIMEOUT_S, trust_env: bool = False
    ) -> None:
        """`url`: without `/api/v1`. `retries`: how often a harmless request is repeated. `trust_env`: proxies and
        certificates as `HTTPS_PROXY`, `SSL_CERT_FILE` say."""
        self.url = url.rstrip("/")
        self._retries = retries
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._http = httpx.AsyncClient(
            base_url=self.url + PREFIX, headers=headers, timeout=timeout_s, trust_env=trust_env
        )

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def _call(
        self, answer: type[T], method: str, path: str, *,
        query: Mapping[str, Any] | None = None, body: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None, repeatable: bool = False, also: frozenset[int] = frozenset(),
    ) -> T:  # fmt: skip
        """Ask and take the answer apart. `repeatable`: asking twice is as good as once, as with every GET. `also`:
        statuses of 400 and more whose body is the answer all the same."""
        response = await self._asked(
            method, path, params=_given(query), headers=headers, also=also,
            json=None if body is None else to_jsonable_python(_given(body)),
            repeatable=repeatable or method == "GET",
        )  # fmt: skip
        if answer is type(None):
            return None  # pyright: ignore[reportReturnType]
        return self._read(answer, response)

    async def _items(
        self, answer: type[T], path: str, limit: int | None, query: Mapping[str, Any] | None = None
    ) -> AsyncGenerator[T]:
        """The items of a list, page after page as they are wanted, `limit` at most."""
        left, cursor = limit, None
        while left is None or left > 0:
            size = PAGE if left is None else min(PAGE, left)
            page = await self._call(
                dict[str, Any], "GET", path, query={"limit": size, "cursor": cursor, **(query or {})}
            )
            for item in page["items"][:left]:
                yield self._typed(answer, item)
            left = None if left is None else left - len(page["items"])
            cursor = page.get("next_cursor")
            if not cursor:
                return

    async def _all(self, answer: type[T], path: str, query: Mapping[str, Any] | None = None) -> tuple[T, ...]:
        """The items of a list that has one page."""
        page = await self._call(dict[str, Any], "GET", path, query=query)
        return tuple(self._typed(answer, item) for item in page["items"])

    async def _sent(self, answer: type[T], path: str, query: Mapping[str, Any], body: Body, media_type: str) -> T:
        headers = {"Content-Type": media_type}
        response = await self._asked("POST", path, params=query, content=body, headers=headers, timeout=600.0)
        return self._read(answer, response)

    @asynccontextmanager
    async def _stream(
        self, path: str, headers: Mapping[str, str], *, silence_s: float
    ) -> AsyncGenerator[httpx.Response]:
        timeout = httpx.Timeout(TIMEOUT_S, read=silence_s)
        try:
            async with self._http.stream("GET", path, headers=headers, timeout=timeout) as response:
                if response.is_error:
                    await response.aread()
                    raise problem_of(response)
                yield response
        except httpx.TransportError as error:
            raise self._unreachable(error) from error

    async def _asked(
        self, method: str, path: str, *, repeatable: bool = False, also: frozenset[int] = frozenset(), **options: Any
    ) -> httpx.Response:
        for wait_s in self._waits():
            try:
                response = await self._http.request(method, path, **options)
                if not response.is_error or response.status_code in also:
                    return response
                problem: Exception = problem_of(response)
            except httpx.TransportError as error:
                problem = self._unreachable(error)
            # A streamed body is spent.
            if wait_s is None or "content" in options or not _may_repeat(problem, repeatable=repeatable):
                raise problem
            asked_for = problem.retry_after_s if isinstance(problem, ProblemError) else None
            await asyncio.sleep(wait_s if asked_for is None else min(asked_for, MOST_WAIT_S))
        raise AssertionError

    def _waits(self) -> list[float | None]:
        """Seconds before each repeat, longer and longer, none alike; None behind the last attempt."""
        spread = [min(FIRST_WAIT_S * 2**n, MOST_WAIT_S) * random.uniform(0.5, 1) for n in range(self._retries)]  # noqa: S311
        return [*spread, None]

    def _read(self, answer: type[T], response: httpx.Response) -> T:
        return self._parsed(answer, response.content)

    def _parsed(self, answer: type[T], text: str | bytes) -> T:
        try:
            return TypeAdapter(answer).validate_json(text)
        except ValidationError as error:
            raise UnexpectedAnswerError(f"{self.url} did not answer as a Gatehouse API does: {error}") from error

    def _typed(self, answer: type[T], found: object) -> T:
        try:
            return TypeAdapter(answer).validate_python(found)
        except ValidationError as error:
            raise UnexpectedAnswerError(f"{self.url} did not answer as a Gatehouse API does: {error}") from error

    def _unreachable(self, error: httpx.TransportError) -> UnreachableError:
        return UnreachableError(f"the API at {self.url} does not answer ({type(error).__name__})")


def _may_repeat(problem: Exception, *, repeatable: bool) -> bool:
    if isinstance(problem, TooManyRequestsError):
        return True  # it was turned away before anything was done
    busy = isinstance(problem, ConflictError) and problem.kind == "in_progress"
    return repeatable and (busy or isinstance(problem, UnreachableError | UnavailableError))


def _given(fields: Mapping[str, Any] | None) -> dict[str, Any]:
    """Without what was left out, which an older server may not know."""
    return {name: value for name, value in (fields or {}).items() if value is not None}
