"""`gatehouse sandbox run`: one program in exactly the box that a tool gets, without anything else running."""

import base64
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from api.commands.output import put, say, visible
from api.commands.session import CommandError, Exit, session

if TYPE_CHECKING:
    from tools.contract import Limits
    from worker.sandbox.direct import Direct, Request
    from worker.sandbox.profile import Profile

app = typer.Typer(help="Use the sandbox directly.", no_args_is_help=True, rich_markup_mode=None)
_MEMORY = re.compile(r"^(\d+)(m|mb|g|gb)?$", re.IGNORECASE)
_MOST_STDIN = 256 << 20


@app.callback()
def _group() -> None:  # pyright: ignore[reportUnusedFunction]  (typer keeps a group with one command a group)
    pass


@app.command("run", context_settings={"ignore_unknown_options": True})
def run(
    ctx: typer.Context,
    argv: Annotated[list[str], typer.Argument(help="The program and its arguments, after `--`.")],
    profile: Annotated[
        str | None, typer.Option(help="strict (no way out), network (what --egress names), custom (see --loosen).")
    ] = None,
    loosen: Annotated[
        list[str] | None, typer.Option(help="What the profile custom gives up: executable-scratch, open-files.")
    ] = None,
    image: Annotated[str, typer.Option(help="Name of a sandbox image that is set up.")] = "base",
    timeout: Annotated[float, typer.Option(help="Seconds until it is killed.")] = 30.0,
    memory: Annotated[str, typer.Option(help="Memory limit in MB; 256m and 1g are understood too.")] = "256",
    workspace: Annotated[
        Path | None, typer.Option(help="Folder whose files are copied to /workspace, the working directory.")
    ] = None,
    collect: Annotated[
        Path | None, typer.Option(help="Folder for the files that are in /workspace afterwards.")
    ] = None,
    stdin: Annotated[Path | None, typer.Option(help="File that becomes its standard input; `-` is ours.")] = None,
    env: Annotated[list[str] | None, typer.Option(help="NAME=VALUE, added to its environment.")] = None,
    egress: Annotated[list[str] | None, typer.Option(help="Host it may reach through the proxy.")] = None,
    json_: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of the outputs.")] = False,
) -> None:
    """Run a program in a box of its own. Exit status 0 when the box worked, whatever the program did."""
    import asyncio

    from worker.sandbox.direct import DirectUse, Request

    settings = session(ctx).settings()
    request = Request(
        argv=tuple(argv), limits=_limits(timeout, memory), image=image,
        profile=_profile(profile, loosen or [], egress or []),
        stdin=_stdin(stdin), variables=_variables(env or []), workspace=_folder(workspace), collect=collect,
        egress=tuple(egress or ()),
    )  # fmt: skip
    use = DirectUse(settings.data, docker_host=settings.docker_host, say=say, runtime=settings.sandbox_runtime)
    done = asyncio.run(use.run(request))
    if json_:
        put(done.model_dump_json(indent=2))
    else:
        _show(done, request)
    if done.outcome in ("refused", "fault"):
        raise typer.Exit(Exit.DENIED if done.outcome == "refused" else Exit.FAILED)


def _show(done: "Direct", request: "Request") -> None:
    sys.stdout.write(visible(base64.b64decode(done.stdout_b64).decode(errors="replace"), lines=True))
    sys.stdout.flush()
    sys.stderr.write(visible(base64.b64decode(done.stderr_b64).decode(errors="replace"), lines=True))
    for refused in done.refused:
        say(f"refused ({refused.way}): {visible(refused.name)}: {visible(refused.reason)}")
    said = (
        done.problem or f"exit status {done.exit_code}, {done.duration_seconds:.3f} s of {request.limits.timeout_s:g}"
    )
    say(f"{done.outcome}: {visible(said)}")
    if done.remedy:
        say(f"  what to do: {visible(done.remedy)}")


def _limits(timeout: float, memory: str) -> "Limits":
    from pydantic import ValidationError

    from tools.contract import Limits

    found = _MEMORY.match(memory)
    if found is None:
        raise CommandError(f"--memory {memory} is not a number of MB", "for instance 256, 256m or 1g", Exit.USAGE)
    megabytes = int(found[1]) * (1024 if (found[2] or "m").lower().startswith("g") else 1)
    try:
        return Limits(timeout_s=timeout, memory_mb=megabytes)
    except ValidationError as error:
        first = error.errors()[0]
        option = {"timeout_s": "--timeout", "memory_mb": "--memory"}[str(first["loc"][0])]
        raise CommandError(f"{option}: {first['msg']}", "see `gatehouse sandbox run --help`", Exit.USAGE) from None


def _profile(name: str | None, loosen: list[str], egress: list[str]) -> "Profile":
    from worker.sandbox.profile import Loosening, Profile

    names: dict[str, Literal["strict", "network", "custom"]]
    names = {"strict": "strict", "network": "network", "custom": "custom"}
    wanted = name or ("network" if egress else "strict")
    if wanted not in names:
        raise CommandError(f"there is no profile {name!r}", f"one of {', '.join(names)}", Exit.USAGE)
    try:
        return Profile(names[wanted], frozenset(Loosening(each) for each in loosen))
    except ValueError as error:
        raise CommandError(str(error), "see `gatehouse sandbox run --help`", Exit.USAGE) from None


def _stdin(file: Path | None) -> bytes:
    if file is None:
        return b""
    try:
        with sys.stdin.buffer if str(file) == "-" else file.open("rb") as source:
            content = source.read(_MOST_STDIN + 1)
    except OSError as error:
        raise CommandError(f"--stdin: {error}", "name a file that can be read", Exit.USAGE) from None
    if len(content) > _MOST_STDIN:
        raise CommandError(f"--stdin: larger than {_MOST_STDIN} bytes", "put it into --workspace", Exit.USAGE)
    return content


def _variables(pairs: list[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            raise CommandError(f"--env {pair!r} is not NAME=VALUE", "for instance --env LEVEL=3", Exit.USAGE)
        found[name] = value
    return found


def _folder(folder: Path | None) -> Path | None:
    if folder is not None and not folder.is_dir():
        raise CommandError(f"--workspace {folder} is not a folder", "name one that can be read", Exit.USAGE)
    return folder
