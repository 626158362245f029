"""`gatehouse approvals`: what waits for a human, exactly what would run, and the answer."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from api.commands import answering
from api.commands.output import moment, paint, pretty, put, put_fields, put_json, put_table, say, until
from api.commands.session import CommandError, Exit, Json, Yes, session

app = typer.Typer(no_args_is_help=True, help="Approvals: list, show, approve, deny, and all that may come between.")
for _command in (answering.ask, answering.reply, answering.delegate, answering.escalate):
    app.command()(_command)
app.command("answer-many")(answering.answer_many)
app.add_typer(answering.grants, name="grants")
app.add_typer(answering.stand_ins, name="stand-ins")
Id = Annotated[str, typer.Argument(help="Id of the question (run_....1).")]
Obj = dict[str, Any]


@app.command("list")
def list_approvals(
    ctx: typer.Context,
    state: Annotated[
        str, typer.Option(help="pending, approved, denied, expired, cancelled, frozen or all.")
    ] = "pending",
    run: Annotated[str | None, typer.Option(help="Only this run's.")] = None,
    automation: Annotated[str | None, typer.Option(help="Only this automation's.")] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=10_000)] = 50,
    json_: Json = False,
) -> None:
    """What waits for an answer, newest first."""
    wanted = None if state == "all" else state
    found = session(ctx).client().items("/approvals", limit, state=wanted, run=run, automation=automation)
    if json_:
        put_json(found)
        return
    rows = [(a["id"], a["state"], _what(a), a["requester"], a["approvers"], until(a["deadline"])) for a in found]
    put_table(["id", "state", "what", "requester", "needs role", "deadline"], rows, "nothing waits for an answer")


@app.command("show")
def show_approval(ctx: typer.Context, approval_id: Id, json_: Json = False) -> None:
    """Exactly what would run, why it is asked, who asks, until when."""
    found = get_question(ctx, approval_id)
    put_json(found) if json_ else put_question(found)


@app.command("approve")
def approve(
    ctx: typer.Context,
    approval_id: Id,
    edit: Annotated[Path | None, typer.Option("--edit", help="JSON file: the arguments to run instead.")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="name=JSON: change one argument; may be repeated.")
    ] = None,
    output: Annotated[Path | None, typer.Option(help="JSON file: the job's result, for a hand-over.")] = None,
    reason: Annotated[str, typer.Option(help="Recorded with the answer.")] = "",
    for_: Annotated[str | None, typer.Option("--for", help="The absent person you stand in for.")] = None,
    break_glass: Annotated[bool, typer.Option("--break-glass", help="Emergency: two people, recorded loudly.")] = False,
    remember: Annotated[int, typer.Option(min=0, help="Do not ask about this very call again, so many times.")] = 0,
    remember_days: answering.Days = 1,
    yes: Yes = False,
    json_: Json = False,
) -> None:
    """Let it run: as asked, or with edited arguments (which the gate checks again)."""
    found = get_question(ctx, approval_id)
    edited = edited_arguments(found, edit, set_ or [])
    result = read_object(output, "--output") if output else None
    if found["question"] == "handover" and result is None:
        raise CommandError("a hand-over is approved with the job's result", "add --output result.json", Exit.USAGE)
    if not json_:
        put_question(found)
    if edited is not None:
        say("approving with these arguments instead:\n" + pretty(edited))
    confirm(yes, "Approve?")
    # The digest of what was shown: if the question changed meanwhile, the answer does not count.
    body: Obj = {"digest": found["digest"], "reason": reason}
    body |= {"edited_arguments": edited} if edited is not None else {}
    body |= {"output": result} if result is not None else {}
    body |= {"on_behalf_of": for_} if for_ else {}
    body |= {"break_glass": True} if break_glass else {}
    body |= {"remember": {"uses": remember, "until": answering.until(remember_days)}} if remember else {}
    _answer(ctx, approval_id, "approve", body, json_=json_)


@app.command("deny")
def deny(
    ctx: typer.Context,
    approval_id: Id,
    reason: Annotated[str, typer.Option(help="Told to the agent and recorded.")],
    for_: Annotated[str | None, typer.Option("--for", help="The absent person you stand in for.")] = None,
    yes: Yes = False,
    json_: Json = False,
) -> None:
    """Refuse it, with the reason."""
    found = get_question(ctx, approval_id)
    if not json_:
        put_question(found)
    confirm(yes, "Deny?")
    body: Obj = {"digest": found["digest"], "reason": reason} | ({"on_behalf_of": for_} if for_ else {})
    _answer(ctx, approval_id, "deny", body, json_=json_)


def edited_arguments(found: Obj, edit: Path | None, changes: list[str]) -> Obj | None:
    """The arguments after --edit and --set; None when neither is given. Raises CommandError."""
    if edit is None and not changes:
        return None
    if not found.get("call"):
        raise CommandError("this question has no arguments to edit", code=Exit.USAGE)
    edited = read_object(edit, "--edit") if edit else dict(found["call"]["arguments"])
    for change in changes:
        name, equals, text = change.partition("=")
        try:
            edited[name] = json.loads(text)
        except ValueError:
            equals = ""
        if not equals or not name:
            raise CommandError(
                f"--set {change}: not of the form name=JSON",
                "text needs quotes: --set 'path=\"in/app.log\"'",
                Exit.USAGE,
            )
    return edited


def put_question(found: Obj) -> None:
    """The question as a person must see it before answering."""
    call: Obj = found.get("call") or {}
    put_fields(
        [
            ("question", found["id"]),
            ("asks", _what(found)),
            ("state", found["state"]),
            ("run", found["run_id"]),
            ("automation", found["automation"]),
            ("requester", found["requester"]),
            ("effect", found.get("effect")),
            ("rule", found.get("rule")),
            ("reason", found.get("reason")),
            ("needs", f"{found['needed']} of {found['approvers']}" if found["needed"] > 1 else found["approvers"]),
            ("answered", ", ".join(f"{a['principal']}: {a['verdict']}" for a in found["answers"])),
            ("read outside content", {True: "yes", False: "no", None: ""}[found["taint"]]),
            ("asked", moment(found["requested_at"])),
            ("deadline", f"{until(found['deadline'])}; nobody answering means no"),
            ("tool", f"{call['tool']} {found.get('tool_version') or ''}".strip() if call else ""),
        ]
    )
    if call:
        put(paint("exactly these arguments:", "bold"))
        put(pretty(call["arguments"]))
    for remark in found["conversation"]:
        put(f"{remark['by']} ({remark['kind']}): {remark['text']}")
    for handed in found["delegated_to"]:
        put(f"{handed['by']} lets {handed['to']} answer")
    answer: Obj | None = found.get("answer")
    if answer:
        who = answer.get("principal")
        put_fields([("answer", answer["verdict"]), ("by", who), ("because", answer.get("reason"))])
        if answer.get("edited_arguments") is not None:
            put(paint("ran with these instead:", "bold"))
            put(pretty(answer["edited_arguments"]))


def _what(found: Obj) -> str:
    if found["question"] == "handover":
        return "finish the job by hand"
    call: Obj = found.get("call") or {}
    tool = call.get("tool", "")
    return f"{tool}: run it once more?" if found["question"] == "unknown_outcome" else f"{tool}: may it run?"


def get_question(ctx: typer.Context, approval_id: str) -> Obj:
    """The question as it stands."""
    from gatehouse_client.transport import segment

    return session(ctx).client().get(f"/approvals/{segment(approval_id)}")


def _answer(ctx: typer.Context, approval_id: str, verb: str, body: Obj, *, json_: bool) -> None:
    from gatehouse_client.transport import segment

    found = session(ctx).client().post(f"/approvals/{segment(approval_id)}/{verb}", body)
    put_json(found) if json_ else say(f"{found['id']} is {found['state']}")


def read_object(path: Path, option: str) -> Obj:
    """The JSON object in a file. Raises CommandError."""
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise CommandError(f"{option} {path}: {error}", "give a file that holds one JSON object", Exit.USAGE) from None
    if not isinstance(found, dict):
        raise CommandError(f"{option} {path}: not a JSON object", code=Exit.USAGE)
    return found  # pyright: ignore[reportUnknownVariableType]


def confirm(yes: bool, question: str) -> None:
    """Go on only when somebody says yes. Raises CommandError."""
    import sys

    if yes:
        return
    if not sys.stdin.isatty():
        raise CommandError("nobody is here to confirm", "add --yes after reading what would run", Exit.USAGE)
    if not typer.confirm(question, err=True):
        raise CommandError("not answered; the question still waits", code=Exit.WAITING)
