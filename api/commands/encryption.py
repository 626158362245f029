"""`gatehouse encryption`: the data keys that protect payloads in Temporal, blobs at rest and columns of the store.

Works on the files and the store alone.
"""

import asyncio

import typer

from api.commands.audit import has_store, record_change
from api.commands.output import put, put_json, say
from api.commands.session import CommandError, Json, session

app = typer.Typer(no_args_is_help=True, help="The data keys: what encrypts payloads and stored files.")


@app.command("new-key")
def new_key() -> None:
    """Print a new key, one line for a file of GATEHOUSE_ENCRYPTION_KEYS. Nothing keeps it but you."""
    from worker.store.keyring import new_line

    put(new_line().decode().rstrip())


@app.command()
def status(ctx: typer.Context, json_: Json = False) -> None:
    """Say which keys there are. Never the keys."""
    from worker.encryption import key_file, open_keyring
    from worker.store.keyring import KeyringError

    settings = session(ctx).settings()
    try:
        ids = open_keyring(settings).ids
    except KeyringError as error:
        raise CommandError(str(error), "without its keys nothing starts") from None
    if json_:
        put_json({"file": str(key_file(settings)), "encrypts": ids[-1], "decrypt": ids})
        return
    put(f"{key_file(settings)}: {ids[-1]} encrypts" + (f"; {', '.join(ids[:-1])} decrypt" if ids[:-1] else ""))


@app.command()
def rotate(ctx: typer.Context) -> None:
    """Add a key that encrypts from now on, in every process within a second; older ones go on decrypting.

    On record first, where there is a log by now."""
    from worker.encryption import key_file, open_keyring
    from worker.store import keyring
    from worker.store.policies import INSTALLATION
    from worker.store.records import AuditEvent

    settings = session(ctx).settings()

    def record(old: str, new: str) -> None:
        if has_store(settings):
            record_change(
                session(ctx),
                AuditEvent(
                    f"data_key/{new}", "data_key.rotated", INSTALLATION, None, "system:cli", {"from": old, "to": new}
                ),
            )

    try:
        open_keyring(settings)
        key_id = keyring.rotate(key_file(settings), record)
    except (keyring.KeyringError, OSError) as error:
        raise CommandError(str(error), "the keys are as they were") from None
    say(f"{key_id} encrypts from now on; back up {key_file(settings)}")


@app.command()
def reseal(ctx: typer.Context, json_: Json = False) -> None:
    """Bring the store's sealed columns under the newest key: after a rotation, or an update from before sealing.

    Everything may run meanwhile. Payloads in Temporal and blobs keep the key they were written under.
    """
    from worker.storage import open_database
    from worker.store.database import StoreUnavailable
    from worker.store.keyring import KeyringError
    from worker.store.resealing import Resealed
    from worker.store.resealing import reseal as every

    async def do() -> Resealed:
        database = open_database(session(ctx).settings())
        try:
            await database.migrate()
            return await every(database)
        finally:
            await database.close()

    try:
        done = asyncio.run(do())
    except (KeyringError, StoreUnavailable) as error:
        raise CommandError(str(error), "what was sealed again stays so; the rest is as it was") from None
    if json_:
        put_json(done._asdict())
        return
    put(f"{done.values} values of {done.rows} rows were brought under the newest key")
