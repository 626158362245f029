"""What else people say to a question: ask the requester, reply, hand it on, ask the next group too."""

from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Form, Path, Request
from pydantic import ValidationError
from starlette.responses import RedirectResponse, Response

from api.actions import DelegateIn, EscalateIn, Kind, SayIn, give_action
from api.console.pages import query
from api.console.question import draw, row_of
from api.console.refusals import Said, said
from api.console.session import QueueAnswerer, QueueReader, Visitor
from api.errors import Refused

router = APIRouter(prefix="/questions")

Id = Annotated[str, Path(max_length=80)]
Digest = Annotated[str, Form(max_length=64)]
Text = Annotated[str, Form(max_length=2000)]
Person = Annotated[str, Form(max_length=128)]

_FORMS: Mapping[Kind, type[SayIn | DelegateIn | EscalateIn]] = {
    "ask": SayIn, "reply": SayIn, "delegate": DelegateIn, "escalate": EscalateIn,
}  # fmt: skip
_NEEDED: Mapping[Kind, str] = {
    "ask": "Write what the requester should tell you.",
    "reply": "Write the reply.",
    "delegate": "Name the person who shall answer.",
    "escalate": "The page was too old: read the question again.",
}


@router.post("/{approval_id}/ask")
async def ask(request: Request, approval_id: Id, visitor: QueueAnswerer, digest: Digest, text: Text = "") -> Response:
    """The run's requester is asked; the deadline runs on."""
    return await _say(request, visitor, approval_id, "ask", {"digest": digest, "text": text.strip()})


@router.post("/{approval_id}/reply")
async def reply(request: Request, approval_id: Id, visitor: QueueReader, digest: Digest, text: Text = "") -> Response:
    """By the run's requester alone."""
    return await _say(request, visitor, approval_id, "reply", {"digest": digest, "text": text.strip()})


@router.post("/{approval_id}/delegate")
async def delegate(
    request: Request, approval_id: Id, visitor: QueueAnswerer, digest: Digest, to: Person = "", text: Text = ""
) -> Response:
    """Somebody else may answer, too: one voice, whoever of the two uses it."""
    return await _say(
        request, visitor, approval_id, "delegate", {"digest": digest, "to": to.strip(), "text": text.strip()}
    )


@router.post("/{approval_id}/escalate")
async def escalate(
    request: Request, approval_id: Id, visitor: QueueReader, digest: Digest, text: Text = ""
) -> Response:
    """The next group of the rule's chain is asked at once."""
    return await _say(request, visitor, approval_id, "escalate", {"digest": digest, "text": text.strip()})


async def _say(request: Request, visitor: Visitor, approval_id: str, kind: Kind, given: dict[str, str]) -> Response:
    row = await row_of(visitor, approval_id)
    kept: dict[str, Any] = {"saying": kind, "said_text": given.get("text", ""), "to": given.get("to", "")}
    try:
        body = _FORMS[kind].model_validate(given)
    except ValidationError:
        problem = Said(kind="invalid_request", title="Something is missing", text=_NEEDED[kind])
        return await draw(request, visitor, row, status=422, problem=problem, **kept)
    try:
        await give_action(visitor.services, visitor.principal, approval_id, kind, body)
    except Refused as refused:
        fresh = await row_of(visitor, approval_id)
        return await draw(
            request, visitor, fresh, status=refused.status, problem=said(refused), problems=refused.errors, **kept
        )
    return RedirectResponse(f"/console/questions/{approval_id}{query(done=kind)}", 303)
