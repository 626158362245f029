"""The secrets an installation has beside its data keys: what keys of the API are hashed with, what signs answers,
checkpoints and buttons in messages.

They are made when first needed, but not in production: there a folder that was lost or not mounted would get new ones
without a word, and nobody's key, answer or checkpoint would count any more.
"""

from collections.abc import Callable
from pathlib import Path

from worker.encryption import PRODUCTION
from worker.notify import tokens
from worker.settings import Settings
from worker.store import checkpoints, keys, signing
from worker.store.keyring import KeyringError

MADE: dict[str, Callable[[Path], object]] = {
    keys.PEPPER: keys.load_or_create_pepper,
    signing.PRIVATE: signing.load_or_create,
    checkpoints.PRIVATE: checkpoints.load_or_create,
    tokens.FILE: tokens.Tokens,
}
"""File under `settings.keys` -> what makes it."""
_DISTINCT = 8
"""A random secret has more different bytes than this."""


def missing(settings: Settings) -> list[str]:
    """Those that are not there. Looks, and makes nothing."""
    return [name for name in MADE if not (settings.keys / name).exists()]


def make(settings: Settings) -> list[str]:
    """Make those that are missing; their names. Raises KeyFileUnsafe, OSError, NoteError, ValueError."""
    made = missing(settings)
    for name in made:
        MADE[name](settings.keys)
    return made


def require(settings: Settings) -> None:
    """Raises KeyringError in production, unless all of them are there and the pepper is a random one."""
    if settings.environment != PRODUCTION:
        return
    if gone := missing(settings):
        raise KeyringError(
            f"production makes no keys by itself, and {settings.keys} holds no {', '.join(gone)}: bring that "
            "folder back, or run `gatehouse keys init` once for a new installation"
        )
    if len(set(keys.load_or_create_pepper(settings.keys))) < _DISTINCT:
        raise KeyringError(
            f"{settings.keys / keys.PEPPER} is not a random one: remove it, and `gatehouse keys init` makes another; "
            "API keys made before do not work with that"
        )
