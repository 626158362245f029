"""The codec server of the Temporal UI and command line: payloads readable for who may read histories, and redacted.

Encoding is not offered: nobody types payloads, and it would let a caller make ciphertext of his own.
"""

from typing import Annotated, Any
from urllib.parse import urlsplit

from fastapi import APIRouter, Depends, Header, Request
from fastapi.security import HTTPAuthorizationCredentials
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from api.auth import Caller, allowed, bearer, presented
from api.console.session import SignInNeeded, visitor
from api.errors import invalid, not_found, problems
from api.links import API
from api.services import ServicesDep
from policies.decision import Principal
from tools.contract import JsonObject
from worker.reading import NotPayloads
from worker.settings import Settings
from worker.store.audit import AuditEvent
from worker.store.ids import new_id

router = APIRouter(prefix="/codec", tags=["codec"])


async def _caller(
    request: Request,
    services: ServicesDep,
    credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)],
) -> Caller:
    """As everywhere, or whom the console's session stands for, when a page of the Temporal UI or of ours asks."""
    if credentials is not None or not _from_ui(request, services.settings):
        return await presented(request, services, credentials)
    try:
        found = await visitor(request, services)
    except SignInNeeded:
        return await presented(request, services, credentials)
    services.rates.count(key=found.session.id, tenant=found.principal.tenant)
    return Caller(found.principal, found.session.id, found.session.scopes)


HistoryReader = Annotated[Principal, Depends(allowed("history", "read", by=_caller))]

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
    """Lets pages of the Temporal UI, and of no other origin, ask the codec from a browser: with a key or access token
    in a header, or with the cookie of a console session."""

    def __init__(self, app: ASGIApp, temporal_ui: str) -> None:
        self._app = app
        self._cors = CORSMiddleware(
            app,
            allow_origins=_origins(temporal_ui),
            allow_methods=["POST"],
            allow_credentials=True,
            allow_headers=["authorization", "content-type", "x-namespace"],
            max_age=600,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As ASGI wants it."""
        path: Any = scope.get("path", "")
        app = self._cors if path.startswith(f"{API}/codec/") else self._app
        await app(scope, receive, send)


def _from_ui(request: Request, settings: Settings) -> bool:
    """Whether a page of the Temporal UI or of our own makes the request. A cookie proves whose browser it is, not whose
    page; browsers say that with every POST."""
    origin = request.headers.get("origin")
    return origin is not None and origin in {*_origins(settings.temporal_ui), *_origins(_address(settings, request))}


def _address(settings: Settings, request: Request) -> str:
    """Where people reach us."""
    return settings.public_url or str(request.base_url)


def _origins(address: str) -> list[str]:
    """The UI's origin; on this machine by both of its names."""
    found = urlsplit(address)
    origin = f"{found.scheme}://{found.netloc}"
    twins = {"127.0.0.1": "localhost", "localhost": "127.0.0.1"}
    host = found.hostname or ""
    other = origin.replace(f"//{host}", f"//{twins.get(host, host)}", 1)
    return sorted({origin, other})
