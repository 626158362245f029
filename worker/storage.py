"""The store this installation is set to, opened with its data keys: part of every composition root."""

from worker import temporal
from worker.encryption import open_keyring
from worker.settings import Settings
from worker.store.database import Database


def open_database(settings: Settings) -> Database:
    """Connects to nothing yet. Raises ValueError on an address that is none, KeyringError."""
    return Database(settings.sql_url, open_keyring(settings), redact=temporal.redactor(settings).json)
