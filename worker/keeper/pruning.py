"""Retention as a duty: removes what is due, where a policy says so and the database lets this process."""

import asyncio

import structlog

from worker.settings import Settings
from worker.store import anchor
from worker.store.anchor import Vouched
from worker.store.audit import AuditLog
from worker.store.checkpoints import CheckpointKey, load_or_create, public_keys
from worker.store.retention import Pass, Policy, Retention

log = structlog.stdlib.get_logger("gatehouse.keeper")


def policy(settings: Settings) -> Policy:
    """What the settings say."""
    return Policy(settings.retention_days, settings.retention_tenants)


def proof(settings: Settings) -> tuple[Vouched, CheckpointKey]:
    """The anchor as it stands, and the key that signs. Blocks.

    Raises AnchorError, NoteError, KeyFileUnsafe, OSError.
    """
    return anchor.read(settings.anchor, public_keys(settings.keys)), load_or_create(settings.keys)


class Pruning:
    """Passes over one store's log."""

    def __init__(self, audit: AuditLog, settings: Settings) -> None:
        self._settings = settings
        self._retention = Retention(audit, policy(settings))

    async def look(self) -> None:
        """One pass. Raises what `proof` and `Retention.run` raise."""
        if self._settings.retention_days is None and not self._settings.retention_tenants:
            return
        done: list[Pass] = await self._retention.run(*await asyncio.to_thread(proof, self._settings))
        for one in done:
            if one.records:
                log.info("retention.pruned", tenant=one.tenant, records=one.records, bytes=one.bytes, held=one.held)
