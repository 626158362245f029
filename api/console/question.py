"""Drawing one question: the same page whether it is looked at, was answered, or an answer to it was refused."""

from typing import Any

from fastapi import Request
from starlette.responses import Response

from api.console.dossier import dossier, neighbours
from api.console.pages import page, pretty
from api.console.session import Visitor
from api.errors import not_found
from tools.contract import JsonObject
from worker.store.approvals import ApprovalRow


async def row_of(visitor: Visitor, approval_id: str) -> ApprovalRow:
    """The question, if the visitor's tenant has it; else Refused 404."""
    row = await visitor.services.approvals.get(visitor.principal.tenant, approval_id)
    if row is None:
        raise not_found("question", approval_id)
    return row


async def draw(request: Request, visitor: Visitor, row: ApprovalRow, *, status: int = 200, **more: Any) -> Response:
    """The page. `more`: a `problem` to show, and what somebody had typed, so that nothing of it is lost."""
    found = await dossier(visitor.services, visitor.principal, row)
    before, after = await neighbours(visitor.services, row)
    arguments: JsonObject = {} if found.approval.call is None else found.approval.call.arguments
    context: dict[str, Any] = {
        "d": found, "a": found.approval, "before": before, "after": after, "problem": None, "problems": [],
        "editing": None, "changes": None, "unchanged": False, "reason": "", "output": "", "done": "", "denial": "",
        "uses": "10", "days": "7", "like": "", "behalf": "", "glass_reason": "", "remembering": False,
        "breaking": False, "saying": "", "said_text": "", "to": "",
        "arguments_json": pretty(arguments), "may_answer": visitor.may("approvals", "answer"),
    }  # fmt: skip
    return page(request, "question.html", status=status, **{**context, **more})
