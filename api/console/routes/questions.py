"""One question: everything a reviewer needs to answer it, and the answers: approve, approve edited, deny."""

import json
from typing import Annotated, Any, Literal, cast

from fastapi import APIRouter, Form, Path, Query, Request
from pydantic import ValidationError
from starlette.responses import RedirectResponse, Response

from api.answers import ApproveIn, DenyIn, give_answer
from api.console.arguments import differences
from api.console.dossier import dossier, neighbours
from api.console.pages import page, pretty, query
from api.console.refusals import Said, said
from api.console.session import QueueAnswerer, QueueReader, Visitor
from api.errors import Refused, not_found
from api.validation import schema_problems
from tools.contract import JsonObject
from worker.store.approvals import ApprovalRow

router = APIRouter(prefix="/questions")

Id = Annotated[str, Path(max_length=80)]
Digest = Annotated[str, Form(max_length=64)]
Reason = Annotated[str, Form(max_length=2000)]
Json = Annotated[str, Form(max_length=500_000)]


@router.get("/{approval_id}")
async def question_page(
    request: Request, approval_id: Id, visitor: QueueReader, done: Annotated[str, Query(max_length=20)] = ""
) -> Response:
    """Open or closed."""
    row = await _row(visitor, approval_id)
    return await _draw(request, visitor, row, done=done)


@router.post("/{approval_id}/answer")
async def answer(
    request: Request, approval_id: Id, visitor: QueueAnswerer, digest: Digest,
    verdict: Annotated[Literal["approve", "deny"], Form()], reason: Reason = "", output: Json = "",
) -> Response:  # fmt: skip
    """Yes or no to what was shown."""
    row = await _row(visitor, approval_id)
    try:
        if verdict == "approve":
            given = _parsed(output, "The result") if output.strip() else None
            body: ApproveIn | DenyIn = ApproveIn(digest=digest, reason=reason.strip(), output=given)
        else:
            body = DenyIn(digest=digest, reason=reason.strip())
    except _NotJsonError as error:
        return await _draw(request, visitor, row, status=422, problem=error.said, output=output)
    except ValidationError:
        need = "Say why: the agent reads the reason and goes on without the call."
        problem = Said(kind="invalid_request", title="A denial needs a reason", text=need)
        return await _draw(request, visitor, row, status=422, problem=problem)
    return await _give(request, visitor, row, verdict, body, output=output)


@router.post("/{approval_id}/edit")
async def edit(
    request: Request, approval_id: Id, visitor: QueueAnswerer, digest: Digest, arguments: Json,
    step: Annotated[Literal["review", "approve", "back"], Form()], reason: Reason = "",
) -> Response:  # fmt: skip
    """Other arguments: first shown against the old ones, then approved. The gate decides about them anew."""
    row = await _row(visitor, approval_id)
    call = row.request.call
    if call is None:
        raise Refused(422, "invalid_arguments", "this question is not about a call's arguments")
    try:
        edited = _parsed(arguments, "The arguments")
        body = ApproveIn(digest=digest, reason=reason.strip(), edited_arguments=edited)
    except _NotJsonError as error:
        return await _draw(request, visitor, row, status=422, problem=error.said, editing=arguments, reason=reason)
    except ValidationError:
        problem = Said(kind="invalid_arguments", title="The edit cannot be used", text="It holds what JSON cannot.")
        return await _draw(request, visitor, row, status=422, problem=problem, editing=arguments, reason=reason)
    tool = visitor.services.catalog.tools.get(call.tool)
    wrong = schema_problems(edited, tool.parameters, "arguments") if tool is not None else []
    if wrong or step == "back":
        problem = Said(kind="invalid_arguments", title="The edit does not fit the tool", text="") if wrong else None
        return await _draw(
            request, visitor, row, status=422 if wrong else 200, problem=problem, problems=wrong, editing=arguments,
            reason=reason,
        )  # fmt: skip
    if step == "review":
        changes = differences(call.arguments, edited)
        return await _draw(
            request, visitor, row, editing=pretty(edited), changes=changes, reason=reason,
            unchanged=all(c.change == "same" for c in changes),
        )  # fmt: skip
    return await _give(request, visitor, row, "approve", body, editing=arguments, reason=reason)


async def _give(
    request: Request, visitor: Visitor, row: ApprovalRow, verdict: Literal["approve", "deny"],
    body: ApproveIn | DenyIn, **kept: Any,
) -> Response:  # fmt: skip
    approval_id = row.request.id
    try:
        closed = await give_answer(visitor.services, visitor.principal, approval_id, verdict, body)
    except Refused as refused:
        fresh = await visitor.services.approvals.get(visitor.principal.tenant, approval_id) or row
        kept = kept if fresh.request.digest == row.request.digest else {}
        return await _draw(
            request, visitor, fresh, status=refused.status, problem=said(refused), problems=refused.errors, **kept
        )  # fmt: skip
    return RedirectResponse(f"/console/questions/{approval_id}{query(done=closed.state.value)}", 303)


async def _draw(request: Request, visitor: Visitor, row: ApprovalRow, *, status: int = 200, **more: Any) -> Response:
    found = await dossier(visitor.services, visitor.principal, row)
    before, after = await neighbours(visitor.services, row)
    arguments: JsonObject = {} if found.approval.call is None else found.approval.call.arguments
    context: dict[str, Any] = {
        "d": found, "a": found.approval, "before": before, "after": after, "problem": None, "problems": [],
        "editing": None, "changes": None, "unchanged": False, "reason": "", "output": "", "done": "",
        "arguments_json": pretty(arguments), "may_answer": visitor.may("approvals", "answer"),
    }  # fmt: skip
    return page(request, "question.html", status=status, **{**context, **more})


async def _row(visitor: Visitor, approval_id: str) -> ApprovalRow:
    row = await visitor.services.approvals.get(visitor.principal.tenant, approval_id)
    if row is None:
        raise not_found("question", approval_id)
    return row


class _NotJsonError(Exception):
    """What was typed is no JSON object."""

    def __init__(self, what: str, why: str) -> None:
        super().__init__(why)
        self.said = Said(kind="invalid_arguments", title=f"{what} cannot be read", text=f"Not a JSON object: {why}.")


def _parsed(text: str, what: str) -> JsonObject:
    try:
        found: object = json.loads(text)
    except ValueError as error:
        raise _NotJsonError(what, str(error)) from None
    except RecursionError:
        raise _NotJsonError(what, "it is nested too deeply") from None
    if not isinstance(found, dict):
        raise _NotJsonError(what, "it must begin with { and end with }")
    return cast("JsonObject", found)
