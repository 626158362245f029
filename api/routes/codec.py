"""The codec server of the Temporal UI and command line: payloads readable for who may read histories, and redacted.

Encoding is not offered: nobody types payloads, and it would let a caller make ciphertext of his own.
"""

from typing import Annotated, Any
from urllib.parse import urlsplit

from fastapi import APIRouter, Header, Request
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from api.auth import HistoryReader
from api.errors import invalid, not_found, problems
from api.links import API
from api.services import ServicesDep
from tools.contract import JsonObject
from worker.reading import NotPayloads
from worker.store.audit import AuditEvent
from worker.store.ids import new_id

router = APIRouter(prefix="/codec", tags=["codec"])

_NAMED = 100
"""So many run ids at most stand in the audit record of one request."""


@router.post(
    "/decode",
    operation_id="decode_payloads",
    summary="Decrypt payloads",
    responses=problems(404),
    openapi_extra={
        "requestBody": {
            "required": True,
            "description": "`{\"payloads\": [...]}`, as Temporal's clients send them: protobuf's JSON.",
            "content": {"application/json": {"schema": {"type": "object"}}},
        }
    },
)
async def decode_payloads(
    request: Request,
    principal: HistoryReader,
    services: ServicesDep,
    x_namespace: Annotated[
        str | None, Header(max_length=255, description="The payloads' namespace, as Temporal's clients say it.")
    ] = None,
) -> JsonObject:
    """As many payloads as were sent: those of your tenant decrypted and redacted, others as they were."""
    if x_namespace not in (None, services.settings.temporal_namespace):
        raise not_found("namespace", x_namespace or "")
    try:
        reading = await services.reader.read(await request.body(), principal.tenant)
    except NotPayloads as error:
        raise invalid("body", f"no payloads: {error}", 'send {"payloads": [...]}') from None
    if reading.runs or reading.left:
        await services.audit.append(
            AuditEvent(
                event_id=f"history/{new_id('read')}", type="history.decoded", tenant=principal.tenant, run_id=None,
                actor=principal.id,
                body={
                    "runs": list(reading.runs[:_NAMED]), "run_count": len(reading.runs), "read": reading.read,
                    "left": reading.left,
                },
            )
        )  # fmt: skip
    return reading.payloads


class UiOrigin:
    """Lets pages of the Temporal UI, and of no other origin, ask the codec from a browser. Keys go in a header that the
    page sets; cookies are never sent."""

    def __init__(self, app: ASGIApp, temporal_ui: str) -> None:
        self._app = app
        self._cors = CORSMiddleware(
            app,
            allow_origins=_origins(temporal_ui),
            allow_methods=["POST"],
            allow_headers=["authorization", "content-type", "x-namespace"],
            max_age=600,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As ASGI wants it."""
        path: Any = scope.get("path", "")
        app = self._cors if path.startswith(f"{API}/codec/") else self._app
        await app(scope, receive, send)


def _origins(address: str) -> list[str]:
    """The UI's origin; on this machine by both of its names."""
    found = urlsplit(address)
    origin = f"{found.scheme}://{found.netloc}"
    twins = {"127.0.0.1": "localhost", "localhost": "127.0.0.1"}
    host = found.hostname or ""
    other = origin.replace(f"//{host}", f"//{twins.get(host, host)}", 1)
    return sorted({origin, other})
