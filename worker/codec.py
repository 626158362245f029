"""What becomes of a payload between this process and Temporal: compressed, then encrypted with AES-256-GCM.

An encrypted payload names in its metadata the data key, the tenant and the run; all three and the namespace are bound
to it, so that a payload which is moved to another run, relabelled or altered is refused. The key that encrypts is
derived from the data key for the tenant. Payloads of before encryption stay readable, unless the codec is strict: then
what is neither encrypted nor a step's name (worker/labels.py) is refused.

The codec is told of no tenant. It learns which run is whose from what it decrypts (a run's input comes first) and from
`Tenants.remember`; until then, and outside of runs, it encrypts for the installation (tenant "").
"""

import asyncio
import os
import struct
import zlib
from collections import OrderedDict
from collections.abc import Sequence
from typing import Self

from cryptography.exceptions import InvalidTag
from temporalio.api.common.v1 import Payload
from temporalio.converter import (
    ActivitySerializationContext,
    PayloadCodec,
    SerializationContext,
    WithSerializationContext,
    WorkflowSerializationContext,
)

from worker.labels import is_label
from worker.store.keyring import DataKeyMissing, Keyring

COMPRESS_BYTES = 8 << 10
"""Smaller payloads are not worth the time."""
MAX_PAYLOAD_BYTES = 256 << 20
"""A stored payload that would unpack to more is refused."""
THREAD_BYTES = 128 << 10
"""More than this is compressed and encrypted beside the event loop: 2 MB would hold it for tens of milliseconds."""
ENCODING = b"binary/encrypted"
KEY, TENANT, RUN = "encryption-key-id", "gatehouse-tenant", "gatehouse-run"
"""Names in the metadata of encrypted payloads: a contract."""
_NONCE_BYTES = 12
_REMEMBERED = 20_000


class PayloadRefused(Exception):  # noqa: N818  (says what is the case)
    """The payload was altered, belongs to another run, or its key is gone; the message says which run and why."""


class Tenants:
    """Which run is whose, as far as this process has seen; the oldest are forgotten."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, str] = OrderedDict()

    def remember(self, run_id: str, tenant: str) -> None:
        """The run is that tenant's."""
        self._known[run_id] = tenant
        self._known.move_to_end(run_id)
        if len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)

    def of(self, run_id: str) -> str:
        """The run's tenant; "" where it is not known."""
        return self._known.get(run_id, "")


class CompressingCodec(PayloadCodec):
    """zlib for payloads where it saves something; others pass unchanged."""

    async def encode(self, payloads: Sequence[Payload]) -> list[Payload]:
        """Compress each payload as a whole, metadata included."""
        return [_pack(payload) for payload in payloads]

    async def decode(self, payloads: Sequence[Payload]) -> list[Payload]:
        """The inverse. Raises ValueError on a payload that unpacks to more than MAX_PAYLOAD_BYTES."""
        return [_unpack(payload) for payload in payloads]


class EncryptingCodec(PayloadCodec, WithSerializationContext):
    """Compression and encryption. One for a client; the SDK makes a copy for each run it talks about."""

    def __init__(
        self,
        keyring: Keyring,
        namespace: str,
        tenants: Tenants | None = None,
        run_id: str = "",
        *,
        strict: bool = False,
    ) -> None:
        self._strict = strict
        self._keyring = keyring
        self._namespace = namespace
        self._run_id = run_id
        self.tenants = tenants or Tenants()

    def with_context(self, context: SerializationContext) -> Self:
        """The same for one run."""
        run_id = ""
        if isinstance(context, WorkflowSerializationContext | ActivitySerializationContext):
            run_id = context.workflow_id or ""
        if run_id == self._run_id:
            return self
        return type(self)(self._keyring, self._namespace, self.tenants, run_id, strict=self._strict)

    async def encode(self, payloads: Sequence[Payload]) -> list[Payload]:
        """Raises KeyringError when the keys went bad."""
        if sum(len(payload.data) for payload in payloads) > THREAD_BYTES:
            return await asyncio.to_thread(self._encode, payloads)
        return self._encode(payloads)

    async def decode(self, payloads: Sequence[Payload]) -> list[Payload]:
        """Raises PayloadRefused, and ValueError as CompressingCodec does."""
        if sum(len(payload.data) for payload in payloads) > THREAD_BYTES:
            return await asyncio.to_thread(self._decode, payloads)
        return self._decode(payloads)

    def _encode(self, payloads: Sequence[Payload]) -> list[Payload]:
        return [payload if is_label(payload) else self._seal(_pack(payload)) for payload in payloads]

    def _decode(self, payloads: Sequence[Payload]) -> list[Payload]:
        return [_unpack(self._open(payload)) for payload in payloads]

    def _seal(self, payload: Payload) -> Payload:
        run_id = self._run_id
        tenant, key_id = self.tenants.of(run_id), self._keyring.newest
        nonce = os.urandom(_NONCE_BYTES)
        sealed = self._keyring.cipher(key_id, f"payload/{tenant}").encrypt(
            nonce, payload.SerializeToString(), _bound(key_id, self._namespace, tenant, run_id)
        )
        return Payload(
            metadata={
                "encoding": ENCODING, KEY: key_id.encode(), TENANT: tenant.encode(), RUN: run_id.encode(),
            },
            data=nonce + sealed,
        )  # fmt: skip

    def _open(self, payload: Payload) -> Payload:
        if payload.metadata.get("encoding") != ENCODING:
            if self._strict and not is_label(payload):
                raise PayloadRefused(f"a payload that is not encrypted came in {self._run_id or 'no run'}")
            return payload
        tenant, run_id = owner(payload)
        if self._run_id and run_id != self._run_id:
            raise PayloadRefused(f"a payload of {run_id or 'no run'} came where one of {self._run_id} was expected")
        key_id = payload.metadata.get(KEY, b"").decode(errors="replace")
        try:
            plain = self._keyring.cipher(key_id, f"payload/{tenant}").decrypt(
                payload.data[:_NONCE_BYTES],
                payload.data[_NONCE_BYTES:],
                _bound(key_id, self._namespace, tenant, run_id),
            )
        except DataKeyMissing as error:
            raise PayloadRefused(f"a payload of {run_id or 'no run'}: {error}") from error
        except (InvalidTag, ValueError) as error:
            raise PayloadRefused(
                f"a payload of {run_id or 'no run'} was altered, or is not this namespace's"
            ) from error
        if run_id and tenant:
            self.tenants.remember(run_id, tenant)
        return Payload.FromString(plain)


def owner(payload: Payload) -> tuple[str, str]:
    """Tenant and run that an encrypted payload names. What it names is proved only by decrypting it."""
    tenant, run_id = payload.metadata.get(TENANT, b""), payload.metadata.get(RUN, b"")
    return tenant.decode(errors="replace"), run_id.decode(errors="replace")


def _bound(*parts: str) -> bytes:
    """The parts as bytes that no other parts give."""
    raw = [part.encode() for part in ("gatehouse/v1/payload", *parts)]
    return b"".join(struct.pack(">I", len(part)) + part for part in raw)


def _pack(payload: Payload) -> Payload:
    if len(payload.data) < COMPRESS_BYTES:
        return payload
    raw = payload.SerializeToString()
    packed = zlib.compress(raw, level=6)
    if len(packed) >= len(raw):
        return payload
    return Payload(metadata={"encoding": b"binary/zlib"}, data=packed)


def _unpack(payload: Payload) -> Payload:
    if payload.metadata.get("encoding") != b"binary/zlib":
        return payload
    unpacker = zlib.decompressobj()
    raw = unpacker.decompress(payload.data, MAX_PAYLOAD_BYTES)
    if unpacker.unconsumed_tail:
        raise ValueError(f"payload unpacks to more than {MAX_PAYLOAD_BYTES} bytes")
    return Payload.FromString(raw)
