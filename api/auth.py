"""Who asks, and whether they may: an API key becomes a Principal, and the policy engine says what it may do.

Routes take one of the annotated principals below; there is no other way to a Principal, so a route without a right is
visible in its signature. Identity never comes from a body, a query or another header.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated

import structlog
from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from api.errors import FieldProblem, Refused
from api.services import Services, ServicesDep
from policies.decision import Principal
from worker.store.audit import AuditEvent
from worker.store.ids import new_id
from worker.store.keys import ApiKey, covers

ROLES = ("viewer", "operator", "approver", "auditor", "admin")

UNKNOWN_TENANT = "-"
"""Tenant of the record about a key nobody owns."""

log = structlog.get_logger(__name__)

_bearer = HTTPBearer(
    auto_error=False,
    scheme_name="ApiKey",
    bearerFormat="gh_<id>_<secret>",
    description="An API key: `Authorization: Bearer gh_...`. Made by `gatehouse keys create` or POST /api/v1/keys.",
)


async def presented(
    request: Request,
    services: ServicesDep,
    credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
) -> ApiKey:
    """The valid key the request brings. Raises Refused 401 with `WWW-Authenticate`, 429 with `Retry-After`."""
    if credentials is None:
        raise _unauthenticated("no API key was sent", "")
    key = await services.keys.verify(credentials.credentials)
    if key is None:
        # Valid keys from the same address go on: others may sit behind it.
        services.rates.count(address=request.client.host if request.client else "unknown")
        await record_bad_key(services, request)
        raise _unauthenticated("the API key is unknown, expired or revoked", 'error="invalid_token"')
    request.state.principal = key.principal.id  # for the log
    services.rates.count(key=key.id, tenant=key.principal.tenant)
    return key


Presented = Annotated[ApiKey, Depends(presented)]


async def authenticated(key: Presented) -> Principal:
    """Whom the key stands for."""
    return key.principal


Authenticated = Annotated[Principal, Depends(authenticated)]


def allowed(resource: str, action: str) -> Callable[..., Awaitable[Principal]]:
    """Dependency: the principal, if the engine lets it do `action` on `resource` and the key's scopes cover it; else
    Refused 403, recorded."""

    async def check(request: Request, services: ServicesDep, key: Presented) -> Principal:
        await require(services, key.principal, resource, action, request, scopes=key.scopes)
        return key.principal

    return check


async def require(
    services: Services, principal: Principal, resource: str, action: str, request: Request, *, scopes: tuple[str, ...]
) -> None:
    """Return if the engine lets the principal do `action` on `resource` and its key's scopes cover it; else Refused
    403, recorded."""
    covered = covers(scopes, resource, action)
    if covered and services.engine.may(principal, resource, action):
        return
    await services.audit.append(
        AuditEvent(
            event_id=f"access/{new_id('deny')}",
            type="access.denied",
            tenant=principal.tenant,
            run_id=None,
            actor=principal.id,
            body={
                "resource": resource, "action": action, "method": request.method,
                "path": services.redacts.text(request.url.path),
                "roles": list(principal.roles), "reason": "role" if covered else "scope",
            },
        )
    )  # fmt: skip
    if not covered:
        raise Refused(
            403,
            "forbidden",
            f"the scopes of this key ({', '.join(scopes)}) do not cover {resource}:{action}",
            remedy="use another key of yours, or ask for one with that scope",
        )
    needed = roles_for(services, resource, action)
    raise Refused(
        403,
        "forbidden",
        f"`{principal.id}` may not {action} {resource}; it needs the role {' or '.join(needed) or '(none has it)'}",
        remedy="ask an administrator for a key with that role",
    )


def roles_for(services: Services, resource: str, action: str) -> list[str]:
    """The roles that have the right, asked of the same engine, least powerful first."""
    return [r for r in ROLES if services.engine.may(Principal(id="-", roles=(r,)), resource, action)]


def unknown_roles(services: Services, roles: Sequence[str], field: str) -> list[FieldProblem]:
    """The roles no rules file declares: nothing would ever match them, and a typing error should not pass for one."""
    return [
        FieldProblem(
            field=f"{field}.{index}",
            problem=f"the policy declares no role `{role}`",
            remedy="correct it, or declare it under `roles:` of a rules file",
        )
        for index, role in enumerate(roles)
        if role not in services.engine.roles_of(Principal(id="-", roles=(role,)))
    ]


def _unauthenticated(detail: str, error: str) -> Refused:
    challenge = 'Bearer realm="gatehouse"' + (f", {error}" if error else "")
    return Refused(
        401,
        "unauthenticated",
        detail,
        remedy="send `Authorization: Bearer gh_...` with a valid key",
        headers={"WWW-Authenticate": challenge},
    )


async def record_bad_key(services: Services, request: Request) -> None:
    """Put it on record that somebody came with a key nobody owns; capped."""
    client = request.client.host if request.client else "unknown"
    log.warning("access.bad_key", path=request.url.path, client=client)
    # Whoever has no key could otherwise grow the log without end.
    suppressed = services.bad_keys.take()
    if suppressed is None:
        return
    await services.audit.append(
        AuditEvent(
            event_id=f"access/{new_id('deny')}",
            type="access.denied",
            tenant=UNKNOWN_TENANT,
            run_id=None,
            actor="unknown",
            body={
                "method": request.method, "path": services.redacts.text(request.url.path)[:500], "client": client,
                "reason": "bad_key",
                "suppressed": suppressed,
            },
        )
    )  # fmt: skip


RunsReader = Annotated[Principal, Depends(allowed("runs", "read"))]
RunsStarter = Annotated[Principal, Depends(allowed("runs", "start"))]
RunsCanceller = Annotated[Principal, Depends(allowed("runs", "cancel"))]
FilesUploader = Annotated[Principal, Depends(allowed("files", "upload"))]
ArtifactsReader = Annotated[Principal, Depends(allowed("artifacts", "read"))]
ApprovalsReader = Annotated[Principal, Depends(allowed("approvals", "read"))]
ApprovalsAnswerer = Annotated[Principal, Depends(allowed("approvals", "answer"))]
AutomationsReader = Annotated[Principal, Depends(allowed("automations", "read"))]
ToolsReader = Annotated[Principal, Depends(allowed("tools", "read"))]
AuditReader = Annotated[Principal, Depends(allowed("audit", "read"))]
AuditVerifier = Annotated[Principal, Depends(allowed("audit", "verify"))]
PolicyChecker = Annotated[Principal, Depends(allowed("policy", "check"))]
PolicyReader = Annotated[Principal, Depends(allowed("policy", "read"))]
PolicyProposer = Annotated[Principal, Depends(allowed("policy", "propose"))]
PolicyApplier = Annotated[Principal, Depends(allowed("policy", "apply"))]
SwitchesReader = Annotated[Principal, Depends(allowed("switches", "read"))]
SwitchesSetter = Annotated[Principal, Depends(allowed("switches", "set"))]
SwitchesReleaser = Annotated[Principal, Depends(allowed("switches", "release"))]
KeysReader = Annotated[Principal, Depends(allowed("keys", "read"))]
KeysCreator = Annotated[Principal, Depends(allowed("keys", "create"))]
KeysRevoker = Annotated[Principal, Depends(allowed("keys", "revoke"))]
