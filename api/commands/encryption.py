"""`gatehouse encryption`: the data keys that protect payloads in Temporal and blobs at rest. Works on files alone."""

import typer

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
    """Add a key that encrypts from now on, in every process within a second; older ones go on decrypting."""
    from worker.encryption import key_file, open_keyring
    from worker.store import keyring

    settings = session(ctx).settings()
    try:
        open_keyring(settings)
        key_id = keyring.rotate(key_file(settings))
    except (keyring.KeyringError, OSError) as error:
        raise CommandError(str(error), "the keys are as they were") from None
    say(f"{key_id} encrypts from now on; back up {key_file(settings)}")
