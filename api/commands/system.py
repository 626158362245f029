"""`gatehouse up`, `down`, `doctor`: the system on this machine."""

from typing import Annotated

import typer

from api.commands.output import paint, put, put_json, say, shade, visible
from api.commands.session import CommandError, Exit, Json, session


def up(
    ctx: typer.Context,
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Run in the background; returns when ready.")] = False,
    practice_model: Annotated[
        bool, typer.Option("--practice-model", help="Also run the practice model: fixed rules, no intelligence.")
    ] = False,
    background: Annotated[bool, typer.Option("--background", hidden=True)] = False,
) -> None:
    """Run Temporal, three workers, the keeper and the API; restart what dies. Ctrl-C stops everything."""
    from api.supervisor import addresses, control
    from api.supervisor.addresses import PortTakenError
    from api.supervisor.state import AlreadyRunningError, StateFiles
    from api.supervisor.system import StartError

    settings = session(ctx).settings()
    data = settings.data.resolve()
    try:
        if not detach:
            mode = "background" if background else "foreground"
            control.run_here(settings, say, practice_model=practice_model, mode=mode)
            return
        if not StateFiles(data).held:
            control.run_detached(settings, say, practice_model=practice_model)
        elif found := addresses.read(data):
            say("already running")
            for line in control.describe(found):
                say(line)
        else:
            raise CommandError(
                "another start on this data folder is still under way", "wait for it, or `gatehouse down`"
            )
    except AlreadyRunningError as error:
        raise CommandError(str(error), "`gatehouse down` stops it; GATEHOUSE_DATA names another folder") from None
    except (PortTakenError, StartError) as error:
        raise CommandError(str(error), "`gatehouse doctor` looks for the cause") from None
    say("make a key:  export GATEHOUSE_KEY=$(gatehouse keys create <your name> --role operator)")
    say("stop it:     gatehouse down")


def down(ctx: typer.Context) -> None:
    """Stop the system of this data folder, and whatever a killed one left behind. Runs go on at the next start."""
    from api.supervisor import control

    settings = session(ctx).settings()
    say("stopped" if control.shut_down(settings, say) else "nothing was running")


def doctor(ctx: typer.Context, json_: Json = False) -> None:
    """Say what is present, missing or misconfigured, and the remedy; exit 1 when something must be repaired."""
    from api.doctor import examine

    findings = examine(session(ctx).settings())
    if json_:
        put_json([f.as_json() for f in findings])
    else:
        width = max(len(f.what) for f in findings)
        for finding in findings:
            mark = paint(finding.status.ljust(4), shade(finding.status))
            put(f"{mark}  {finding.what.ljust(width)}  {visible(finding.detail)}")
            if finding.remedy:
                put(f"      {' ' * width}  -> {visible(finding.remedy)}")
    raise typer.Exit(Exit.FAILED if any(f.status == "fail" for f in findings) else Exit.OK)
