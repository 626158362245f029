"""The data keys this installation is set to: part of every composition root."""

from pathlib import Path

from worker.settings import Settings
from worker.store.keyring import Keyring, KeyringError, open_generated, open_given

PRODUCTION = "production"


def open_keyring(settings: Settings) -> Keyring:
    """The keys of `GATEHOUSE_ENCRYPTION_KEYS`, else those the installation made for itself.

    Raises KeyringError; in production also where keys were not given, or lie beside what they protect: whoever copies
    the data folder would have both.
    """
    given = settings.encryption_keys
    production = settings.environment == PRODUCTION
    if given is None:
        if production:
            raise KeyringError(
                "production needs data keys of its own: set GATEHOUSE_ENCRYPTION_KEYS to a file that "
                "`gatehouse encryption new-key` began, outside the data folder"
            )
        return open_generated(key_file(settings))
    if production and given.resolve().is_relative_to(settings.data.resolve()):
        raise KeyringError(f"{given} lies in the data folder, beside what it protects: move it elsewhere")
    return open_given(given)


def strict(settings: Settings) -> bool:
    """Whether each payload in a history has to be encrypted: who writes to Temporal's database can then add none."""
    if settings.plain_payloads is None:
        return settings.environment == PRODUCTION
    return not settings.plain_payloads


def key_file(settings: Settings) -> Path:
    """Where the data keys lie, whether they are there or not."""
    return settings.encryption_keys or settings.keys / "data.keys"
