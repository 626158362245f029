"""`gatehouse backup`: everything this installation holds, in one folder, and back. Needs no running system."""

import asyncio
import os
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from api.commands.output import put, put_json
from api.commands.session import CommandError, Exit, Json, session

if TYPE_CHECKING:
    from worker.backup import Manifest

app = typer.Typer(no_args_is_help=True, help="Back everything up while it runs, and put it back.")

PASSPHRASE = "GATEHOUSE_BACKUP_PASSPHRASE"  # noqa: S105  (the variable's name)
PassphraseFile = Annotated[
    Path | None, typer.Option(help=f"File with the passphrase of the keys; or set {PASSPHRASE}.")
]


@app.command()
def create(
    ctx: typer.Context,
    out: Annotated[Path, typer.Option(help="New folder for the backup.")],
    passphrase_file: PassphraseFile = None,
    without_keys: Annotated[bool, typer.Option("--without-keys", help="You keep the keys elsewhere.")] = False,
    json_: Json = False,
) -> None:
    """Copy store, Temporal's file, blobs, anchor and keys, consistently, while everything runs."""
    from worker import backup

    passphrase = None if without_keys else _passphrase(passphrase_file)
    if passphrase is None and not without_keys:
        raise CommandError(
            "the keys need a passphrase", f"set {PASSPHRASE} or --passphrase-file; or --without-keys", Exit.USAGE
        )
    _say(_done(lambda: backup.create(session(ctx).settings(), out, passphrase)), json_, f"backup in {out}")


@app.command()
def verify(folder: Annotated[Path, typer.Argument(help="The backup.")], json_: Json = False) -> None:
    """Say whether a backup is whole."""
    from worker import backup

    _say(_done(lambda: backup.check(folder)), json_, f"{folder} is whole")


@app.command()
def restore(
    ctx: typer.Context,
    folder: Annotated[Path, typer.Argument(help="The backup.")],
    passphrase_file: PassphraseFile = None,
    json_: Json = False,
) -> None:
    """Put a backup into an empty data folder, and verify its log. Nothing is ever overwritten."""
    from worker import backup

    settings = session(ctx).settings()
    _say(
        _done(lambda: backup.restore(settings, folder, _passphrase(passphrase_file))), json_,
        f"restored to {settings.data.resolve()}",
    )  # fmt: skip


def _passphrase(file: Path | None) -> str | None:
    if file is None:
        return os.environ.get(PASSPHRASE) or None
    try:
        return file.read_text().strip()
    except OSError as error:
        raise CommandError(f"{file}: {error.strerror}", "name a file that holds the passphrase") from None


def _done(work: "Callable[[], Coroutine[Any, Any, Manifest]]") -> "Manifest":
    from worker.backup import BackupError
    from worker.store.database import StoreUnavailable

    try:
        return asyncio.run(work())
    except (BackupError, StoreUnavailable) as error:
        raise CommandError(str(error), "nothing was changed") from None


def _say(manifest: "Manifest", json_: bool, what: str) -> None:
    if json_:
        put_json({**manifest.model_dump(mode="json", exclude={"files"}), "files": len(manifest.files)})
        return
    keys = "with its keys" if manifest.with_keys else "without keys"
    put(f"{what}: {len(manifest.files)} files, {manifest.audit_count} records, {keys}")
