"""Links of mails: they open a question for whoever is signed in, once, and never answer anything.

Programs that look through mail fetch links; nobody is signed in there, so such a fetch uses nothing up and shows
nothing. A link signs nobody in: who holds it learns no more than by the question's own address.
"""

from datetime import UTC, datetime
from typing import Annotated
from urllib.parse import quote

from fastapi import APIRouter, Path
from starlette.responses import RedirectResponse, Response

from api.console.session import QueueReader
from api.errors import Refused, not_found
from worker.notify import tokens

router = APIRouter(prefix="/links")


@router.get("/{token}")
async def follow(token: Annotated[str, Path(max_length=400)], visitor: QueueReader) -> Response:
    """Use it up and go to the question."""
    services, who = visitor.services, visitor.principal
    read = tokens.read(token)
    row = await services.approvals.get(who.tenant, read.approval_id) if read is not None else None
    if read is None or row is None or read.verb != "open":
        raise not_found("question", "of this link")
    flaw = services.tokens.flaw(read, row.request.digest, datetime.now(UTC))
    if flaw == "forged":
        raise not_found("question", "of this link")
    meant = next((p for p in services.notify.now.people if p.mail and tokens.recipient(p.mail) == read.who), None)
    if meant is not None and (meant.principal, meant.tenant) != (who.id, who.tenant):
        raise Refused(403, "not_yours", "this link was sent to somebody else", remedy="find the question in the queue")
    if flaw == "old":
        raise Refused(410, "link_old", "this link is too old", remedy="find the question in the queue")
    if not await services.spent.spend(
        read.id, tenant=who.tenant, approval_id=row.request.id, by=who.id, told={"way": "mail", "verb": "open"}
    ):
        raise Refused(410, "link_used", "this link was used before", remedy="find the question in the queue")
    return RedirectResponse(f"/console/questions/{quote(row.request.id, safe='')}", 303)
