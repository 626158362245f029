"""One question: everything a reviewer needs to answer it, and the answers: approve, approve edited, deny; with them a
grant for like calls, an answer for an absent person, an emergency."""

import json
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal, cast

from fastapi import APIRouter, Form, Path, Query, Request
from pydantic import ValidationError
from starlette.responses import RedirectResponse, Response

from api.answers import ApproveIn, DenyIn, give_answer
from api.console.arguments import differences
from api.console.pages import pretty, query
from api.console.question import draw, row_of
from api.console.refusals import Said, said
from api.console.session import QueueAnswerer, QueueReader, Visitor
from api.errors import Refused
from api.granting import RememberIn
from api.validation import schema_problems
from tools.contract import JsonObject
from worker.store.approvals import ApprovalRow

router = APIRouter(prefix="/questions")

Id = Annotated[str, Path(max_length=80)]
Digest = Annotated[str, Form(max_length=64)]
Reason = Annotated[str, Form(max_length=2000)]
Json = Annotated[str, Form(max_length=500_000)]
Person = Annotated[str, Form(max_length=128)]
Flag = Annotated[str, Form(max_length=5)]
Number = Annotated[str, Form(max_length=6)]


@router.get("/{approval_id}")
async def question_page(
    request: Request, approval_id: Id, visitor: QueueReader, done: Annotated[str, Query(max_length=20)] = ""
) -> Response:
    """Open or closed."""
    row = await row_of(visitor, approval_id)
    return await draw(request, visitor, row, done=done)


@router.post("/{approval_id}/answer")
async def answer(
    request: Request, approval_id: Id, visitor: QueueAnswerer, digest: Digest,
    verdict: Annotated[Literal["approve", "deny"], Form()], reason: Reason = "", output: Json = "",
    behalf: Person = "", glass: Flag = "", remember: Flag = "", uses: Number = "", days: Number = "", like: Json = "",
) -> Response:  # fmt: skip
    """Yes or no to what was shown; a yes may break the glass, or leave a grant for like calls behind."""
    row = await row_of(visitor, approval_id)
    kept = {"output": output, "uses": uses, "days": days, "like": like, "behalf": behalf}
    kept |= {"glass_reason" if glass else "denial": reason, "remembering": bool(remember), "breaking": bool(glass)}
    try:
        if verdict == "approve":
            given = _parsed(output, "The result") if output.strip() else None
            memory = _memory(uses, days, like) if remember else None
            body: ApproveIn | DenyIn = ApproveIn(
                digest=digest, reason=reason.strip(), output=given, on_behalf_of=behalf.strip() or None,
                break_glass=bool(glass), remember=memory,
            )  # fmt: skip
        else:
            body = DenyIn(digest=digest, reason=reason.strip(), on_behalf_of=behalf.strip() or None)
    except _NotJsonError as error:
        return await draw(request, visitor, row, status=422, problem=error.said, **kept)
    except ValidationError:
        return await draw(request, visitor, row, status=422, problem=_incomplete(bool(remember)), **kept)
    return await _give(request, visitor, row, verdict, body, **kept)


def _memory(uses: str, days: str, like: str) -> RememberIn:
    """What the part of the form about like calls says; without a pattern exactly these arguments."""
    until = datetime.now(UTC) + timedelta(days=min(int(days), 1000)) if days.isdecimal() else None
    arguments = _parsed(like, "The arguments of like calls") if like.strip() else None
    return RememberIn.model_validate({"uses": uses, "until": until, "arguments": arguments})


def _incomplete(remember: bool) -> Said:
    if remember:
        need = "Say for how many calls (1 to 10,000) and for how many days (1 to 90). Nothing was answered yet."
        return Said(kind="invalid_request", title="The grant is not complete", text=need)
    need = "Say why: the agent reads the reason and goes on without the call."
    return Said(kind="invalid_request", title="A denial needs a reason", text=need)


@router.post("/{approval_id}/edit")
async def edit(
    request: Request, approval_id: Id, visitor: QueueAnswerer, digest: Digest, arguments: Json,
    step: Annotated[Literal["review", "approve", "back"], Form()], reason: Reason = "",
) -> Response:  # fmt: skip
    """Other arguments: first shown against the old ones, then approved. The gate decides about them anew."""
    row = await row_of(visitor, approval_id)
    call = row.request.call
    if call is None:
        raise Refused(422, "invalid_arguments", "this question is not about a call's arguments")
    try:
        edited = _parsed(arguments, "The arguments")
        body = ApproveIn(digest=digest, reason=reason.strip(), edited_arguments=edited)
    except _NotJsonError as error:
        return await draw(request, visitor, row, status=422, problem=error.said, editing=arguments, reason=reason)
    except ValidationError:
        problem = Said(kind="invalid_arguments", title="The edit cannot be used", text="It holds what JSON cannot.")
        return await draw(request, visitor, row, status=422, problem=problem, editing=arguments, reason=reason)
    tool = visitor.services.catalog.tools.get(call.tool)
    wrong = schema_problems(edited, tool.parameters, "arguments") if tool is not None else []
    if wrong or step == "back":
        problem = Said(kind="invalid_arguments", title="The edit does not fit the tool", text="") if wrong else None
        return await draw(
            request, visitor, row, status=422 if wrong else 200, problem=problem, problems=wrong, editing=arguments,
            reason=reason,
        )  # fmt: skip
    if step == "review":
        changes = differences(call.arguments, edited)
        return await draw(
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
        return await draw(
            request, visitor, fresh, status=refused.status, problem=said(refused), problems=refused.errors, **kept
        )  # fmt: skip
    return RedirectResponse(f"/console/questions/{approval_id}{query(done=closed.state.value)}", 303)


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
