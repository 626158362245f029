"""What the routes work with: every collaborator of the API, opened once by the composition root and closed with it."""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, cast

from fastapi import Depends, Request

from api.gateway import Gateway
from api.limits import Throttle
from api.oidc import Provider
from api.rates import Rates
from api.tail import Tail
from policies.redaction import Redactor
from tools.catalog import BUILT_IN, load_tools
from worker import own_keys, temporal
from worker.artifacts import open_blobs
from worker.automations import Catalog
from worker.codec import EncryptingCodec
from worker.encryption import open_keyring
from worker.notify.channels import load
from worker.notify.following import Following
from worker.notify.tokens import Tokens
from worker.policy import LivePolicy
from worker.reading import PayloadReader
from worker.settings import Settings
from worker.storage import open_database
from worker.store.approvals import Approvals
from worker.store.audit import AuditLog
from worker.store.blobs import Blobs
from worker.store.database import Database
from worker.store.files import Files
from worker.store.idempotency import Idempotency
from worker.store.keyring import Keyring
from worker.store.keys import ApiKeys
from worker.store.outbox import Outbox
from worker.store.policies import Policies
from worker.store.queue import Queue
from worker.store.runs import Runs
from worker.store.sessions import Sessions
from worker.store.signing import CurrentKey, PublicKeys
from worker.store.spent import Spent
from worker.store.standing import Standing
from worker.store.stops import Stops
from worker.store.switches import Switches
from worker.store.verification import Follower


@dataclass(frozen=True, slots=True)
class Services:
    """Shared by all requests of the process; every member is safe for concurrent use."""

    settings: Settings
    redacts: Redactor
    """Takes out what may not be stored or shown."""
    database: Database
    audit: AuditLog
    runs: Runs
    switches: Switches
    stops: Stops
    outbox: Outbox
    notify: Following
    """Who is who elsewhere."""
    tokens: Tokens
    """Of messages."""
    spent: Spent
    approvals: Approvals
    queue: Queue
    keys: ApiKeys
    sessions: Sessions
    files: Files
    blobs: Blobs
    reader: PayloadReader
    """Payloads of Temporal, for people."""
    idempotency: Idempotency
    catalog: Catalog
    engine: LivePolicy
    """The policy in force, which may change between two requests."""
    answer_key: CurrentKey
    public_keys: Mapping[str, str]
    """Answer keys of this installation as they are now, retired ones included: what runs accept."""
    standing: Standing
    """Grants, and who answers for whom."""
    gateway: Gateway
    tail: Tail
    oidc: Provider | None
    """The identity provider, where one is set."""
    follower: Follower
    """Verifies the log, going on where it ended the last time."""
    bad_keys: Throttle
    """Caps the audit records about requests without a valid key."""
    rates: Rates


@asynccontextmanager
async def open_services(settings: Settings) -> AsyncGenerator[Services, None]:
    """Open everything but Temporal, which is connected to when first needed; close it again at the end.

    Migrates the store. Raises StoreUnavailable, KeyringError, and the errors of rules, automations and tools, which
    name the file.
    """
    keyring = open_keyring(settings)  # nothing is served that could not be encrypted
    own_keys.require(settings)
    database = open_database(settings)
    following: asyncio.Task[None] | None = None
    obeying: asyncio.Task[None] | None = None
    tail: Tail | None = None
    try:
        await database.migrate()
        audit, blobs = AuditLog(database), open_blobs(settings)
        tools = load_tools([BUILT_IN, *([settings.home / "tools"] if settings.home else [])])
        catalog = await Catalog.load(settings.home, blobs, tools)
        engine = LivePolicy(
            Policies(database, audit), settings.home, catalog.tools, environment=settings.environment,
            strict=settings.policy_strict,
        )  # fmt: skip
        await engine.start()
        obeying = asyncio.create_task(engine.follow())
        answer_key, public = CurrentKey(settings.keys), PublicKeys(settings.keys)
        tail = Tail(audit)
        following = asyncio.create_task(tail.run())
        yield Services(
            settings=settings, redacts=temporal.redactor(settings), database=database, audit=audit, runs=Runs(database),
            switches=Switches(database, audit), stops=Stops(database), outbox=Outbox(database),
            notify=Following(settings.home, load, start_without=True), tokens=Tokens(settings.keys),
            spent=Spent(database, audit),
            approvals=Approvals(database),
            queue=Queue(database), keys=ApiKeys(database, audit, settings.keys),
            sessions=Sessions(
                database, audit, idle=timedelta(minutes=settings.console_idle_minutes),
                life=timedelta(hours=settings.console_session_hours),
            ),
            files=Files(database, blobs), blobs=blobs,
            idempotency=Idempotency(database), catalog=catalog, engine=engine, answer_key=answer_key,
            public_keys=public, standing=Standing(database, audit, public), gateway=Gateway(settings), tail=tail,
            oidc=Provider(settings) if settings.oidc_issuer else None, follower=Follower(database),
            reader=_reader(settings, keyring, blobs, Runs(database)), bad_keys=Throttle(per_minute=10),
            rates=Rates(key=settings.rate_key, tenant=settings.rate_tenant, unknown=settings.rate_unknown),
        )  # fmt: skip
    finally:
        if obeying is not None:
            obeying.cancel()
            await asyncio.gather(obeying, return_exceptions=True)
        if tail is not None and following is not None:
            tail.stop()
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
        await database.close()


def _reader(settings: Settings, keyring: Keyring, blobs: Blobs, runs: Runs) -> PayloadReader:
    async def owner_of(run_id: str) -> str | None:
        run = await runs.get(None, run_id)
        return None if run is None else run.tenant

    codec = EncryptingCodec(keyring, settings.temporal_namespace)
    return PayloadReader(codec, blobs, temporal.redactor(settings), owner_of)


def services(request: Request) -> Services:
    """The dependency by which a route takes them."""
    return cast(Services, request.app.state.services)


ServicesDep = Annotated[Services, Depends(services)]
