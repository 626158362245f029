"""Who looks at a page: the session behind the cookie, and what its principal may do. Routes take one of the visitors
below; there is no other way to a principal here, so a page without a right is visible in its signature.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated
from urllib.parse import quote

from fastapi import Depends, Request
from starlette.responses import Response

from api.auth import require
from api.services import Services, ServicesDep
from policies.decision import Principal
from worker.settings import Settings
from worker.store import tenants
from worker.store.keys import covers
from worker.store.sessions import Session

HOME = "/console/queue"


@dataclass(frozen=True, slots=True)
class Visitor:
    """Somebody who is signed in."""

    principal: Principal
    session: Session
    services: Services

    def may(self, resource: str, action: str) -> bool:
        """Whether a page may offer it; the route behind it asks again."""
        covered = covers(self.session.scopes, resource, action)
        return covered and self.services.engine.may(self.principal, resource, action)


class SignInNeeded(Exception):  # noqa: N818  (named for what is the case)
    """There is no session, or no longer."""

    def __init__(self, *, ended: bool) -> None:
        super().__init__("sign in first")
        self.ended = ended
        """There was one."""


async def visitor(request: Request, services: ServicesDep) -> Visitor:
    """The session of the request's cookie. Raises SignInNeeded."""
    token = request.cookies.get(cookie_name(services.settings, request))
    # Scripts only refresh what is shown; what people do are plain links and forms.
    used = request.headers.get("hx-request") != "true" and not request.url.path.endswith("/live")
    session = await services.sessions.find(token, used=used) if token else None
    if session is None:
        raise SignInNeeded(ended=token is not None)
    found = Visitor(session.principal, session, services)
    request.state.principal = session.principal.id  # for the log
    request.state.visitor = found
    tenants.narrow_to(session.principal.tenant)
    if used and request.method == "GET" and found.may("deliveries", "read"):
        request.state.undelivered = await services.outbox.dead(session.principal.tenant)  # for the navigation
    return found


SignedIn = Annotated[Visitor, Depends(visitor)]


def allowed(resource: str, action: str) -> Callable[..., Awaitable[Visitor]]:
    """Dependency: the visitor, if the engine lets them do `action` on `resource`; else Refused 403, recorded."""

    async def check(request: Request, found: SignedIn) -> Visitor:
        await require(found.services, found.principal, resource, action, request, scopes=found.session.scopes)
        return found

    return check


RunsReader = Annotated[Visitor, Depends(allowed("runs", "read"))]
RunsCanceller = Annotated[Visitor, Depends(allowed("runs", "cancel"))]
ArtifactsReader = Annotated[Visitor, Depends(allowed("artifacts", "read"))]
AutomationsReader = Annotated[Visitor, Depends(allowed("automations", "read"))]
ToolsReader = Annotated[Visitor, Depends(allowed("tools", "read"))]
PolicyReader = Annotated[Visitor, Depends(allowed("policy", "read"))]
AuditReader = Annotated[Visitor, Depends(allowed("audit", "read"))]
AuditVerifier = Annotated[Visitor, Depends(allowed("audit", "verify"))]
SwitchesReader = Annotated[Visitor, Depends(allowed("switches", "read"))]
SwitchesSetter = Annotated[Visitor, Depends(allowed("switches", "set"))]
SwitchesReleaser = Annotated[Visitor, Depends(allowed("switches", "release"))]
DeliveriesReader = Annotated[Visitor, Depends(allowed("deliveries", "read"))]
DeliveriesRetrier = Annotated[Visitor, Depends(allowed("deliveries", "retry"))]
KeysReader = Annotated[Visitor, Depends(allowed("keys", "read"))]
KeysCreator = Annotated[Visitor, Depends(allowed("keys", "create"))]
KeysRevoker = Annotated[Visitor, Depends(allowed("keys", "revoke"))]
QueueReader = Annotated[Visitor, Depends(allowed("approvals", "read"))]
QueueAnswerer = Annotated[Visitor, Depends(allowed("approvals", "answer"))]


def secure(settings: Settings, request: Request) -> bool:
    """Whether people reach us by HTTPS: then the cookie is never sent without."""
    return (settings.public_url or str(request.base_url)).startswith("https:")


def cookie_name(settings: Settings, request: Request) -> str:
    """With HTTPS the name makes browsers refuse a cookie that another host or path set."""
    return "__Host-gatehouse-session" if secure(settings, request) else "gatehouse-session"


def set_cookie(response: Response, settings: Settings, request: Request, token: str) -> None:
    """Hand the token to the browser: out of scripts' reach, not sent from other sites' forms, gone with the window."""
    response.set_cookie(
        cookie_name(settings, request), token, path="/", httponly=True, samesite="lax", secure=secure(settings, request)
    )


def drop_cookie(response: Response, settings: Settings, request: Request) -> None:
    """Take it back."""
    response.delete_cookie(
        cookie_name(settings, request), path="/", httponly=True, samesite="lax", secure=secure(settings, request)
    )


def safe_next(path: str | None) -> str:
    """Where to go after signing in: a page of the console, never another site."""
    plain = path is not None and path.startswith("/console/") and not any(c in path for c in "\\\r\n")
    return path if plain and path is not None and "//" not in path.split("?")[0] else HOME


def sign_in_path(next_path: str, *, ended: bool = False) -> str:
    """Address of the sign-in page that leads back."""
    return f"/console/sign-in?next={quote(safe_next(next_path), safe='')}" + ("&ended=1" if ended else "")
