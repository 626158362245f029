"""Retention as a duty: removes what is due, where a policy says so and the database lets this process."""

import asyncio
from dataclasses import asdict

import structlog
from sqlalchemy.exc import DBAPIError, ProgrammingError

from worker.settings import Settings
from worker.store import anchor
from worker.store.anchor import AnchorError, Vouched
from worker.store.audit import AuditLog
from worker.store.checking import BadRecord
from worker.store.checkpoints import CheckpointKey, load_or_create, public_keys
from worker.store.keyfiles import KeyFileUnsafe
from worker.store.note import NoteError
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


class Retaining:
    """Passes over one store's log."""

    def __init__(self, audit: AuditLog, settings: Settings) -> None:
        self._settings = settings
        self._retention = Retention(audit, policy(settings))

    async def look(self) -> None:
        """One pass. What keeps it from being done is told, once a period. Raises StoreUnavailable."""
        if self._settings.retention_days is None and not self._settings.retention_tenants:
            return
        try:
            done: list[Pass] = await self._retention.run(*await asyncio.to_thread(proof, self._settings))
        except BadRecord as bad:
            log.error("audit.tampered", record=bad.seq, problem=bad.problem)  # noqa: TRY400  (it says all)
            return
        except (AnchorError, NoteError, KeyFileUnsafe, OSError, ProgrammingError) as fault:
            # No checkpoint yet, or a role that may not empty bodies.
            log.warning("retention.not_done", reason=str(fault.orig if isinstance(fault, DBAPIError) else fault))
            return
        for one in done:
            if one.records or one.runs or one.files:
                log.info("retention.pruned", **asdict(one))
