"""Who the API key speaks for."""

from fastapi import APIRouter

from api.auth import Authenticated
from api.errors import problems
from policies.decision import Principal

router = APIRouter(prefix="/me", tags=["me"])


@router.get("", operation_id="get_me", summary="The principal of this key", responses=problems())
async def get_me(principal: Authenticated) -> Principal:
    """Identity, tenant and roles of the key that was sent."""
    return principal
