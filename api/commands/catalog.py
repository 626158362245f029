"""`gatehouse tools|automations`: what this installation knows."""

from pathlib import Path
from typing import Annotated, Any

import typer

from api.commands.output import pretty, put, put_fields, put_json, put_table, say
from api.commands.session import CommandError, Exit, Json, session

tools = typer.Typer(no_args_is_help=True, help="Tools: list, show.")
automations = typer.Typer(no_args_is_help=True, help="Automations: list, show, validate, schema.")
Obj = dict[str, Any]
Name = Annotated[str, typer.Argument(help="Its name.")]


@tools.command("list")
def list_tools(ctx: typer.Context, json_: Json = False) -> None:
    """Every tool an automation may name."""
    found = session(ctx).client().items("/tools", 10_000)
    rows = [(t["name"], t["version"], t["effect"], _first_line(t["description"])) for t in found]
    put_json(found) if json_ else put_table(["name", "version", "effect", "what it does"], rows, "no tools")


@tools.command("show")
def show_tool(ctx: typer.Context, name: Name, json_: Json = False) -> None:
    """Its manifest: arguments, effect, limits."""
    from gatehouse_client.transport import segment

    found = session(ctx).client().get(f"/tools/{segment(name)}")
    if json_:
        put_json(found)
        return
    put_fields([(k, found[k]) for k in ("name", "version", "effect", "repeat", "workspace", "image", "program_sha256")])
    put_fields([("does", found["description"]), ("egress", ", ".join(found["egress"]) or "closed")])
    put_fields([("limits", ", ".join(f"{k} {v}" for k, v in found["limits"].items()))])
    put(pretty(found["parameters"]))


@automations.command("list")
def list_automations(ctx: typer.Context, json_: Json = False) -> None:
    """Everything that can be run."""
    found = session(ctx).client().items("/automations", 10_000)
    rows = [(a["name"], a["version"], a["owner"], _first_line(a["description"])) for a in found]
    put_json(found) if json_ else put_table(["name", "version", "owner", "what it does"], rows, "no automations")


@automations.command("show")
def show_automation(ctx: typer.Context, name: Name, json_: Json = False) -> None:
    """Inputs, tools, model chain, budgets, rules."""
    from gatehouse_client.transport import segment

    found = session(ctx).client().get(f"/automations/{segment(name)}")
    if json_:
        put_json(found)
        return
    put_fields([(k, found[k]) for k in ("name", "version", "owner", "description", "digest")])
    put_fields([(k, ", ".join(found[k])) for k in ("tools", "models", "rules")])
    put_fields([("budgets", ", ".join(f"{k} {v}" for k, v in found["budgets"].items()))])
    put("inputs:\n" + pretty(found["inputs"]))
    put("output:\n" + pretty(found["output"]))


@automations.command("validate")
def validate(
    ctx: typer.Context,
    home: Annotated[Path | None, typer.Argument(help="Folder to check; GATEHOUSE_HOME when left out.")] = None,
    json_: Json = False,
) -> None:
    """Check automations, tools and rules of a folder (and the built-in ones) without starting anything."""
    from api.doctor.definitions import check_definitions

    where = home or session(ctx).settings().home
    if where is not None and not where.is_dir():
        raise CommandError(
            f"{where} is not a folder", "give the folder that holds automations/, tools/, rules/", Exit.USAGE
        )
    found = check_definitions(where)
    if json_:
        put_json({"ok": not found.problems, "problems": found.problems, "summary": found.summary})
    elif found.problems:
        for problem in found.problems:
            put(problem)
    else:
        say(found.summary)
    raise typer.Exit(Exit.FAILED if found.problems else Exit.OK)


@automations.command("schema")
def schema() -> None:
    """JSON Schema of an automation file, for editors."""
    from workflows.spec import AutomationFile

    put_json(AutomationFile.model_json_schema())


def _first_line(text: str) -> str:
    return text.strip().splitlines()[0] if text.strip() else ""
