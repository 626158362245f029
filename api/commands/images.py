"""`gatehouse images build|list|verify`: the images that tools run in, on this machine. The system need not run."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from api.commands.output import moment, put_json, put_table, say
from api.commands.session import CommandError, Exit, Json, session

if TYPE_CHECKING:
    from tools.catalog import LoadedTool
    from worker.sandbox.images import ImageRecord
    from worker.settings import Settings

app = typer.Typer(no_args_is_help=True, help="The images that tools run in.", rich_markup_mode=None)


@app.command("build")
def build(
    ctx: typer.Context,
    tools: Annotated[list[str] | None, typer.Argument(help="Only these tools' images; all when left out.")] = None,
    pull: Annotated[bool, typer.Option(help="Ask a registry for the base image before building it.")] = True,
    json_: Json = False,
) -> None:
    """Obtain the base image, build what tools bring (packages, Dockerfile), and record what was built."""
    from worker.sandbox.engine import SandboxUnavailable
    from worker.sandbox.images import ImageStore

    settings = session(ctx).settings()
    found = _tools(settings)
    if unknown := sorted(set(tools or ()) - set(found)):
        raise CommandError(f"no tool is called {unknown[0]}", "`gatehouse tools list` names them", Exit.USAGE)
    wanted = [found[name].image for name in (tools or found)]
    try:
        store = ImageStore(settings.data.resolve(), say, docker_host=settings.docker_host)
        records = [store.ensure("base", pull=pull), *(store.tool(image) for image in wanted if image is not None)]
    except SandboxUnavailable as error:
        raise CommandError(error.problem, error.remedy) from None
    _show(records, json_=json_)


@app.command("list")
def list_(ctx: typer.Context, json_: Json = False) -> None:
    """What was recorded: name, id, how it came here, when, how many packages (--json names them)."""
    _show(list(_recorded(session(ctx).settings().data.resolve()).values()), json_=json_)


@app.command("verify")
def verify(ctx: typer.Context, json_: Json = False) -> None:
    """Compare every record with the engine, and every tool with the records; exit 1 when one does not hold."""
    from worker.sandbox import images
    from worker.sandbox.engine import SandboxUnavailable, connect

    settings = session(ctx).settings()
    records = _recorded(settings.data.resolve())
    try:
        api = connect(settings.docker_host)
        states = {name: "ok" if images.verify(api, record) else "changed or gone" for name, record in records.items()}
    except SandboxUnavailable as error:
        raise CommandError(error.problem, error.remedy) from None
    needed = {tool.spec.image for tool in _tools(settings).values()}
    states |= dict.fromkeys(sorted(needed - set(records)), "never built")
    if json_:
        put_json({"ok": set(states.values()) <= {"ok"}, "images": states})
    else:
        put_table(("image", "state"), sorted(states.items()), "no image is recorded")
    if set(states.values()) - {"ok"}:
        say("`gatehouse images build` builds what is missing")
        raise typer.Exit(Exit.FAILED)


def _tools(settings: "Settings") -> "dict[str, LoadedTool]":
    from tools.catalog import BUILT_IN, load_tools
    from tools.errors import ToolError

    try:
        return load_tools([BUILT_IN, *([settings.home / "tools"] if settings.home else [])])
    except ToolError as error:
        raise CommandError(str(error), "`gatehouse automations validate` shows all") from None


def _recorded(data: Path) -> "dict[str, ImageRecord]":
    from worker.sandbox.engine import SandboxUnavailable
    from worker.sandbox.images import recorded

    try:
        return recorded(data)
    except SandboxUnavailable as error:
        raise CommandError(error.problem, error.remedy) from None


def _show(records: "list[ImageRecord]", *, json_: bool) -> None:
    if json_:
        put_json([record.model_dump(mode="json") for record in records])
        return
    rows = [
        (r.name, r.id[7:19], r.source, moment(r.recorded_at.isoformat() if r.recorded_at else None), len(r.packages))
        for r in records
    ]
    put_table(("image", "id", "source", "recorded", "packages"), rows, "no image is recorded; `gatehouse images build`")
