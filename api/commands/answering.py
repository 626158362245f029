"""`gatehouse approvals`: what else people say to a question, many at once, grants and stand-ins."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import typer

from api.commands.output import moment, put, put_json, put_table, say
from api.commands.session import CommandError, Exit, Json, Yes, session

Id = Annotated[str, typer.Argument(help="Id of the question (run_....1).")]
Obj = dict[str, Any]
Days = Annotated[float, typer.Option("--days", min=0.01, max=90, help="Days until it ends.")]

grants = typer.Typer(no_args_is_help=True, help="Standing grants: calls that need not be asked about again.")
stand_ins = typer.Typer(no_args_is_help=True, help="Who answers for whom while they are away.")


def ask(ctx: typer.Context, approval_id: Id, text: str, json_: Json = False) -> None:
    """Ask the run's requester something; the deadline runs on."""
    _act(ctx, approval_id, "ask", {"text": text}, json_=json_)


def reply(ctx: typer.Context, approval_id: Id, text: str, json_: Json = False) -> None:
    """Reply to an approver's question about a run of yours."""
    _act(ctx, approval_id, "reply", {"text": text}, json_=json_)


def delegate(
    ctx: typer.Context,
    approval_id: Id,
    to: Annotated[str, typer.Argument(help="Principal id of the person who may answer in your stead.")],
    reason: Annotated[str, typer.Option(help="Recorded.")] = "",
    json_: Json = False,
) -> None:
    """Let somebody else answer this question; the two of you have one voice."""
    _act(ctx, approval_id, "delegate", {"to": to, "text": reason}, json_=json_)


def escalate(
    ctx: typer.Context,
    approval_id: Id,
    reason: Annotated[str, typer.Option(help="Recorded.")] = "",
    json_: Json = False,
) -> None:
    """Let the next group of the rule's chain answer at once."""
    _act(ctx, approval_id, "escalate", {"text": reason}, json_=json_)


def answer_many(
    ctx: typer.Context,
    verdict: Annotated[str, typer.Argument(help="approve or deny.")],
    approval_ids: Annotated[list[str], typer.Argument(help="Ids of the questions.")],
    reason: Annotated[str, typer.Option(help="Recorded with each answer; needed to deny.")] = "",
    yes: Yes = False,
    json_: Json = False,
) -> None:
    """Give many questions the same answer; each is answered by itself. Fails when one of them was refused."""
    from api.commands.approvals import confirm, get_question

    found = [get_question(ctx, approval_id) for approval_id in approval_ids]
    if not json_:
        rows = [(q["id"], _about(q), q["requester"]) for q in found]
        put_table(["id", "what", "requester"], rows, "nothing")
    confirm(yes, f"{verdict.capitalize()} these {len(found)}?")
    body = {
        "verdict": verdict, "reason": reason, "items": [{"id": q["id"], "digest": q["digest"]} for q in found],
    }  # fmt: skip
    items: list[Obj] = session(ctx).client().post("/approvals/answers", body)["items"]
    refused = [item for item in items if item.get("kind")]
    if json_:
        put_json(items)
    else:
        for item in items:
            put(f"{item['id']}: {item.get('kind') or item['state']}")
    if refused:
        raise CommandError(f"{len(refused)} of {len(items)} answers were refused", refused[0]["detail"])


@grants.command("list")
def list_grants(ctx: typer.Context, json_: Json = False) -> None:
    """What need not be asked about again."""
    found = session(ctx).client().items("/grants", 500)
    if json_:
        put_json(found)
        return
    rows = [
        (g["id"], g["state"], f"{g['automation']}: {g['tool']}", f"{g['used']}/{g['uses']}", g["created_by"],
         moment(g["until"]))
        for g in found
    ]  # fmt: skip
    put_table(["id", "state", "calls", "used", "by", "until"], rows, "no grants")


@grants.command("create")
def create_grant(
    ctx: typer.Context,
    automation: Annotated[str, typer.Argument(help="Name of the automation.")],
    tool: Annotated[str, typer.Argument(help="Name of the tool.")],
    arguments: Annotated[Path, typer.Option(help="JSON file: each argument's value, a pattern with *, or * for any.")],
    reason: Annotated[str, typer.Option(help="Recorded.")],
    uses: Annotated[int, typer.Option(min=1, help="How many calls at most.")] = 1,
    days: Days = 1,
    rule: Annotated[str | None, typer.Option(help="Only asks of this rule.")] = None,
    json_: Json = False,
) -> None:
    """Stop asking about like calls. Needs an administrator's key; counts for nobody's own runs."""
    from api.commands.approvals import read_object

    body: Obj = {
        "automation": automation, "tool": tool, "rule": rule, "arguments": read_object(arguments, "--arguments"),
        "uses": uses, "until": until(days), "reason": reason,
    }  # fmt: skip
    found = session(ctx).client().post("/grants", body)
    put_json(found) if json_ else say(f"{found['id']}: {uses} calls, until {moment(found['until'])}")


@grants.command("revoke")
def revoke_grant(ctx: typer.Context, grant_id: Annotated[str, typer.Argument()]) -> None:
    """End a grant."""
    from gatehouse_client.transport import segment

    session(ctx).client().delete(f"/grants/{segment(grant_id)}")
    say(f"{grant_id} is revoked")


@stand_ins.command("list")
def list_stand_ins(ctx: typer.Context, json_: Json = False) -> None:
    """Who answers for whom."""
    found = session(ctx).client().items("/delegations", 500)
    if json_:
        put_json(found)
        return
    rows = [(d["id"], d["state"], d["absent"]["id"], d["stand_in"], moment(d["until"])) for d in found]
    put_table(["id", "state", "absent", "answers for them", "until"], rows, "nobody stands in for anybody")


@stand_ins.command("create")
def create_stand_in(
    ctx: typer.Context,
    person: Annotated[str, typer.Argument(help="Principal id of who answers for you.")],
    days: Days = 14,
    reason: Annotated[str, typer.Option(help="Recorded.")] = "",
    absent: Annotated[str | None, typer.Option(help="For somebody else; administrators only.")] = None,
    role: Annotated[list[str] | None, typer.Option("--role", help="Roles of that person; may be repeated.")] = None,
    json_: Json = False,
) -> None:
    """Let somebody answer for you while you are away."""
    body: Obj = {"stand_in": person, "until": until(days), "reason": reason}
    if absent is not None:
        body["absent"] = {"id": absent, "roles": role or []}
    elif role:
        raise CommandError("--role belongs to --absent", code=Exit.USAGE)
    found = session(ctx).client().post("/delegations", body)
    put_json(found) if json_ else say(
        f"{found['id']}: {person} answers for {found['absent']['id']} until {moment(found['until'])}"
    )


@stand_ins.command("revoke")
def revoke_stand_in(ctx: typer.Context, delegation_id: Annotated[str, typer.Argument()]) -> None:
    """End it before its time."""
    from gatehouse_client.transport import segment

    session(ctx).client().delete(f"/delegations/{segment(delegation_id)}")
    say(f"{delegation_id} is revoked")


def _act(ctx: typer.Context, approval_id: str, kind: str, body: Obj, *, json_: bool) -> None:
    from api.commands.approvals import get_question
    from gatehouse_client.transport import segment

    digest = get_question(ctx, approval_id)["digest"]
    found = session(ctx).client().post(f"/approvals/{segment(approval_id)}/{kind}", {"digest": digest, **body})
    put_json(found) if json_ else say(f"{found['id']}: recorded")


def until(days: float) -> str:
    """The moment so many days from now."""
    return (datetime.now(UTC) + timedelta(days=days)).isoformat()


def _about(question: Obj) -> str:
    call: Obj | None = question["call"]
    return str(call["tool"] if call else question["question"])
