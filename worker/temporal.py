"""How every process talks to Temporal: one client configuration, one workflow runner, one set of search attributes.

Payloads are pydantic JSON, compressed and encrypted (worker/codec.py); what is still larger than `CLAIM_BYTES` goes
into the blob store and leaves a claim in the history. Failures are redacted and encrypted, messages and stack traces
too; plain are ids, types, search attributes and claims.
"""

import asyncio
import compileall
import functools
import json
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from urllib.parse import unquote, urlsplit

from pydantic import SecretStr
from pydantic_ai.durable_exec.temporal import PydanticAIPayloadConverter, PydanticAIPlugin
from temporalio.api.common.v1 import Payload
from temporalio.api.enums.v1 import IndexedValueType
from temporalio.api.failure.v1 import Failure
from temporalio.api.operatorservice.v1 import AddSearchAttributesRequest, ListSearchAttributesRequest
from temporalio.client import Client
from temporalio.converter import (
    DataConverter,
    DefaultFailureConverter,
    ExternalStorage,
    PayloadCodec,
    PayloadConverter,
    StorageDriver,
    StorageDriverClaim,
    StorageDriverRetrieveContext,
    StorageDriverStoreContext,
)
from temporalio.service import RPCError, RPCStatusCode
from temporalio.worker import WorkflowRunner
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner, SandboxRestrictions

from policies.redaction import Redactor
from worker.artifacts import open_blobs
from worker.codec import EncryptingCodec
from worker.encryption import open_keyring, strict
from worker.settings import Settings
from worker.store.blobs import Blobs
from workflows import contracts

CLAIM_BYTES = 16 << 10
"""Payloads that are larger than this after compression are kept as blobs."""
_ENCODED = "Encoded failure"
"""What the SDKs and the UI show where a failure's own words are encrypted."""

SEARCH_ATTRIBUTES: Mapping[str, "IndexedValueType.ValueType"] = {
    contracts.SA_AUTOMATION: IndexedValueType.INDEXED_VALUE_TYPE_KEYWORD,
    contracts.SA_TENANT: IndexedValueType.INDEXED_VALUE_TYPE_KEYWORD,
    contracts.SA_PHASE: IndexedValueType.INDEXED_VALUE_TYPE_KEYWORD,
    contracts.SA_RUNG: IndexedValueType.INDEXED_VALUE_TYPE_KEYWORD,
    contracts.SA_APPROVERS: IndexedValueType.INDEXED_VALUE_TYPE_KEYWORD_LIST,
    contracts.SA_DEADLINE: IndexedValueType.INDEXED_VALUE_TYPE_DATETIME,
}

# Pure modules, the same inside the workflow sandbox and outside: reloading them for every run would only cost time.
# What holds the logic of a run (automation, ladder, tool_call, ...) is not here, so that the sandbox watches it.
_PASSED_THROUGH = (
    "tools",
    "policies",
    "workflows.agents",
    "workflows.contracts",
    "workflows.questions",
    "workflows.faults",
    "workflows.held",
    "workflows.ports",
    "workflows.schemas",
    "workflows.spec",
    "workflows.spending",
    # Used by the above, some of it lazily; a late import inside a workflow trips the deadlock detector.
    "cryptography",
    "jsonschema_rs",
    "opentelemetry",
    "re2",
)


class TemporalUnavailable(Exception):  # noqa: N818  (says what is the case)
    """The Temporal server does not answer at the configured address; the message says which and why."""


def redactor(settings: Settings) -> Redactor:
    """Takes out secrets, those this process was started with in every spelling, and personal data as is set.

    The same settings give the same redactor: what it learns goes out of logs, failures, records and views alike.
    """
    held = [value for name in type(settings).model_fields if isinstance(value := getattr(settings, name), SecretStr)]
    password = urlsplit(settings.sql_url).password
    known = [secret.get_secret_value() for secret in held] + ([unquote(password)] if password else [])
    return _redactor(tuple(known), settings.privacy == "personal")


@functools.lru_cache(maxsize=16)
def _redactor(known: tuple[str, ...], private: bool) -> Redactor:
    return Redactor(known, private=private)


def data_converter(blobs: Blobs, redacts: Redactor, codec: PayloadCodec) -> DataConverter:
    """How values become payloads; every process must use the same, or it cannot read the others'."""

    class Redacting(RedactingFailureConverter):
        # The SDK takes a class and makes its own instance, so what the instance needs is bound here.
        def __init__(self) -> None:
            super().__init__(redacts)

    return DataConverter(
        payload_converter_class=PydanticAIPayloadConverter,
        payload_codec=codec,
        failure_converter_class=Redacting,
        external_storage=ExternalStorage(drivers=[BlobDriver(blobs)], payload_size_threshold=CLAIM_BYTES),
    )


async def connect(
    settings: Settings,
    *,
    timeout: timedelta = timedelta(seconds=5),  # noqa: ASYNC109  (the SDK knows none that covers everything)
) -> Client:
    """A client for this installation. Raises TemporalUnavailable when the server does not answer within `timeout`, and
    KeyringError when payloads could not be encrypted."""
    codec = EncryptingCodec(open_keyring(settings), settings.temporal_namespace, strict=strict(settings))
    converter = data_converter(open_blobs(settings), redactor(settings), codec)
    try:
        async with asyncio.timeout(timeout.total_seconds()):
            return await Client.connect(
                settings.temporal_address,
                namespace=settings.temporal_namespace,
                data_converter=converter,
                plugins=[PydanticAIPlugin()],
            )
    except (TimeoutError, RuntimeError, RPCError) as error:
        # The SDK reports a refused connection as RuntimeError.
        raise TemporalUnavailable(f"Temporal at {settings.temporal_address}: {error or 'no answer'}") from error


def belongs(client: Client, run_id: str, tenant: str) -> None:
    """Tell the client's codec whose run this is, before anything is sent to it."""
    codec = client.data_converter.payload_codec
    if isinstance(codec, EncryptingCodec):
        codec.tenants.remember(run_id, tenant)


def workflow_runner() -> WorkflowRunner:
    """The sandbox all workflow code runs in. Worker and Replayer must share it, or replays differ from runs."""
    # The sandbox imports workflow code anew for every run it takes up. Where nobody keeps its bytecode (containers
    # often set PYTHONDONTWRITEBYTECODE) it would compile all of it each time: most of what taking up a run costs.
    compileall.compile_dir(Path(contracts.__file__).parent, quiet=2)
    restrictions = SandboxRestrictions.default.with_passthrough_modules(*_PASSED_THROUGH)
    return SandboxedWorkflowRunner(restrictions=restrictions)


async def ensure_search_attributes(client: Client) -> None:
    """Register our search attributes where missing: an unknown one would wedge every run at its first step.

    Raises RPCError when the server refuses, e.g. for want of rights (then an operator must add them).
    """
    listed = await client.operator_service.list_search_attributes(
        ListSearchAttributesRequest(namespace=client.namespace)
    )
    missing = {name: kind for name, kind in SEARCH_ATTRIBUTES.items() if name not in listed.custom_attributes}
    if not missing:
        return
    try:
        await client.operator_service.add_search_attributes(
            AddSearchAttributesRequest(namespace=client.namespace, search_attributes=missing)
        )
    except RPCError as error:
        if error.status is not RPCStatusCode.ALREADY_EXISTS:
            raise


class BlobDriver(StorageDriver):
    """Keeps large payloads in the blob store; the history holds their digest. Blobs must outlive the retention time."""

    def __init__(self, blobs: Blobs) -> None:
        self._blobs = blobs

    def name(self) -> str:
        """Stands in every claim: never change it."""
        return "gatehouse-blobs"

    async def store(
        self,
        context: StorageDriverStoreContext,  # noqa: ARG002  (interface)
        payloads: Sequence[Payload],
    ) -> list[StorageDriverClaim]:
        """Raises StoreUnavailable when the disk does not take it."""
        stored = [await self._blobs.put(payload.SerializeToString()) for payload in payloads]
        return [StorageDriverClaim(claim_data={"sha256": blob.sha256}) for blob in stored]

    async def retrieve(
        self,
        context: StorageDriverRetrieveContext,  # noqa: ARG002  (interface)
        claims: Sequence[StorageDriverClaim],
    ) -> list[Payload]:
        """Raises BlobMissing and BlobDamaged: a payload is whole or not given."""
        return [Payload.FromString(await self._blobs.read(claim.claim_data["sha256"])) for claim in claims]


class RedactingFailureConverter(DefaultFailureConverter):
    """Takes secrets out of messages, stack traces and details, causes included, before a failure enters a history; then
    moves message and stack trace to where the codec encrypts them."""

    def __init__(self, redacts: Redactor) -> None:
        super().__init__()
        self._redacts = redacts

    def to_failure(self, exception: BaseException, payload_converter: PayloadConverter, failure: Failure) -> None:
        """As the default, redacted and with encoded attributes."""
        super().to_failure(exception, payload_converter, failure)
        current = failure
        while True:
            # A failure that came from elsewhere and is raised again has its text in both places.
            if current.message != _ENCODED or not current.HasField("encoded_attributes"):
                self._redact_failure(current)
                texts = {"message": current.message, "stack_trace": current.stack_trace}
                current.encoded_attributes.CopyFrom(payload_converter.to_payload(texts))
                current.message, current.stack_trace = _ENCODED, ""
            if not current.HasField("cause"):
                return
            current = current.cause

    def _redact_failure(self, failure: Failure) -> None:
        failure.message = self._redacts.text(failure.message)
        failure.stack_trace = self._redacts.text(failure.stack_trace)
        for payload in failure.application_failure_info.details.payloads:
            self._redact(payload)

    def _redact(self, payload: Payload) -> None:
        """Details are JSON here (codecs come later); anything else is dropped rather than let through unread."""
        try:
            value = json.loads(payload.data) if payload.data else None
        except ValueError:
            value = None
        payload.data = json.dumps(self._redacts.json(value)).encode() if payload.data else b""
