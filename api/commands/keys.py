"""`gatehouse keys`: API keys. They work on the store itself: the first key has to come from somewhere."""

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from api.commands.audit import on_store, record_change
from api.commands.output import moment, put, put_json, put_table, say
from api.commands.session import CommandError, Exit, Json, session

if TYPE_CHECKING:
    from worker.store.database import Database
    from worker.store.keys import ApiKey

app = typer.Typer(no_args_is_help=True, help="API keys: create, list, revoke.")
ROLES = ("viewer", "operator", "approver", "auditor", "admin", "break-glass")


@app.command("init")
def init(ctx: typer.Context) -> None:
    """Make what this installation hashes and signs with, as far as it is missing. In production nothing else does."""
    from worker import own_keys
    from worker.store.keyfiles import KeyFileUnsafe

    settings = session(ctx).settings()
    try:
        made = own_keys.make(settings)
    except (KeyFileUnsafe, OSError, ValueError) as error:
        raise CommandError(str(error), "the keys are as they were") from None
    say(f"made {', '.join(made)} in {settings.keys}; back them up" if made else f"{settings.keys} holds all of them")


@app.command("create")
def create(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(help="Who will use it: the principal's id in every record.")],
    role: Annotated[list[str], typer.Option("--role", "-r", help=f"{', '.join(ROLES)}; may be repeated.")],
    tenant: Annotated[str, typer.Option(help="Whose runs and approvals it sees.")] = "default",
    days: Annotated[int, typer.Option(min=1, max=3650, help="Days until it stops working.")] = 90,
    service: Annotated[bool, typer.Option("--service", help="A program uses it, not a person.")] = False,
    scope: Annotated[
        list[str] | None, typer.Option(help="Only this of what its roles allow: runs:read, runs:*; may be repeated.")
    ] = None,
    json_: Json = False,
) -> None:
    """Make a key. It is printed once, on stdout, and kept nowhere."""
    from policies.decision import Principal
    from worker import own_keys
    from worker.store.audit import AuditLog
    from worker.store.keyring import KeyringError
    from worker.store.keys import ApiKeys

    unknown = [r for r in role if r not in ROLES]
    if unknown:
        raise CommandError(f"no such role: {', '.join(unknown)}", f"roles: {', '.join(ROLES)}", Exit.USAGE)
    principal = Principal(id=name, tenant=tenant, roles=tuple(role), kind="service" if service else "person")
    settings = session(ctx).settings()
    try:
        own_keys.require(settings)
    except KeyringError as error:
        raise CommandError(str(error), "no key was made") from None
    expires = datetime.now(UTC) + timedelta(days=days)

    async def do(database: "Database") -> tuple[object, str]:
        await database.migrate()
        return await ApiKeys(database, AuditLog(database), settings.keys).create(
            name, principal, expires, scopes=tuple(scope or ())
        )

    _, plaintext = on_store(session(ctx), do)
    if json_:
        put_json({"name": name, "roles": role, "tenant": tenant, "expires": expires.isoformat(), "key": plaintext})
        return
    put(plaintext)
    say(f"key of {name} ({', '.join(role)}), valid until {moment(expires.isoformat())}; it is not shown again")


@app.command("list")
def list_keys(ctx: typer.Context, json_: Json = False) -> None:
    """Keys that exist; never the keys themselves."""
    from worker.store.audit import AuditLog
    from worker.store.keys import ApiKeys

    settings = session(ctx).settings()
    found = on_store(session(ctx), lambda store: ApiKeys(store, AuditLog(store), settings.keys).list(None))
    shown = [k.model_dump(mode="json") for k in found]
    if json_:
        put_json(shown)
        return
    rows = [
        (k.id, k.name, _state(k), ", ".join(k.principal.roles), k.principal.tenant, _when(k.last_used_at))
        for k in found
    ]
    put_table(["id", "name", "state", "roles", "tenant", "last used"], rows, "no keys")


@app.command("rotate")
def rotate(
    ctx: typer.Context,
    key_id: Annotated[str, typer.Argument(help="Id, from `gatehouse keys list`.")],
    grace_hours: Annotated[int, typer.Option(min=0, max=720, help="Hours the old key goes on at most.")] = 24,
    json_: Json = False,
) -> None:
    """Make a successor with the same principal, roles and scopes. It is printed once, on stdout."""
    from worker.store.audit import AuditLog
    from worker.store.keys import ApiKeys

    settings = session(ctx).settings()
    grace = timedelta(hours=grace_hours)
    rotated = on_store(
        session(ctx), lambda store: ApiKeys(store, AuditLog(store), settings.keys).rotate(None, key_id, grace=grace)
    )
    if rotated is None:
        raise CommandError(f"there is no valid key {key_id}", "`gatehouse keys list` shows them")
    new, plaintext = rotated
    if json_:
        put_json({**new.model_dump(mode="json"), "key": plaintext})
        return
    put(plaintext)
    say(f"{key_id} goes on for {grace_hours} hours at most; its successor {new.id} is not shown again")


def _state(key: "ApiKey") -> str:
    if key.revoked_at:
        return "revoked"
    return "expired" if key.expires_at and key.expires_at <= datetime.now(UTC) else "valid"


def _when(at: datetime | None) -> str:
    return moment(at.isoformat()) if at else "never"


@app.command("rotate-answers")
def rotate_answers(ctx: typer.Context, json_: Json = False) -> None:
    """Let a new key sign people's answers. Runs in flight follow; the old key's answers keep counting."""
    from worker.store.policies import INSTALLATION
    from worker.store.records import AuditEvent
    from worker.store.signing import load_or_create, rotate

    def record(old: str, new: str) -> None:
        record_change(
            session(ctx),
            AuditEvent(
                f"answer_key/{new}", "answer_key.rotated", INSTALLATION, None, "system:cli", {"from": old, "to": new}
            ),
        )

    keys = session(ctx).settings().keys
    old = load_or_create(keys).key_id
    new = rotate(keys, record).key_id
    put_json({"old": old, "new": new}) if json_ else say(f"answers are signed by {new} from here on, after {old}")


@app.command("revoke-answers")
def revoke_answers(
    ctx: typer.Context, key_id: Annotated[str, typer.Argument(help="Id of an answer key that was rotated out.")]
) -> None:
    """Believe nothing any more that this answer key signed: for a key that got out. Runs that acted on it fail."""
    from worker.store.policies import INSTALLATION
    from worker.store.records import AuditEvent
    from worker.store.signing import revoke as revoke_key

    def record() -> None:
        event_id = f"answer_key/{key_id}/revoked"
        told = {"key_id": key_id}
        record_change(
            session(ctx), AuditEvent(event_id, "answer_key.revoked", INSTALLATION, None, "system:cli", {**told})
        )

    try:
        revoke_key(session(ctx).settings().keys, key_id, record)
    except ValueError as error:
        raise CommandError(str(error), "`gatehouse keys rotate-answers` makes a new one") from None
    say(f"{key_id} is revoked")


@app.command("revoke")
def revoke(ctx: typer.Context, key_id: Annotated[str, typer.Argument(help="Id, from `gatehouse keys list`.")]) -> None:
    """Make a key worthless from now on."""
    from worker.store.audit import AuditLog
    from worker.store.keys import ApiKeys

    settings = session(ctx).settings()
    if not on_store(session(ctx), lambda store: ApiKeys(store, AuditLog(store), settings.keys).revoke(None, key_id)):
        raise CommandError(f"there is no key {key_id}", "`gatehouse keys list` shows them")
    say(f"{key_id} is revoked")
