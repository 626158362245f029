"""`gatehouse runs sweep`: compare the store with Temporal now, and say what was found."""

import dataclasses
from typing import TYPE_CHECKING, Annotated, Any

import typer

from api.commands.output import put_json, put_table
from api.commands.session import CommandError, Exit, Json, session

if TYPE_CHECKING:
    from worker.keeper.sweeping import Finding
    from worker.settings import Settings

_DONE = {"started": "started", "closed": "closed", "question": "written again"}
_TO_DO = {"started": "to be started", "closed": "to be closed", "question": "to be written again"}


def sweep(
    ctx: typer.Context,
    check: Annotated[bool, typer.Option("--check", help="Change nothing.")] = False,
    json_: Json = False,
) -> None:
    """Compare every run that has not ended with Temporal, and repair: start what never started, close what is gone,
    list questions again. Needs the installation's store and keys, not the API. Exit 1 when something is left to do."""
    import asyncio

    from worker.store.database import StoreUnavailable
    from worker.temporal import TemporalUnavailable

    settings = _where(session(ctx).settings())
    try:
        found = asyncio.run(_swept(settings, repair=not check))
    except StoreUnavailable as error:
        raise CommandError(f"the store does not answer: {error}", "`gatehouse doctor` says why") from None
    except TemporalUnavailable as error:
        remedy = "start it with `gatehouse up`, or correct GATEHOUSE_TEMPORAL_ADDRESS"
        raise CommandError(str(error), remedy) from None
    if json_:
        put_json([dataclasses.asdict(each) for each in found])
    else:
        rows = [(f.run_id, f.tenant, _did(f), f.detail) for f in found]
        put_table(["run", "tenant", "done", "why"], rows, "store and Temporal agree about every run")
    if left := [each for each in found if each.left]:
        remedy = (
            "run it again without --check"
            if check
            else "the keeper goes on trying; `gatehouse doctor` says what is away"
        )
        raise CommandError(f"{len(left)} of {len(found)} are not repaired", remedy, Exit.FAILED)


async def _swept(settings: "Settings", *, repair: bool) -> "list[Finding]":
    from worker import telemetry, temporal
    from worker.keeper.sweeping import sweeping
    from worker.storage import open_database

    async def connect() -> Any:
        return await temporal.connect(settings)

    telemetry.configure("CRITICAL", process="cli", redacts=temporal.redactor(settings))  # what it finds, it prints
    database = open_database(settings)
    try:
        await database.check()
        return await sweeping(settings, database, connect).sweep(repair=repair)
    finally:
        await database.close()


def _where(settings: "Settings") -> "Settings":
    """With Temporal where the last `gatehouse up` on this data folder put it, unless it is set."""
    from api.supervisor.addresses import read

    address = read(settings.data).get("temporal", "")
    if not address or "temporal_address" in settings.model_fields_set:
        return settings
    return settings.model_copy(update={"temporal_address": address})


def _did(found: "Finding") -> str:
    words = _TO_DO if found.left else _DONE
    return words.get(found.what, found.what.replace("_", " "))
