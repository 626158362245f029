"""Decrypts payloads for people: those of their tenant alone, redacted, and never more than they sent.

What may not or cannot be read comes back as it was sent, so the answer tells nothing about it. Claims are followed into
the blob store; what lies there counts only if it is an encrypted payload itself, so that nobody reads other blobs by
their digest.
"""

import json
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from google.protobuf.json_format import MessageToDict, Parse, ParseError
from google.protobuf.message import DecodeError
from pydantic import JsonValue
from temporalio.api.common.v1 import Payload, Payloads

from policies.redaction import Redactor
from tools.contract import JsonObject
from worker.codec import ENCODING, EncryptingCodec, PayloadRefused, owner
from worker.store.blobs import BlobDamaged, BlobMissing, Blobs

CLAIM_BYTES = 4 << 20
"""A claimed payload that is larger is not fetched."""
TOTAL_BYTES = 32 << 20
"""All that one request may fetch."""
_CLAIMS = ("json/external-storage-reference", "json/protobuf")

Owner = Callable[[str], Awaitable[str | None]]
"""Run id -> tenant, from the store; None for a run it does not know."""


class NotPayloads(ValueError):  # noqa: N818  (says what is the case)
    """The request is not `{"payloads": [...]}` in protobuf's JSON."""


class Reading(NamedTuple):
    """What one request made readable."""

    payloads: JsonObject
    runs: list[str]
    """Whose payloads were decrypted, in order of their ids."""
    read: int
    left: int
    """Encrypted ones that came back as they were sent."""


class PayloadReader:
    """One for a process."""

    def __init__(self, codec: EncryptingCodec, blobs: Blobs, redacts: Redactor, owner_of: Owner) -> None:
        self._codec = codec
        self._blobs = blobs
        self._redacts = redacts
        self._owner_of = owner_of

    async def read(self, body: bytes, tenant: str) -> Reading:
        """Raises NotPayloads, StoreUnavailable."""
        try:
            sent = Parse(body, Payloads())
        except ParseError as error:
            raise NotPayloads(str(error)[:200]) from error
        runs: set[str] = set()
        shown: list[Payload] = []
        left, budget = 0, TOTAL_BYTES
        for payload in sent.payloads:
            found = await self._fetched(payload, budget)
            budget -= len(found.data) if found is not payload else 0
            if found.metadata.get("encoding") != ENCODING:
                # Plain already, or a claim of something else: what its sender has, and no more.
                shown.append(payload)
                continue
            plain = await self._decrypted(found, tenant)
            left += plain is None
            shown.append(payload if plain is None else self._redacted(plain))
            if plain is not None:
                runs.add(owner(found)[1])
        message = MessageToDict(Payloads(payloads=shown))
        return Reading({"payloads": message.get("payloads", [])}, sorted(runs), len(shown) - left, left)

    async def _fetched(self, payload: Payload, budget: int) -> Payload:
        """What a claim stands for; any other payload as it is."""
        if payload.metadata.get("encoding", b"").decode(errors="replace") not in _CLAIMS:
            return payload
        digest = _digest(payload)
        try:
            if digest is None or await self._blobs.size(digest) > min(CLAIM_BYTES, budget):
                return payload
            return Payload.FromString(await self._blobs.read(digest))
        except (BlobMissing, BlobDamaged, DecodeError):
            return payload  # gone, or no payload at all

    async def _decrypted(self, payload: Payload, tenant: str) -> Payload | None:
        named, run_id = owner(payload)
        if not named:  # encrypted before it was known whose run this is
            named = await self._owner_of(run_id) or ""
        if named != tenant:
            return None
        try:
            [plain] = await self._codec.decode([payload])
        except (PayloadRefused, ValueError):
            return None
        return plain

    def _redacted(self, payload: Payload) -> Payload:
        value: JsonValue = None
        if payload.data:
            try:
                value = self._redacts.json(json.loads(payload.data))
            except ValueError:
                value = f"({len(payload.data)} bytes that are no JSON)"
        return Payload(metadata={"encoding": b"json/plain"}, data=json.dumps(value).encode())


def _digest(payload: Payload) -> str | None:
    try:
        claim = json.loads(payload.data)
        data = claim.get("claimData") or claim["storage_claim"]["claim_data"]
        return str(data["sha256"])
    except (ValueError, LookupError, AttributeError, TypeError):
        return None
