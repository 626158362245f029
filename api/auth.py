"""Who asks, and whether they may: an API key becomes a Principal, and the policy engine says what it may do.

Routes take one of the annotated principals below; there is no other way to a Principal, so a route without a right is
visible in its signature. Identity never comes from a body, a query or another header.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Annotated

import structlog
from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from api.errors import FieldProblem, Refused
from api.oidc import OidcRefused, OidcUnreachable
from api.services import Services, ServicesDep
from policies.decision import Principal
from worker.store import tenants
from worker.store.audit import AuditEvent
from worker.store.ids import new_id
from worker.store.keys import covers

ROLES = ("viewer", "operator", "approver", "auditor", "admin")

UNKNOWN_TENANT = "-"
"""Tenant of the record about a key nobody owns."""

_DOTS = 2
"""Between the three parts of a JSON Web Token; an API key has none."""

log = structlog.get_logger(__name__)

bearer = HTTPBearer(
    auto_error=False,
    scheme_name="ApiKey",
    bearerFormat="gh_<id>_<secret>",
    description="An API key: `Authorization: Bearer gh_...`. Made by `gatehouse keys create` or POST /api/v1/keys. "
    "Where the installation says so, an access token of its identity provider.",
)


@dataclass(frozen=True, slots=True)
class Caller:
    """Who a request's key or token stands for."""

    principal: Principal
    counted_as: str
    """What its requests are counted under."""
    scopes: tuple[str, ...] = ()
    """Of its roles' rights only these; all when empty."""


async def presented(
    request: Request,
    services: ServicesDep,
    credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)],
) -> Caller:
    """Who the API key or access token of the request stands for. Raises Refused 401 with `WWW-Authenticate`, 429 with
    `Retry-After`, 503 when the identity provider does not answer."""
    if credentials is None:
        raise _unauthenticated("no API key was sent", "")
    caller = await _caller(services, credentials.credentials)
    if caller is None:
        # Valid keys from the same address go on: others may sit behind it.
        services.rates.count(address=request.client.host if request.client else "unknown")
        await record_bad_key(services, request)
        raise _unauthenticated("the API key or token is unknown, expired or revoked", 'error="invalid_token"')
    request.state.principal = caller.principal.id  # for the log
    services.rates.count(key=caller.counted_as, tenant=caller.principal.tenant)
    tenants.narrow_to(caller.principal.tenant)
    return caller


async def _caller(services: Services, credential: str) -> Caller | None:
    if services.oidc is None or credential.count(".") != _DOTS:
        key = await services.keys.verify(credential)
        return None if key is None else Caller(key.principal, key.id, key.scopes)
    try:
        principal = await services.oidc.bearer(credential)
    except OidcRefused as error:
        log.warning("access.bad_token", reason=str(error)[:500])
        return None
    except OidcUnreachable as error:
        log.error("access.provider_unreachable", reason=str(error)[:500])  # noqa: TRY400  (the reason says it)
        raise Refused(
            503,
            "provider_unreachable",
            "the identity provider does not answer, so the token cannot be checked",
            remedy="try again, or use an API key",
            headers={"Retry-After": "5"},
        ) from error
    return Caller(principal, f"token of {principal.tenant}/{principal.id}")


Presented = Annotated[Caller, Depends(presented)]


async def authenticated(caller: Presented) -> Principal:
    """Whom the key or token stands for."""
    return caller.principal


Authenticated = Annotated[Principal, Depends(authenticated)]


def allowed(
    resource: str, action: str, by: Callable[..., Awaitable[Caller]] = presented
) -> Callable[..., Awaitable[Principal]]:
    """Dependency: the principal, if the engine lets it do `action` on `resource` and the key's scopes cover it; else
    Refused 403, recorded. `by` says who the caller is."""

    async def check(request: Request, services: ServicesDep, caller: Annotated[Caller, Depends(by)]) -> Principal:
        await require(services, caller.principal, resource, action, request, scopes=caller.scopes)
        return caller.principal

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
Granter = Annotated[Principal, Depends(allowed("approvals", "grant"))]
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
RetentionReader = Annotated[Principal, Depends(allowed("retention", "read"))]
RetentionHolder = Annotated[Principal, Depends(allowed("retention", "hold"))]
RetentionReleaser = Annotated[Principal, Depends(allowed("retention", "release"))]
DeliveriesReader = Annotated[Principal, Depends(allowed("deliveries", "read"))]
DeliveriesRetrier = Annotated[Principal, Depends(allowed("deliveries", "retry"))]
KeysReader = Annotated[Principal, Depends(allowed("keys", "read"))]
KeysCreator = Annotated[Principal, Depends(allowed("keys", "create"))]
KeysRevoker = Annotated[Principal, Depends(allowed("keys", "revoke"))]
