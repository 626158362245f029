"""What encrypts, what lies under which key, and whether the place of artifacts answers."""

import asyncio

from api.doctor.finding import Finding, fail, ok, warn
from worker.artifacts import open_backend
from worker.encryption import key_file, open_keyring
from worker.settings import Settings
from worker.storage import open_database
from worker.store.blobs_backend import BlobMissing
from worker.store.database import StoreUnavailable
from worker.store.keyring import KeyringError
from worker.store.resealing import counts


def data_keys(settings: Settings) -> list[Finding]:
    """Are there data keys, and is everything in the store sealed under the newest? Never the keys."""
    file = key_file(settings)
    try:
        if settings.encryption_keys is None and not file.exists() and settings.environment != "production":
            return [ok("data keys", "none yet: made at the first start")]
        ids = open_keyring(settings).ids
    except KeyringError as error:
        return [fail("data keys", str(error), "nothing starts without its data keys")]
    found = [ok("data keys", f"{file}: {ids[-1]} encrypts, {len(ids)} in all")]
    if settings.database_url is None and not (settings.data / "gatehouse.db").exists():
        return found
    try:
        sealed = asyncio.run(_sealed(settings))
    except StoreUnavailable:
        return found  # the line about the store says why
    if lost := sorted(set(sealed) - {*ids, "plain"}):
        number = sum(sealed[key] for key in lost)
        detail = f"{number} values are sealed under keys that are not there: {', '.join(lost)}"
        return [*found, fail("sealed columns", detail, f"put the lost lines back into {file}")]
    older = sum(number for key, number in sealed.items() if key != ids[-1])
    if older:
        plain = sealed.get("plain", 0)
        detail = f"{older} values are not under the newest key, {plain} of them not sealed at all"
        return [*found, warn("sealed columns", detail, "gatehouse encryption reseal")]
    return [*found, ok("sealed columns", f"{sum(sealed.values())} values, all under the newest key")]


async def _sealed(settings: Settings) -> dict[str, int]:
    database = open_database(settings)
    try:
        return await counts(database)
    finally:
        await database.close()


def artifacts(settings: Settings) -> list[Finding]:
    """Does the place of artifacts, uploads and large payloads answer?"""
    where = settings.artifacts or str(settings.blobs.resolve())
    if settings.artifacts is None and not settings.blobs.exists():
        return [ok("artifact store", "none yet: made at the first start")]
    try:
        asyncio.run(open_backend(settings).size("0" * 64))
    except BlobMissing:
        return [ok("artifact store", f"{where} answers")]
    except (StoreUnavailable, ValueError, OSError) as error:
        return [fail("artifact store", str(error), "correct GATEHOUSE_ARTIFACTS and its keys, or make it reachable")]
    return [ok("artifact store", f"{where} answers")]
