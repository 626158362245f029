"""The store this installation is set to, opened with its data keys: part of every composition root."""

from pathlib import Path

from worker import temporal
from worker.encryption import open_keyring
from worker.settings import Settings
from worker.store.database import Database


class RestoreUnfinished(RuntimeError):  # noqa: N818  (says what is the case)
    """A restore is under way, or was cut off: what is there is a part, and nothing may start on it."""


def restoring(settings: Settings) -> Path:
    """The folder that is there as long as a restore has not put everything into its place."""
    return settings.data.resolve() / "restoring"


def open_database(settings: Settings) -> Database:
    """Connects to nothing yet. Raises ValueError on an address that is none, KeyringError, RestoreUnfinished."""
    if (folder := restoring(settings)).exists():
        raise RestoreUnfinished(
            f"{folder} exists: a restore is under way, or was cut off; then empty {folder.parent} and the database, "
            "and restore again"
        )
    return Database(settings.sql_url, open_keyring(settings), redact=temporal.redactor(settings).json)
