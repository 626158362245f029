"""`gatehouse audit verify|anchor|prove|rotate-key`: showing that the log is what was written, to somebody who trusts
neither the database nor us. `verify --export` and `verify --proof` need no installation at all."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from api.commands.audit import app, on_store, record_change
from api.commands.output import put, put_fields, put_json, visible
from api.commands.session import CommandError, Exit, Json, Session, session

if TYPE_CHECKING:
    from worker.store.anchor import Vouched
    from worker.store.checking import Verification
    from worker.store.checkpoints import Published
    from worker.store.database import Database
    from worker.store.note import Keys

Export = Annotated[Path | None, typer.Option("--export", help="File that `audit export` wrote, instead of the store.")]
Key = Annotated[
    Path | None, typer.Option("--public-key", help="File with the checkpoints' public key; the installation's own.")
]
Anchor = Annotated[Path | None, typer.Option("--anchor", help="Anchor file, or a signed note; the installation's own.")]


@app.command("verify")
def verify(
    ctx: typer.Context,
    export: Export = None,
    public_key: Key = None,
    anchor: Anchor = None,
    proof: Annotated[Path | None, typer.Option("--proof", help="File that `audit prove` printed.")] = None,
    json_: Json = False,
) -> None:
    """Recompute every hash; exit 1 and `record <number>: ...` when a record was changed or is missing.

    With --export, --public-key and --anchor it checks a file against what was signed, without store or API."""
    if proof is not None:
        _verify_proof(proof, _keys(ctx, public_key), json_=json_)
    elif export is not None:
        from worker.store.offline import verify_export

        if public_key is None or anchor is None:
            raise CommandError(
                "an export proves nothing by itself", "give --public-key and --anchor with it", Exit.USAGE
            )
        try:
            _tell(verify_export(export, _keys(ctx, public_key), anchor), json_=json_)
        except OSError as error:
            raise CommandError(f"cannot read: {error}", "give readable files", Exit.USAGE) from None
    else:

        async def check(database: "Database") -> "Verification":
            import asyncio

            from worker.store.verification import verify_blocking

            return await asyncio.to_thread(verify_blocking, database, _vouched(ctx, public_key, anchor))

        _tell(on_store(session(ctx), check), json_=json_)


@app.command("anchor")
def anchor(ctx: typer.Context, json_: Json = False) -> None:
    """Sign a checkpoint of the log as it stands now, and publish it to the anchor file."""
    _published(ctx, "publish", json_=json_)


@app.command("rotate-key")
def rotate_key(ctx: typer.Context, json_: Json = False) -> None:
    """Replace the key that signs checkpoints. The old key signs for the new one; either public key verifies the log."""
    _published(ctx, "rotate", json_=json_)


@app.command("prove")
def prove(
    ctx: typer.Context,
    seq: Annotated[int | None, typer.Argument(min=1, help="Record to prove to be in the log.")] = None,
    old: Annotated[int | None, typer.Option("--from", min=1, help="Size of an earlier checkpoint...")] = None,
    new: Annotated[
        int | None, typer.Option("--to", min=1, help="...and of a later one; the newest if left out.")
    ] = None,
    export: Export = None,
    public_key: Key = None,
    anchor: Anchor = None,
    _json: Json = False,
) -> None:
    """Print a proof, as JSON, that anybody with the public key can check: `gatehouse audit verify --proof FILE`.

    With a record: that it is in the signed log. With --from: that the log then is the beginning of the log now."""
    from worker.store.merkle import ProofError
    from worker.store.proofs import prove_growth, prove_record

    if (seq is None) == (old is None):
        raise CommandError("what shall be proved?", "give a record's number, or --from a checkpoint's size", Exit.USAGE)
    vouched = _vouched(ctx, public_key, anchor)
    try:
        if seq is not None:
            put_json(prove_record(vouched, seq, _line(ctx, seq, export)))
        else:
            put_json(prove_growth(vouched, old or 0, new or vouched.size))
    except ProofError as error:
        raise CommandError(f"cannot be proved: {error}", "`gatehouse audit anchor` signs a checkpoint now") from None


@app.command("grants")
def grants(
    ctx: typer.Context,
    role: Annotated[str, typer.Argument(help="PostgreSQL role that the processes connect as; it exists already.")],
    show: Annotated[bool, typer.Option("--show", help="Print the statements instead of running them.")] = False,
    retention: Annotated[
        bool, typer.Option("--retention", help="It may also empty bodies of old records; for `gatehouse retention`.")
    ] = False,
) -> None:
    """Give a PostgreSQL role what the product needs, and on the audit log no more than INSERT and SELECT.

    GATEHOUSE_DATABASE_URL must be the owner's: it migrates, too."""
    from worker.store.grants import grant, statements

    try:
        if show:
            put("".join(f"{statement};\n" for statement in statements(role, retention=retention)).rstrip())
        else:
            on_store(session(ctx), lambda database: grant(database, role, retention=retention))
    except ValueError as error:
        raise CommandError(str(error), "see `PostgreSQL` in docs/operations.md", Exit.USAGE) from None


def _tell(found: "Verification", *, json_: bool) -> None:
    clock = found.clock
    told: dict[str, Any] = {
        "first_bad": found.first_bad, "ok": found.ok, "problem": found.problem, "count": found.count,
        "anchored": found.anchored, "head": found.head, "clock_set_back": clock.back, "silences": clock.silences,
        "longest_silence_s": round(clock.longest.total_seconds()), "longest_silence_after": clock.longest_after,
    }  # fmt: skip
    if not found.ok:
        # The number stands on the first line, whatever reads it.
        put(json.dumps(told) if json_ else f"record {found.first_bad}: {visible(found.problem)}")
        raise typer.Exit(Exit.FAILED)
    if json_:
        put_json(told)
        return
    put_fields([("verify", "ok"), ("records", found.count), ("signed for up to", found.anchored), ("head", found.head)])
    put_fields([("finding", "every record is as it was written, none is missing")])
    if clock.back:
        put_fields([("clock", f"was set back {clock.back} times, first before record {clock.back_at}")])
    if clock.silences:
        put_fields([("silence", f"{clock.silences} times; longest {clock.longest} after record {clock.longest_after}")])


def _verify_proof(proof: Path, keys: "Keys", *, json_: bool) -> None:
    from worker.store.merkle import ProofError
    from worker.store.proofs import check_proof

    try:
        words = check_proof(json.loads(proof.read_bytes()), keys)
    except (ProofError, ValueError, OSError) as error:
        if json_:
            put_json({"ok": False, "problem": str(error)})
        else:
            put(f"not proved: {visible(error)}")
        raise typer.Exit(Exit.FAILED) from None
    put_json({"ok": True, "proved": words}) if json_ else put(f"proved: {visible(words)}")


def _published(ctx: typer.Context, what: Literal["publish", "rotate"], *, json_: bool) -> None:
    import asyncio

    from worker.store.anchor import AnchorError
    from worker.store.checking import BadRecord
    from worker.store.checkpoints import Publisher, load_or_create, public_path
    from worker.store.keyfiles import KeyFileUnsafe
    from worker.store.note import NoteError
    from worker.store.policies import INSTALLATION
    from worker.store.records import AuditEvent

    settings = session(ctx).settings()

    def record(old: str, new: str) -> None:
        event_id, body = f"checkpoint_key/{new}", {"from": old, "to": new}
        record_change(
            session(ctx), AuditEvent(event_id, "checkpoint_key.rotated", INSTALLATION, None, "system:cli", {**body})
        )

    async def work(database: "Database") -> "Published":
        publisher = Publisher(database, settings.keys, settings.anchor)
        if what == "publish":
            return await asyncio.to_thread(publisher.publish)
        # In its thread the record has a loop of its own.
        return await asyncio.to_thread(publisher.rotate, record)

    try:
        done = on_store(session(ctx), work)
        key = load_or_create(settings.keys)
    except BadRecord as bad:
        put(f"record {bad.seq}: {visible(bad.problem)}")
        raise typer.Exit(Exit.FAILED) from None
    except (AnchorError, NoteError, KeyFileUnsafe, OSError) as error:
        raise CommandError(f"nothing was signed: {error}", "see `Audit proof` in docs/operations.md") from None
    told = {
        "size": done.size, "fresh": done.fresh, "anchor": str(settings.anchor.resolve()),
        "public_key": str(public_path(settings.keys, key).resolve()), "note": done.note,
    }  # fmt: skip
    if json_:
        put_json(told)
        return
    put_fields([("records", done.size), ("anchor", told["anchor"]), ("public key", told["public_key"])])
    put(visible(done.note, lines=True).rstrip())


def _keys(ctx: typer.Context, given: Path | None) -> "Keys":
    from worker.store.checkpoints import public_keys
    from worker.store.note import NoteError, parse_keys

    try:
        return parse_keys(given.read_text()) if given else public_keys(session(ctx).settings().keys)
    except (NoteError, OSError, ValueError) as error:
        raise CommandError(f"the public key cannot be read: {error}", "give a file from `keys/`", Exit.USAGE) from None


def _vouched(ctx: typer.Context, public_key: Path | None, anchor: Path | None) -> "Vouched":
    """What the anchor vouches for; nothing when none was given and the installation has none yet."""
    from worker.store.anchor import AnchorError, read
    from worker.store.checking import NOTHING

    path = anchor or session(ctx).settings().anchor
    if anchor is None and not path.exists():
        return NOTHING
    try:
        return read(path, _keys(ctx, public_key))
    except AnchorError as error:
        put(f"record {error.seq}: {visible(error.problem)}")
        raise typer.Exit(Exit.FAILED) from None
    except OSError as error:
        raise CommandError(f"cannot read: {error}", "give a readable --anchor", Exit.USAGE) from None


def _line(ctx: typer.Context, seq: int, export: Path | None) -> bytes:
    """The record as the export has it, from a file or from the store. Raises CommandError when it is not there."""
    if export is not None:
        with export.open("rb") as source:
            for number, line in enumerate(source, 1):
                if number == seq:
                    return line
    else:
        found = _stored(session(ctx), seq)
        if found is not None:
            return found
    raise CommandError(f"there is no record {seq}", "`gatehouse audit search` lists them")


def _stored(given: Session, seq: int) -> bytes | None:
    from worker.store.audit import AuditLog

    async def first(database: "Database") -> bytes | None:
        async for line in AuditLog(database).export(after=seq - 1):
            return line
        return None

    return on_store(given, first)
