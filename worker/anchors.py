"""Further places that the anchor's lines are copied to: a bucket, a webhook, a syslog server.

The anchor file comes first and is what `audit verify` reads; a copy that lags is caught up, and holds nothing up. In a
bucket the lines are objects named by their number, so that they read in order as the file itself: with object lock on
the bucket nobody can take them back. A webhook gets each line by POST, a syslog server its signed note: these two begin
with the newest line when the process starts.
"""

import asyncio
import json
import socket
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

import httpx
import structlog

from worker.settings import Settings
from worker.store.anchor import parse
from worker.store.blobs_s3 import BucketSettings, S3Backend
from worker.store.database import StoreUnavailable

_SEND_S = 10.0
_NOTICE = 8 * 13 + 5
"""Syslog: facility 13 (log audit), severity 5 (notice)."""

log = structlog.stdlib.get_logger("gatehouse.audit")


class NotCopied(Exception):  # noqa: N818  (says what is the case)
    """The place did not take the line now."""


class Place(Protocol):
    """Where copies go."""

    async def held(self) -> int | None:
        """How many lines are there already; None when it cannot tell. Raises NotCopied."""
        ...

    async def put(self, number: int, line: bytes) -> None:
        """Take the line; `number` counts from 1. Raises NotCopied."""
        ...


class Copies:
    """Copies of one anchor file in one place."""

    def __init__(self, anchor: Path, place: Place) -> None:
        self._anchor = anchor
        self._place = place
        self._done: int | None = None

    async def catch_up(self) -> None:
        """Copy the lines that are not there yet, in order. What fails is logged, and tried again the next time."""
        try:
            lines = (await asyncio.to_thread(self._anchor.read_bytes)).splitlines(keepends=True)
            if self._done is None:
                held = await self._place.held()
                self._done = len(lines) - 1 if held is None else held
            for number in range(max(self._done, 0) + 1, len(lines) + 1):
                await self._place.put(number, lines[number - 1])
                self._done = number
        except FileNotFoundError:
            return  # nothing was signed yet
        except NotCopied as error:
            log.warning("audit.not_copied", place=type(self._place).__name__, reason=str(error))


class Bucket:
    """An S3-compatible bucket."""

    def __init__(self, settings: BucketSettings) -> None:
        self._backend = S3Backend(settings, Path(tempfile.gettempdir()))

    async def held(self) -> int | None:
        """See Place."""
        try:
            return len([found async for found in self._backend.list() if found.name.endswith(".json")])
        except StoreUnavailable as error:
            raise NotCopied(str(error)) from error

    async def put(self, number: int, line: bytes) -> None:
        """See Place."""
        with tempfile.NamedTemporaryFile() as file:
            file.write(line)
            file.flush()
            try:
                await self._backend.put(f"{number:010}.json", Path(file.name))
            except StoreUnavailable as error:
                raise NotCopied(str(error)) from error


class Hook:
    """A webhook. What it gets is signed already."""

    def __init__(self, url: str) -> None:
        self._url = url

    async def held(self) -> int | None:
        """See Place."""
        return None

    async def put(self, number: int, line: bytes) -> None:
        """See Place."""
        headers = {"Content-Type": "application/json", "Gatehouse-Anchor-Line": str(number)}
        try:
            async with httpx.AsyncClient(trust_env=False, timeout=_SEND_S) as client:
                (await client.post(self._url, content=line, headers=headers)).raise_for_status()
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise NotCopied(f"{type(error).__name__}: {error}") from error


class Syslog:
    """A syslog server, RFC 5424 over UDP. The leaf hashes are left out: the note alone fits a datagram."""

    def __init__(self, address: str) -> None:
        """`address` is `udp://host:port`. Raises ValueError."""
        place = urlsplit(address)
        if place.scheme != "udp" or not place.hostname:
            raise ValueError(f"not an address of a syslog server (udp://host:514): {address}")
        self._target = (place.hostname, place.port or 514)

    async def held(self) -> int | None:
        """See Place."""
        return None

    async def put(self, number: int, line: bytes) -> None:
        """See Place."""
        text = json.dumps(parse(line).note, ensure_ascii=False)
        message = f"<{_NOTICE}>1 - {socket.gethostname()} gatehouse - anchor-{number} - {text}".encode()
        try:
            await asyncio.to_thread(self._send, message)
        except OSError as error:
            raise NotCopied(str(error)) from error

    def _send(self, message: bytes) -> None:
        family, kind, protocol, _, address = socket.getaddrinfo(*self._target, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind, protocol) as sender:
            sender.sendto(message, address)


def copies(settings: Settings) -> Sequence[Copies]:
    """What the settings ask for. Raises ValueError for an address that is none."""
    places: list[Place] = []
    if settings.audit_anchor_s3:
        places.append(
            Bucket(
                BucketSettings(
                    settings.audit_anchor_s3, settings.artifacts_endpoint, settings.artifacts_region,
                    settings.artifacts_access_key, settings.artifacts_secret_key,
                )
            )
        )  # fmt: skip
    if settings.audit_anchor_webhook:
        places.append(Hook(settings.audit_anchor_webhook))
    if settings.audit_anchor_syslog:
        places.append(Syslog(settings.audit_anchor_syslog))
    return [Copies(settings.anchor, place) for place in places]
