"""The `gatehouse` command: a client of the API, and the switch of the system on this machine."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from api.commands import (
    approvals,
    audit_search,
    backup,
    catalog,
    deliveries,
    encryption,
    images,
    keys,
    policy_changes,
    retention,
    runs,
    sandbox,
    switches,
    system,
)
from api.commands.output import paint, say
from api.commands.session import CommandError, Session

HELP = """Run AI automations whose every tool call passes a gate, runs in a box and leaves a proof.

Data goes to stdout, progress to stderr; every read takes --json.

Exit status: 0 ok, 1 failed, 2 usage, 3 denied, 4 waiting for approval.
"""

app = typer.Typer(help=HELP, no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None)
app.command("up")(system.up)
app.command("down")(system.down)
app.command("doctor")(system.doctor)
app.command("run")(runs.run)
app.add_typer(runs.app, name="runs")
app.add_typer(approvals.app, name="approvals")
app.add_typer(switches.app, name="switches")
app.add_typer(deliveries.app, name="deliveries")
app.add_typer(audit_search.app, name="audit")
app.add_typer(retention.app, name="retention")
app.add_typer(policy_changes.app, name="policy")
app.add_typer(catalog.tools, name="tools")
app.add_typer(catalog.automations, name="automations")
app.add_typer(keys.app, name="keys")
app.add_typer(encryption.app, name="encryption")
app.add_typer(backup.app, name="backup")
app.add_typer(sandbox.app, name="sandbox")
app.add_typer(images.app, name="images")


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version  # noqa: PLC0415  (rarely asked for)

        typer.echo(f"gatehouse {version('gatehouse')}")
        raise typer.Exit


@app.callback()
def root(  # noqa: D103  (a docstring would be shown instead of HELP)
    ctx: typer.Context,
    url: Annotated[
        str | None, typer.Option(envvar="GATEHOUSE_URL", help="Address of the API; the local one when left out.")
    ] = None,
    key_file: Annotated[Path | None, typer.Option(help="File that holds the API key.")] = None,
    key: Annotated[str | None, typer.Option(envvar="GATEHOUSE_KEY", hidden=True)] = None,
    _: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")] = False,
) -> None:
    # The key is never an argument, where `ps` could read it.
    ctx.obj = Session(url=url, key=key, key_file=key_file)


def main() -> None:
    """Run the command line; every failure ends with what to do next."""
    try:
        app()
    except CommandError as error:
        say(f"{paint('error', 'red', sys.stderr)}: {error.problem}")
        if error.remedy:
            say(f"  what to do: {error.remedy}")
        _leave(int(error.code))
    except SystemExit as ended:
        if not isinstance(ended.code, int | None):
            raise
        _leave(ended.code or 0)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(1)


def _leave(status: int) -> None:
    if "temporalio.bridge" in sys.modules:
        from worker.process import leave  # noqa: PLC0415  (only a command that spoke to Temporal must end so)

        leave(status)
    sys.exit(status)


if __name__ == "__main__":
    main()
