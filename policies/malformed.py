"""What no honest request has: names outside ASCII (look-alikes), arguments of absurd size or depth. Pure, and first."""

import math
import re

from pydantic import JsonValue

from policies.decision import Principal
from tools.contract import NAME_PATTERN

MAX_ARGUMENTS = 512 * 1024
"""Characters and values in the arguments of one call; more is denied unread."""
MAX_DEPTH = 32
MAX_ROLES = 64

_TOOL = re.compile(NAME_PATTERN)
_AUTOMATION = re.compile(r"[a-z][a-z0-9-]{0,47}")
_TENANT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_ROLE = re.compile(r"[a-z][a-z0-9-]{0,47}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class MalformedError(ValueError):
    """The request is denied for its form; the message says why."""


def check_names(roles: tuple[str, ...], tenant: str, automation: str, tool: str) -> None:
    """Raise MalformedError unless every name is a plain one."""
    _check_tenant_and_roles(tenant, roles)
    if not _TOOL.fullmatch(tool):
        raise MalformedError("The tool's name is not a plain tool name.")
    if not _AUTOMATION.fullmatch(automation):
        raise MalformedError("The automation's name is not a plain automation name.")


def check_principal(who: Principal) -> None:
    """Raise MalformedError unless id, tenant and roles are plain."""
    check_id(who.id)
    _check_tenant_and_roles(who.tenant, who.roles)


def check_id(principal_id: str) -> None:
    """Raise MalformedError for an id that is empty, too long, or holds control characters."""
    if not 1 <= len(principal_id) <= 128 or _CONTROL.search(principal_id):
        raise MalformedError("The principal's id or tenant is not a plain name.")


def _check_tenant_and_roles(tenant: str, roles: tuple[str, ...]) -> None:
    if not _TENANT.fullmatch(tenant):
        raise MalformedError("The principal's id or tenant is not a plain name.")
    if len(roles) > MAX_ROLES or not all(_ROLE.fullmatch(role) for role in roles):
        raise MalformedError("A role of the principal is not a plain role name.")


def measure(arguments: dict[str, JsonValue]) -> int:
    """How many values the arguments hold. Raises MalformedError for what no honest call carries.

    Walks without recursion and stops at the first limit, so that no argument can exhaust the gate.
    """
    count = characters = 0
    stack: list[tuple[JsonValue, int]] = [(arguments, 1)]
    while stack:
        value, depth = stack.pop()
        count += 1
        if isinstance(value, str):
            characters += len(value)
        elif isinstance(value, dict):
            characters += sum(map(len, value))
            stack.extend([(v, depth + 1) for v in value.values()])
        elif isinstance(value, list):
            stack.extend([(v, depth + 1) for v in value])
        elif isinstance(value, float):
            if not math.isfinite(value):
                raise MalformedError("An argument is not a finite number.")
        elif isinstance(value, int) and not -(2**63) <= value < 2**63:
            # A condition would see another number than the tool.
            raise MalformedError("An argument is an integer that does not fit in 64 bits.")
        if depth > MAX_DEPTH:
            raise MalformedError(f"The arguments are nested deeper than {MAX_DEPTH} levels.")
        if characters + count + len(stack) > MAX_ARGUMENTS:
            raise MalformedError(f"The arguments are larger than {MAX_ARGUMENTS} characters.")
    return count
